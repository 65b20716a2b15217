"""Towers: one modality per file, and the base class."""
