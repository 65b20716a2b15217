r"""The last block of a BERT-like encoder along a path, with its derivatives in closed form.

Every token moves along a straight path, token i from ``r_i`` to ``r_i + d_i``, and the outputs of
the block are averaged. The derivative of this mean in the direction ``d_i`` of every single token
is wanted at many points. Automatic differentiation takes as many passes through the block as there
are tokens, each with all tokens. Here they are written out instead.

The attention's output changes with token i as

.. math::
    \partial_i o_t = a_{ti} (W_v d_i + e_{ti} (v_i - o_t)) + [t = i] \sum_j c_{tj} v_j

for each head, with weights a, ``e_ti`` the change of a logit with key i, and ``c_tj`` the change of
``a_tj`` with query t. So all of these vectors are combinations of few: values of single tokens at
the start and at the end of the path, multiplied by the weights of what follows. These products do
not depend on the point of the path. Layer norm, the MLP's first matrix, and products with vectors
are linear in the tangents, so they act on the few vectors. The MLP's second matrix acts on sums
over outputs. In exact arithmetic the result equals that of automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from captum_interactions.encoders.model.pooled_block import has_known_function, is_plain

_BLOCKS = {
    *("AlignTextLayer", "AltRobertaLayer", "BertLayer", "CamembertLayer", "ChineseCLIPTextLayer"),
    *("ClapTextLayer", "Data2VecTextLayer", "ElectraLayer", "RobertaLayer", "XLMRobertaLayer"),
}
"""Classes of tested blocks."""
_AT_ONCE = 2**22
"""Limit of the numbers in the largest intermediate result of the points that are taken at once."""
_AT_MOST = 2**25
"""Numbers that all tokens' lifted values may have, about 700 tokens of a small BERT."""


class PostNormBlock(NamedTuple):
    """The parts of a post-norm transformer block."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    n_heads: int
    scale: float
    """Of the logits."""
    output: nn.Linear
    norm: nn.LayerNorm
    """The norm after the attention."""
    up: nn.Linear
    activation: Callable[[Tensor], Tensor]
    down: nn.Linear
    last_norm: nn.LayerNorm
    """The norm after the MLP."""


def post_norm_parts(block: Any) -> PostNormBlock | None:
    """The parts of a post-norm block, for :class:`MeanAlong`.

    None unless it is a block of a tested class whose parts are those of ``transformers``, without
    hooks, adapters, quantisation or a custom attention function.
    """
    is_known = type(block).__name__ in _BLOCKS and is_plain(block, "transformers.models.")
    if not is_known or getattr(block, "is_decoder", False):
        return None
    attention = block.attention.self
    linears = (
        *(attention.query, attention.key, attention.value),
        *(block.attention.output.dense, block.intermediate.dense, block.output.dense),
    )
    norms = (block.attention.output.LayerNorm, block.output.LayerNorm)
    if not (
        all(is_plain(part, ("torch.nn.", "transformers.")) for part in block.modules())
        and all(type(part) is nn.Linear for part in linears)
        and all(type(part) is nn.LayerNorm and part.elementwise_affine for part in norms)
        and all(part.bias is not None for part in (*linears, *norms))
        and len([*block.parameters()]) == 2 * len([*linears, *norms])
        and hasattr(attention, "scaling")
        and has_known_function(attention)
        and isinstance(block.intermediate.intermediate_act_fn, nn.Module)
    ):
        return None
    query, key, value, output, up, down = linears
    return PostNormBlock(
        *(query, key, value, attention.num_attention_heads, attention.scaling, output, norms[0]),
        *(up, block.intermediate.intermediate_act_fn, down, norms[1]),
    )


def is_small_enough(block: PostNormBlock, n_tokens: int) -> bool:
    """Whether there is room for the products of so many tokens."""
    return 2 * block.n_heads * n_tokens * sum(block.up.weight.shape) <= _AT_MOST


class _AtPoints(NamedTuple):
    """The block at points of the path, with R outputs in the mean."""

    attention: Tensor
    """Attention weights, (N, H, R, T)."""
    with_key: Tensor
    """Their changes with the token's key, (N, H, R, T)."""
    with_query: Tensor
    """Their changes with the query of the output's own token, (N, H, R, T)."""
    values: list[Tensor]
    """Lifted outputs of the attention for the value of each token, at each point, (H, T, X)."""
    outputs: list[Tensor]
    """Lifted outputs of the attention at each point, (H, R, X)."""
    normed: Tensor
    """Lifted states after the first norm, (N, R, X), without its weight and bias."""
    inverse: Tensor
    """One over the standard deviations in the first norm, (N, R, 1)."""
    slope: Tensor
    """Derivatives of the activation, (N, R, F)."""
    last_normed: Tensor
    """Outputs without the last norm's weight and bias, (N, R, D)."""
    last_inverse: Tensor
    """One over the standard deviations in the last norm, (N, R, 1)."""
    mean: Tensor
    """The mean of the outputs, (N, D)."""


