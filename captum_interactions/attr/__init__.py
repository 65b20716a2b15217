"""Attribution methods, each a Captum ``Attribution``, known by a name."""

from __future__ import annotations

from typing import Any

from captum_interactions.attr.archipelago import Archipelago
from captum_interactions.attr.integrated_hessians import IntegratedHessians
from captum_interactions.attr.interaction_cam import InteractionCAM
from captum_interactions.attr.interaction_lime import InteractionLIME
from captum_interactions.attr.lifted import LiftedAttribution
from captum_interactions.attr.second_order_integrated_gradients import (
    SecondOrderIntegratedGradients,
)
from captum_interactions.attr.token_decomposition import TokenDecomposition
from captum_interactions.attr.token_similarity import TokenSimilarity

ATTRIBUTIONS: dict[str, type[Any]] = {
    "second_order_integrated_gradients": SecondOrderIntegratedGradients,
    "archipelago": Archipelago,
    "integrated_hessians": IntegratedHessians,
    "interaction_cam": InteractionCAM,
    "interaction_lime": InteractionLIME,
    "lifted": LiftedAttribution,
    "token_decomposition": TokenDecomposition,
    "token_similarity": TokenSimilarity,
}
"""Names by which ``explain`` and the command line know attribution methods."""

__all__ = [
    "ATTRIBUTIONS",
    "Archipelago",
    "IntegratedHessians",
    "InteractionCAM",
    "InteractionLIME",
    "LiftedAttribution",
    "SecondOrderIntegratedGradients",
    "TokenDecomposition",
    "TokenSimilarity",
]
