"""What the slow oracle says about a CLIP, without any help of the package's own towers.

Hidden states are read and replaced by hooks, and the model's own getters do the rest. One pair at a
time, without padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_interactions.functional import Quadrature
from tests.oracle import entering, feature_map, replaced_input


class Side(NamedTuple):
    """One input of one tower, at a layer."""

    function: Callable[[Tensor], Tensor]
    """Features (N, *F) to embeddings (N, K), as the model gives them."""
    start: Tensor
    end: Tensor

    def scaled(self, normalization: str) -> Callable[[Tensor], Tensor]:
        if normalization == "cosine":
            return lambda x: (y := self.function(x)) / y.norm(dim=-1, keepdim=True)
        if normalization == "frozen":
            norm = self.function(self.end[None]).norm()
            return lambda x: self.function(x) / norm
        return self.function


def image_side(model: Any, pixels: Tensor, layer: int | str, baseline: Tensor) -> Side:
    resized = tuple(pixels.shape[-2:]) != (model.vision_model.embeddings.image_size,) * 2

    def run(x: Tensor) -> Tensor:
        output = model.get_image_features(pixel_values=x, interpolate_pos_encoding=resized)
        return output.pooler_output

    if layer == "input":
        return Side(run, baseline[0], pixels[0])
    return _at_block(model.vision_model.encoder.layers[layer], run, pixels, baseline)


def text_side(model: Any, ids: Tensor, layer: int, baseline: Tensor) -> Side:
    def run(x: Tensor) -> Tensor:
        return model.get_text_features(input_ids=x).pooler_output

    return _at_block(model.text_model.encoder.layers[layer], run, ids, baseline)


def _at_block(
    block: nn.Module, run: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor
) -> Side:
    def function(states: Tensor) -> Tensor:
        # The states alone count; ids say where to pool.
        with replaced_input(block, states):
            return run(inputs.expand(len(states), *inputs.shape[1:]))

    start, end = (entering(block, lambda x=x: run(x))[0] for x in (baseline, inputs))
    return Side(function, start, end)


def expected_features(
    side_a: Side,
    side_b: Side,
    rule: Quadrature,
    normalization: str = "cosine",
    multiply_by_inputs: bool = True,
) -> Tensor:
    """Interactions of all pairs of features, (*Fa, *Fb)."""
    return feature_map(
        side_a.scaled(normalization),
        side_b.scaled(normalization),
        (side_a.start, side_a.end),
        (side_b.start, side_b.end),
        *rule,
        multiply_by_inputs,
    )


def expected_map(*args: Any, patch: int = 4, **kwargs: Any) -> Tensor:
    """Interactions of all pairs of tokens, (Ta, Tb)."""
    features = expected_features(*args, **kwargs).sum(-1)
    if features.dim() == 3:  # (Ta, Da, Tb)
        return features.sum(1)
    # (C, H, W, Tb): sums over square patches.
    pooled = nn.functional.avg_pool2d(features.sum(0).permute(2, 0, 1), patch) * patch**2
    return pooled.flatten(1).T


def text_baseline(ids: Tensor, pad: int) -> Tensor:
    """The first and the last id, and padding between."""
    baseline = torch.full_like(ids, pad)
    baseline[:, 0], baseline[:, -1] = ids[:, 0], ids[:, -1]
    return baseline


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


def rounding(n_terms: int, sizes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The most by which rounding changes sums of products, added in any order.

    Args:
        n_terms (int): Number of products in a sum.
        sizes (Tensor): Sums of the absolute values of these products.
        dtype (torch.dtype): In which factors and sums are rounded. Default: float32
    """
    # Both factors, the product and n - 1 sums are rounded, each by half the distance of numbers.
    return (n_terms + 2) * torch.finfo(dtype).eps / 2 * sizes


def rounding_of_products(a: Tensor, b: Tensor, error_a: Tensor, error_b: Tensor) -> Tensor:
    """The most by which products (I, K) @ (K, J) change by errors of their factors and rounding."""
    a, b = a.abs(), b.abs()
    return error_a @ b + (a + error_a) @ error_b + rounding(a.shape[1], a @ b)
