"""Layers where features times gradient is zero: each token is normalised before it is used."""

from __future__ import annotations

import torch

from captum_interactions.attr._utils.layer_inputs import LayerInputs

_TOLERANCE = 1e-4
"""Tolerance, relative to an embedding's length: the epsilon of a layer norm changes a few 1e-6."""


def check_scale_dependence(method: str, side: LayerInputs) -> None:
    r"""Refuse a method that multiplies features by their gradient where all products are zero.

    If the embedding does not change when the features of a token are scaled, as those of the
    patches that enter the last block of a pre-norm transformer, the derivative along the features
    is zero: :math:`\langle x_i, \partial g / \partial x_i\rangle = 0` (Euler's theorem for
    homogeneous functions), and the result is rounding error. The check scales the features of every
    token by 2 or by 1/2, which is exact in every floating-point type.

    Args:
        method (str): Name of the method in the message.
        side (LayerInputs): The inputs of one tower at the layer.

    Raises:
        ValueError: If the embedding of no input depends on the scale of the features of its tokens.
    """
    mask, features = side.content_mask, side.features
    places = torch.arange(mask.shape[1], device=mask.device)
    scales = torch.where(places % 2 == 0, 2.0, 0.5).where(mask > 0, 1.0)
    scaled = features * side.tower.spread(side.layer, scales.to(features.dtype), features.shape)
    if torch.equal(scaled, features):  # zeros, whose products are no rounding
        return
    with torch.no_grad():
        other = side.function(scaled, *side.context)
    change = float(((other - side.embedding).norm(dim=-1) / side.embedding.norm(dim=-1)).max())
    if change <= max(_TOLERANCE, torch.finfo(features.dtype).eps):
        raise ValueError(
            f"{method} is zero for all parts of input {side.name} at layer {side.layer!r}: the "
            "embedding does not depend on the scale of their features there (each token is "
            "normalised before it is used, or not used), so that features times gradient is zero "
            "but for rounding. Take an earlier layer (0 is the embedding output), or another method"
        )