class MeanAlong:
    """The weighted mean of a block's outputs along a path, and its derivatives.

    A vector x before the first norm is *lifted* to (x, Wx) of X = D + F numbers, with W the MLP's
    first matrix times the norm's weight.

    Args:
        block (PostNormBlock): The parts of the block.
        start (Tensor): States of all tokens that attention sees at the start of the path, (T, D).
        end (Tensor): States at its end, (T, D).
        weights (Tensor): Weight of each token's output in the mean, (T,).
    """

    def __init__(self, block: PostNormBlock, start: Tensor, end: Tensor, weights: Tensor) -> None:
        step, heads = end - start, block.n_heads
        self._block = block
        self._rows = rows = weights.nonzero().flatten()
        self._share = weights[rows].unsqueeze(-1)
        self._query, self._query_step = (
            one[:, rows] * block.scale for one in _split(block.query, start, step, heads)
        )
        self._key, self._key_step = _split(block.key, start, step, heads)
        weight = block.up.weight * block.norm.weight
        values = torch.cat(_split(block.value, start, step, heads), 1)  # (H, 2 T, width)
        output = block.output.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)  # (H, width, D)
        if 2 * heads * len(end) < len(block.norm.weight):
            values = _lift(values @ output, weight)
        else:  # there are more vectors than rows of the product of the weights
            values = values @ _lift(output, weight)
        # Lifted outputs of the attention for the values and value steps of each head and token.
        self._values = values.unflatten(1, (2, -1))  # (H, 2, T, X)
        self._state = _lift(start[rows] + block.output.bias, weight)
        self._state_step = _lift(step[rows], weight)
        self._one = torch.cat([torch.ones_like(start[0]), weight.sum(1)])
        self._up_bias = linear(block.norm.bias, block.up.weight, block.up.bias)
        self._at_once = max(1, _AT_ONCE // (self._values.numel() // 2))

    def mean(self, points: Tensor) -> Tensor:
        """Means (N, D) at points of the path (N,)."""
        return torch.cat([self._at(part).mean for part in points.split(self._at_once)])

    def derivatives(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Means (N, D), and their derivatives in each token (N, T, D); call without gradients.

        The derivative in token t is the Jacobian's product with the difference between the end and
        the start of this token alone.
        """
        means, derivatives = [], []
        for part in points.split(self._at_once):
            at = self._at(part)
            means.append(at.mean)
            derivatives.append(self._derivatives(part, at))
        return torch.cat(means), torch.cat(derivatives)

    def _at(self, points: Tensor) -> _AtPoints:
        block, norm, last = self._block, self._block.norm, self._block.last_norm
        width = len(norm.weight)
        z = points.view(-1, 1, 1, 1)
        query = self._query + z * self._query_step
        key = (self._key + z * self._key_step).transpose(-1, -2)
        attention = (query @ key).softmax(-1)
        with_key = attention * (query @ self._key_step.transpose(-1, -2))
        change = self._query_step @ key
        with_query = attention * (change - (attention * change).sum(-1, keepdim=True))

        # Point by point, so that intermediate results stay in the processor's cache.
        first, step = self._values.unbind(1)
        values = [torch.addcmul(first, point, step) for point in points]
        outputs = [shares @ value for shares, value in zip(attention, values, strict=True)]
        total = torch.stack([output.sum(0) for output in outputs])
        states = self._state + z[:, 0] * self._state_step + total
        mean = states[..., :width].mean(-1, keepdim=True)
        inverse = _inverse(states[..., :width] - mean, norm.eps)
        normed = (states - mean * self._one) * inverse
        hidden, slope = _with_slope(block.activation, normed[..., width:] + self._up_bias)
        after = normed[..., :width] * norm.weight + norm.bias + block.down(hidden)
        centred = after - after.mean(-1, keepdim=True)
        last_inverse = _inverse(centred, last.eps)
        last_normed = centred * last_inverse
        return _AtPoints(
            *(attention, with_key, with_query, values, outputs, normed, inverse, slope),
            *(last_normed, last_inverse),
            mean=(self._share * (last_normed * last.weight + last.bias)).sum(1),
        )

    def _derivatives(self, points: Tensor, at: _AtPoints) -> Tensor:
        """Derivatives of the mean in each token, (N, T, D)."""
        norm, down = self._block.norm, self._block.down.weight
        width = len(norm.weight)
        z = points.view(-1, 1, 1, 1)

        # Layer norm removes the mean and the part along the normed state of every tangent.
        ones = torch.full_like(at.last_normed, 1 / width)
        of_mean = self._against(z, at, ones)
        of_normed = self._against(z, at, at.normed[..., :width]) / width
        back = torch.cat([norm.weight * at.last_normed, at.slope * (at.last_normed @ down)], -1)
        along = self._against(z, at, back) - (back @ self._one).unsqueeze(-1) * of_mean
        along = along - (back * at.normed).sum(-1, keepdim=True) * of_normed
        along = along * at.inverse / width

        # Sums over outputs, each number weighted by what the MLP and the last norm make of it.
        scales = self._share * at.last_inverse
        weights = scales * at.inverse * torch.cat([torch.ones_like(ones), at.slope], -1)
        total = self._of_values(z, at, weights)
        for point, with_key in enumerate(at.with_key):
            # In place: the outputs are not needed again.
            outputs = at.outputs[point].mul_(weights[point]).flatten(0, 1)
            total[point].addmm_(with_key.flatten(0, 1).T, outputs, alpha=-1)
        total -= of_mean.transpose(1, 2) @ (weights * self._one)
        total -= of_normed.transpose(1, 2) @ (weights * at.normed)
        with_query = at.with_query.transpose(1, 2).flatten(2)
        turned = [q @ v.flatten(0, 1) for q, v in zip(with_query, at.values, strict=True)]
        total = total.index_add(1, self._rows, weights * (self._state_step + torch.stack(turned)))

        tangents = norm.weight * total[..., :width] + linear(total[..., width:], down)
        tangents = tangents - tangents.mean(-1, keepdim=True)
        tangents = tangents - (scales * along).transpose(1, 2) @ at.last_normed
        result: Tensor = self._block.last_norm.weight * tangents
        return result

    def _of_values(self, z: Tensor, at: _AtPoints, weights: Tensor) -> Tensor:
        """Sums over outputs of the tangents that each token's values make, (N, T, X)."""
        shares = torch.stack([at.with_key, at.attention + z * at.with_key], 2)  # (N, H, 2, R, T)
        total = weights.new_zeros(len(weights), *self._values.shape[2:])
        # The product of one token for all heads, or of one head for all tokens, stays in the cache.
        if weights.shape[1] < 2 * len(self._values):
            by_token = shares.permute(4, 0, 3, 1, 2).flatten(3).flatten(1, 2)  # (T, N R, 2 H)
            product = torch.empty_like(weights)
            for token, share in enumerate(by_token):
                torch.mm(share, self._values[:, :, token].flatten(0, 1), out=product.flatten(0, 1))
                torch.sum(product.mul_(weights), 1, out=total[:, token])
            return total
        product = torch.empty_like(total)
        by_head = shares.permute(1, 2, 0, 4, 3).flatten(0, 1)  # (2 H, N, T, R)
        for share, value in zip(by_head, self._values.flatten(0, 1), strict=True):
            torch.bmm(share, weights, out=product)
            total.addcmul_(product, value)
        return total

    def _against(self, z: Tensor, at: _AtPoints, vectors: Tensor) -> Tensor:
        """Products of each output's lifted tangents with a vector of its own, (N, R, T).

        Args:
            z (Tensor): The points.
            at (_AtPoints): The block there.
            vectors (Tensor): shape (N, R, X), or (N, R, D) for the states alone.
        """
        flat = self._values[..., : vectors.shape[-1]].flatten(0, 2) @ vectors.flatten(0, 1).T
        flat = flat.view(*self._values.shape[:3], *vectors.shape[:2])
        by_first, by_step = flat.permute(1, 3, 0, 4, 2)  # (N, H, R, T)
        by_value = by_first + z * by_step
        mixed = (at.attention * by_value).sum(-1, keepdim=True)
        products = (at.attention * by_step + at.with_key * (by_value - mixed)).sum(1)
        own = (self._state_step[:, : vectors.shape[-1]] * vectors).sum(-1)
        own = own + (at.with_query * by_value).sum((1, 3))
        places = self._rows.view(1, -1, 1).expand(len(vectors), -1, -1)
        result: Tensor = products.scatter_add(-1, places, own.unsqueeze(-1))
        return result


def _lift(states: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([states, linear(states, weight)], -1)


def _split(layer: nn.Linear, start: Tensor, step: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Projections of states and of steps, (H, T, width)."""
    both = (layer(start), linear(step, layer.weight))
    first, second = (one.unflatten(-1, (heads, -1)).transpose(0, 1) for one in both)
    return first, second


def _inverse(centred: Tensor, eps: float) -> Tensor:
    """One over the standard deviation."""
    return (centred.square().mean(-1, keepdim=True) + eps).rsqrt()


def _with_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values and derivatives of a function of single numbers."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = function(x)
        (slope,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), slope
