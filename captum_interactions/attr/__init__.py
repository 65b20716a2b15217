"""Attribution methods, each a Captum ``Attribution``, known by a name."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from captum_interactions.attr.coalition_games import Game, Terms
from captum_interactions.attr.interaction_index import BanzhafInteractions, ShapleyInteractions
from captum_interactions.attr.second_order_integrated_gradients import (
    SecondOrderIntegratedGradients,
)

ATTRIBUTIONS: dict[str, Any] = {
    "second_order_integrated_gradients": SecondOrderIntegratedGradients,
    "banzhaf_interactions": BanzhafInteractions,
    "shapley_interactions": ShapleyInteractions,
}
"""Names by which ``explain`` and the command line know attribution methods."""


class AttributionInfo(NamedTuple):
    """What :func:`attributions` says of a method."""

    name: str
    """What ``explain`` calls it."""
    order: Literal[1, 2]
    """2 for maps of pairs of tokens, 1 for one value a token."""
    needs: str
    """What a wrapper must have."""
    cost: str
    """In passes through the encoders."""
    method: type[Any]


def attributions() -> list[AttributionInfo]:
    """All attribution methods that ``explain`` knows.

    Examples::

        >>> [info.order for info in attributions() if "second_order" in info.name]
        [2]
    """
    return [
        AttributionInfo(name, method.order, method.needs, method.cost, method)
        for name, method in ATTRIBUTIONS.items()
    ]


__all__ = [
    "ATTRIBUTIONS",
    "AttributionInfo",
    "BanzhafInteractions",
    "Game",
    "SecondOrderIntegratedGradients",
    "ShapleyInteractions",
    "Terms",
    "attributions",
]
