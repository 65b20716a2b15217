"""Attribution methods, each a Captum ``Attribution``, known by a name."""

from __future__ import annotations

from captum_interactions.attr.attention_rollout import AttentionRollout
from captum_interactions.attr.clip_surgery import CLIPSurgery
from captum_interactions.attr.first_order_grad_cam import FirstOrderGradCam
from captum_interactions.attr.first_order_input_x_gradient import FirstOrderInputXGradient
from captum_interactions.attr.first_order_integrated_gradients import FirstOrderIntegratedGradients
from captum_interactions.attr.first_order_occlusion import FirstOrderOcclusion
from captum_interactions.attr.game import GAME
from captum_interactions.attr.grad_eclip import GradECLIP
from captum_interactions.attr.legrad import LeGrad
from captum_interactions.attr.mask_clip import MaskCLIP
from captum_interactions.attr.rise import RISE
from captum_interactions.attr.second_order_integrated_gradients import (
    SecondOrderIntegratedGradients,
)

ATTRIBUTIONS = {
    "second_order_integrated_gradients": SecondOrderIntegratedGradients,
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
}
"""Names by which ``explain`` and the command line know attribution methods."""

__all__ = [
    "ATTRIBUTIONS",
    "GAME",
    "RISE",
    "AttentionRollout",
    "CLIPSurgery",
    "FirstOrderGradCam",
    "FirstOrderInputXGradient",
    "FirstOrderIntegratedGradients",
    "FirstOrderOcclusion",
    "GradECLIP",
    "LeGrad",
    "MaskCLIP",
    "SecondOrderIntegratedGradients",
]
