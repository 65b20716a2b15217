"""Second-order attributions for dual encoders: the parts of a and b that interact."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_interactions.attr import SecondOrderIntegratedGradients
    from captum_interactions.check import check_wrapper
    from captum_interactions.encoders import (
        CallableTower,
        DualEncoderWrapper,
        from_pretrained,
        wrap,
    )
    from captum_interactions.explanation import explain, explain_batch
    from captum_interactions.maps.interaction_map import InteractionMap
    from captum_interactions.zoo import load_demo

__version__ = "0.2.0"

__all__ = [
    "CallableTower",
    "DualEncoderWrapper",
    "InteractionMap",
    "SecondOrderIntegratedGradients",
    "check_wrapper",
    "explain",
    "explain_batch",
    "from_pretrained",
    "load_demo",
    "wrap",
]

_HOMES = {
    "CallableTower": "encoders",
    "DualEncoderWrapper": "encoders",
    "InteractionMap": "maps.interaction_map",
    "SecondOrderIntegratedGradients": "attr",
    "check_wrapper": "check",
    "explain": "explanation",
    "explain_batch": "explanation",
    "from_pretrained": "encoders",
    "load_demo": "zoo",
    "wrap": "encoders",
}
"""The modules of the public names, which are imported when used: they need torch, which takes
seconds, and the command line can parse its arguments without it."""

_PACKAGES = (
    "attr", "axes", "corpus", "datasets", "encoders", "evaluation", "functional", "maps",
    "metrics", "visualization", "zoo",
)  # fmt: skip
"""Packages that are attributes without being imported by their own names."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _PACKAGES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
