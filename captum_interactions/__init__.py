"""Second-order attributions for dual encoders: which part of a met which part of b?"""

from captum_interactions.attr import SecondOrderIntegratedGradients
from captum_interactions.check import check_wrapper
from captum_interactions.encoders import CallableTower, DualEncoderWrapper, from_pretrained, wrap
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
