"""Attribution methods, each a Captum ``Attribution``, known by a name."""

from __future__ import annotations

from captum_interactions.attr.coalition_games import Game, Terms
from captum_interactions.attr.interaction_index import (
    BanzhafInteractions,
    InteractionIndex,
    ShapleyInteractions,
)
from captum_interactions.attr.second_order_integrated_gradients import (
    SecondOrderIntegratedGradients,
)

ATTRIBUTIONS: dict[str, type[SecondOrderIntegratedGradients] | type[InteractionIndex]] = {
    "second_order_integrated_gradients": SecondOrderIntegratedGradients,
    "banzhaf_interactions": BanzhafInteractions,
    "shapley_interactions": ShapleyInteractions,
}
"""Names by which ``explain`` and the command line know attribution methods."""

__all__ = [
    "ATTRIBUTIONS",
    "BanzhafInteractions",
    "Game",
    "SecondOrderIntegratedGradients",
    "ShapleyInteractions",
    "Terms",
]
