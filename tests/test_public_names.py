"""The package's public names are imported when used, not before."""

import subprocess
import sys

import pytest

import captum_interactions


def test_every_public_name_has_its_home():
    assert set(captum_interactions._HOMES) == set(captum_interactions.__all__)
    for name in captum_interactions.__all__:
        assert getattr(captum_interactions, name).__name__ == name
    assert set(captum_interactions.__all__) <= set(dir(captum_interactions))


def test_packages_are_attributes():
    assert captum_interactions.attr.attributions is not None
    assert {"attr", "datasets", "metrics", "visualization"} <= set(dir(captum_interactions))


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError, match="'captum_interactions' has no attribute 'expalin'"):
        captum_interactions.expalin  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'expalin'"):
        from captum_interactions import expalin  # noqa: F401


def test_the_package_alone_does_not_import_torch():
    program = "import sys, captum_interactions.cli, captum_interactions.hub; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "captum_interactions.hub" in loaded
    assert {"torch", "numpy", "PIL", "transformers", "huggingface_hub"}.isdisjoint(loaded)
