"""The last block of a transformer along a path, as a function of one coordinate per token.

Token t moves from its state ``r_t`` to ``r_t + d_t``; at the coordinate ``z_t`` its state is
``r_t + z_t d_t``. The layer norm of this state is a combination of two fixed vectors, whose
coefficients are known functions of ``z_t``. If only one output row of the block is needed (see
:mod:`.pooled_block`), logits and values of the other tokens are combinations of products with these
fixed vectors. So the states at the nodes of a path are never computed, the Jacobian-vector product
with one token's displacement is a derivative in one coordinate, and the gradient in the coordinates
is already an attribution of tokens. In exact arithmetic the result equals the block's output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.model.per_head import per_head
from captum_interactions.encoders.model.pooled_block import PreNormBlock, is_plain

_AT_ONCE = 8
"""Number of examples whose vectors are computed together."""
RowAt = Callable[[Tensor, slice], Tensor]
"""``(coordinates, examples) -> (N, D)`` for coordinates (N, T) of these examples, node-major."""


def has_plain_norm(block: PreNormBlock) -> bool:
    """Whether the first norm of a block is one that :func:`row_along` supports."""
    norm: Any = block.norm
    is_layer_norm = type(norm) is nn.LayerNorm and norm.elementwise_affine
    return is_layer_norm and len(norm.normalized_shape) == 1 and is_plain(norm, "torch.nn.")


def row_along(
    block: PreNormBlock,
    start: Tensor,
    end: Tensor,
    position: Tensor,
    visible: Tensor | None = None,
) -> RowAt:
    """Output of a pre-norm transformer block at one token, as a function of path coordinates.

    Args:
        block (PreNormBlock): The parts of a block for which :func:`has_plain_norm` holds.
        start (Tensor): Hidden states entering the block at the coordinate 0, shape (1 or B, T, D).
        end (Tensor): Hidden states at the coordinate 1, shape (B, T, D).
        position (Tensor): Index of the pooled token, int64 of shape (B,).
        visible (Tensor, optional): True for tokens that the pooled one may attend to, shape (B, T).
            Default: all of them

    Returns:
        Callable: see :data:`RowAt`; differentiable in the coordinates.
    """
    path = _NormedPath(cast(nn.LayerNorm, block.norm), start, end)
    first = start.expand_as(end)
    examples = torch.arange(len(end), device=end.device)
    row_start = first[examples, position]
    row_step = end[examples, position] - row_start
    vectors_row = path.vectors[examples[:, None], torch.stack([position, position + path.size], 1)]

    def row_at(coordinates: Tensor, rows: slice) -> Tensor:
        at = position[rows]
        z = coordinates.unflatten(0, (-1, len(at)))  # (n, B, T)
        own = examples[: len(at)]
        coefficients = path.coefficients(z, rows)  # (n, B, 2T)
        pair = torch.stack([coefficients[:, own, at], coefficients[:, own, at + path.size]], -1)
        normed = (pair.to(end.dtype).unsqueeze(-1) * vectors_row[rows]).sum(-2) + path.bias
        state = row_start[rows] + z[:, own, at].unsqueeze(-1).to(end.dtype) * row_step[rows]
        hidden = None if visible is None else ~visible[rows]
        value = _attend(block, normed, path.vectors[rows], coefficients, hidden, path.bias)
        return block.finish(state, value).flatten(0, 1)

    return row_at


class _NormedPath:
    """Layer norm along straight paths: ``norm(r + z d) = c(z) · vectors + bias`` for each token."""

    def __init__(self, norm: nn.LayerNorm, start: Tensor, end: Tensor) -> None:
        self.size = end.shape[1]
        self.bias = 0.0 if norm.bias is None else norm.bias.detach().to(end.dtype)
        self._eps = norm.eps
        self._dtype = torch.promote_types(end.dtype, torch.float32)
        # A few examples at a time, to limit memory.
        pieces = [
            self._vectors(norm, start if len(start) == 1 else start[rows], end[rows])
            for first in range(0, len(end), _AT_ONCE)
            for rows in [slice(first, first + _AT_ONCE)]
        ]
        vectors, *moments_and_scales = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        self.vectors = vectors  # (B, 2T, D)
        self._moments, self._scales = moments_and_scales[:3], moments_and_scales[3:]

    @staticmethod
    def _vectors(norm: nn.LayerNorm, start: Tensor, end: Tensor) -> list[Tensor]:
        """The vectors, and for each token three moments of the path and both vectors' scales."""
        # Near a constant state, variances are differences of large numbers.
        wide = torch.float32 if end.device.type == "mps" else torch.float64
        low = start.to(wide)
        step = end.to(wide) - low
        low, step = low - low.mean(-1, keepdim=True), step - step.mean(-1, keepdim=True)
        moments = [(low * low).mean(-1), (low * step).mean(-1), (step * step).mean(-1)]
        # Both vectors at unit scale, so that half precision can represent them.
        scales = [square.sqrt().clamp_min(norm.eps**0.5) for square in (moments[0], moments[2])]
        units = (low / scales[0].unsqueeze(-1), step / scales[1].unsqueeze(-1))
        # The norm of a half-precision model may be in float32; its output is in half precision.
        parts = [(part * norm.weight.detach()).to(end.dtype).expand_as(end) for part in units]
        shape = end.shape[:2]
        return [torch.cat(parts, 1), *(value.expand(shape) for value in moments + scales)]

    def coefficients(self, z: Tensor, rows: slice) -> Tensor:
        """Coefficients (n, B, 2T) of the vectors, for coordinates (n, B, T)."""
        z = z.to(self._moments[0].dtype)
        first, mixed, last = (moment[rows] for moment in self._moments)
        variance = first + z * (2 * mixed + z * last)
        inverse = (variance.clamp_min(0.0) + self._eps).rsqrt()
        parts = [inverse * self._scales[0][rows], inverse * z * self._scales[1][rows]]
        return torch.cat(parts, -1).to(self._dtype)


def _attend(
    block: PreNormBlock,
    normed: Tensor,
    vectors: Tensor,
    coefficients: Tensor,
    hidden: Tensor | None,
    bias: Tensor | float,
) -> Tensor:
    """Values (n, B, heads · width) for the pooled token, of which the normed state is (n, B, D)."""
    heads, n_nodes, n_tokens = block.n_heads, len(normed), vectors.shape[1] // 2
    query = block.query(normed).transpose(0, 1).unflatten(-1, (heads, -1))
    # The softmax ignores what biases add to all tokens of a head alike.
    question = per_head(query * block.scale, block.key.per_head(heads))  # (B, n, heads, D)
    answers = (question.flatten(1, 2) @ vectors.transpose(1, 2)).unflatten(1, (n_nodes, heads))
    shares = coefficients.transpose(0, 1).unsqueeze(2).unflatten(-1, (2, n_tokens))
    logits = (answers.to(coefficients.dtype).unflatten(-1, (2, n_tokens)) * shares).sum(-2)
    if hidden is not None:
        logits = logits.masked_fill(hidden[:, None, None], float("-inf"))
    weights = logits.softmax(-1)
    mixture = (weights.unsqueeze(-2) * shares).flatten(-2).to(vectors.dtype)
    mean = (mixture.flatten(1, 2) @ vectors).unflatten(1, (n_nodes, heads)) + bias
    value_weight = block.value.per_head(heads).transpose(1, 2)
    value = per_head(mean, value_weight).transpose(0, 1).flatten(2)
    return value if block.value.bias is None else value + block.value.bias
