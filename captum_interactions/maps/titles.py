"""How figures, pages and tables call the methods."""

from __future__ import annotations

TITLES = {
    "second_order_integrated_gradients": "Second-order Integrated Gradients",
    "banzhaf_interactions": "Banzhaf interactions",
    "shapley_interactions": "Shapley interactions",
    "archipelago": "Archipelago",
    "lifted": "Lifted first-order method",
    "integrated_hessians": "Integrated Hessians",
    "interaction_lime": "Interaction LIME",
    "interaction_cam": "InteractionCAM",
    "token_similarity": "Token similarity",
    "token_decomposition": "Token decomposition",
    "integrated_gradients": "Integrated Gradients",
    "input_x_gradient": "Input × Gradient",
    "grad_cam": "Grad-CAM",
    "occlusion": "Occlusion",
    "rise": "RISE",
    "attention_rollout": "Attention rollout",
    "game": "GAME",
    "grad_eclip": "Grad-ECLIP",
    "legrad": "LeGrad",
    "mask_clip": "MaskCLIP",
    "clip_surgery": "CLIP Surgery",
    "gem": "GEM",
}
"""Names as in the papers, by the names that ``explain`` takes."""


def method_title(name: str) -> str:
    """The name of a method for readers; of an unknown one, its words.

    Args:
        name (str): As ``explain`` takes it.
    """
    return TITLES.get(name, name.replace("_", " "))
