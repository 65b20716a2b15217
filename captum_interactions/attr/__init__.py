"""Attribution methods, each a Captum ``Attribution`` with a name."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from captum_interactions.attr._utils.coalition_games import Game, Terms
from captum_interactions.attr._utils.masked_score import MaskedScore, masked_score
from captum_interactions.attr._utils.parameter_stages import parameter_stages
from captum_interactions.attr.first_order.attention_rollout import AttentionRollout
from captum_interactions.attr.first_order.clip_surgery import CLIPSurgery
from captum_interactions.attr.first_order.game import GAME
from captum_interactions.attr.first_order.gem import GEM
from captum_interactions.attr.first_order.grad_cam import FirstOrderGradCam
from captum_interactions.attr.first_order.grad_eclip import GradECLIP
from captum_interactions.attr.first_order.input_x_gradient import FirstOrderInputXGradient
from captum_interactions.attr.first_order.integrated_gradients import FirstOrderIntegratedGradients
from captum_interactions.attr.first_order.legrad import LeGrad
from captum_interactions.attr.first_order.mask_clip import MaskCLIP
from captum_interactions.attr.first_order.occlusion import FirstOrderOcclusion
from captum_interactions.attr.first_order.rise import RISE
from captum_interactions.attr.second_order.archipelago import Archipelago
from captum_interactions.attr.second_order.banzhaf_interactions import BanzhafInteractions
from captum_interactions.attr.second_order.integrated_gradients import (
    SecondOrderIntegratedGradients,
)
from captum_interactions.attr.second_order.integrated_hessians import IntegratedHessians
from captum_interactions.attr.second_order.interaction_cam import InteractionCAM
from captum_interactions.attr.second_order.interaction_lime import InteractionLIME
from captum_interactions.attr.second_order.lifted import LiftedAttribution
from captum_interactions.attr.second_order.shapley_interactions import ShapleyInteractions
from captum_interactions.attr.second_order.token_decomposition import TokenDecomposition
from captum_interactions.attr.second_order.token_similarity import TokenSimilarity

ATTRIBUTIONS: dict[str, Any] = {
    "second_order_integrated_gradients": SecondOrderIntegratedGradients,
    "banzhaf_interactions": BanzhafInteractions,
    "shapley_interactions": ShapleyInteractions,
    "archipelago": Archipelago,
    "lifted": LiftedAttribution,
    "integrated_hessians": IntegratedHessians,
    "interaction_lime": InteractionLIME,
    "interaction_cam": InteractionCAM,
    "token_similarity": TokenSimilarity,
    "token_decomposition": TokenDecomposition,
    "integrated_gradients": FirstOrderIntegratedGradients,
    "input_x_gradient": FirstOrderInputXGradient,
    "grad_cam": FirstOrderGradCam,
    "occlusion": FirstOrderOcclusion,
    "rise": RISE,
    "attention_rollout": AttentionRollout,
    "game": GAME,
    "grad_eclip": GradECLIP,
    "legrad": LeGrad,
    "mask_clip": MaskCLIP,
    "clip_surgery": CLIPSurgery,
    "gem": GEM,
}
"""Attribution methods by the names that ``explain`` and the command line use."""


class AttributionInfo(NamedTuple):
    """A method in the list of :func:`attributions`."""

    name: str
    """Its name for ``explain``."""
    order: Literal[1, 2]
    """2 for interactions of pairs of tokens, 1 for attributions of tokens."""
    needs: str
    """What the wrapper must have."""
    cost: str
    """The cost of one pair, in encoder passes."""
    method: type[Any]


def attributions() -> list[AttributionInfo]:
    """All attribution methods of ``explain``.

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
    "GAME",
    "GEM",
    "RISE",
    "Archipelago",
    "AttentionRollout",
    "AttributionInfo",
    "BanzhafInteractions",
    "CLIPSurgery",
    "FirstOrderGradCam",
    "FirstOrderInputXGradient",
    "FirstOrderIntegratedGradients",
    "FirstOrderOcclusion",
    "Game",
    "GradECLIP",
    "IntegratedHessians",
    "InteractionCAM",
    "InteractionLIME",
    "LeGrad",
    "LiftedAttribution",
    "MaskCLIP",
    "MaskedScore",
    "SecondOrderIntegratedGradients",
    "ShapleyInteractions",
    "Terms",
    "TokenDecomposition",
    "TokenSimilarity",
    "attributions",
    "masked_score",
    "parameter_stages",
]
