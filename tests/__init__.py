"""Tests, and what they share. Packages that need preparation come first."""

from tests import vision_packages as vision_packages
