"""The base class of towers: an encoder that can be run up to a layer, and from a layer on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from captum_interactions.axes import TokenAxis
from captum_interactions.encoders.baselines import CachedBaselines
from captum_interactions.encoders.model.post_norm_path import MeanAlong

Layer = int | Literal["input", "pool"]
"""The layer to attribute at: k for the hidden state entering block k (0 is the embedding output, -1
enters the last block), ``"pool"`` for the tokens that the encoder pools, behind its last block and
norm, or ``"input"`` for the raw tensor."""

AlongPath = Callable[..., Tensor]
"""``(coordinates, examples, *context) -> (N, K)``: embeddings of states in which token t of each
example is at the fraction ``coordinates[:, t]`` of its path. Coordinates (N, T) are node-major: all
examples at the first node come first. ``examples`` is a slice."""


class TowerInputs(NamedTuple):
    """Model-ready inputs of one tower."""

    inputs: Tensor
    """The first argument of the tower, shape (B, ...)."""
    extras: tuple[Tensor | None, ...]
    """Further arguments, in the order of :attr:`Tower.extra_names`."""
    axes: tuple[TokenAxis, ...]
    """One axis per example, which describes the tokens of its hidden states."""


def unpacked(raw: Any, name: str, extra_names: Sequence[str]) -> Any:
    """The output of a processor or tokenizer as a tuple of an input and its extras."""
    if not isinstance(raw, Mapping):
        return raw
    if name not in raw:
        raise ValueError(f"expected {name!r} among the inputs, but got {', '.join(raw)}")
    values = [raw[name], *(raw.get(extra) for extra in extra_names)]
    return tuple(value if value is None else torch.as_tensor(value) for value in values)


class Tower(nn.Module):
    """Base class of towers, with everything that attribution methods use.

    A subclass implements :meth:`encode`, :meth:`baseline` and :meth:`prepare`. For attribution at
    hidden states, it also sets ``n_blocks`` and implements :meth:`prefix`, :meth:`tail` and
    :meth:`token_mask`. Hidden states are always (B, T, D): a convolutional tower flattens its
    feature map. Calls leave no state behind, so both towers may share one encoder.
    """

    n_blocks: int = 0
    """Number of blocks whose input states can be attributed."""
    extra_names: tuple[str, ...] = ()
    """Names of the arguments after the input, such as ``("attention_mask",)``."""
    cached_baselines: CachedBaselines | None = None
    """Cached features of baselines, see
    :meth:`~captum_interactions.DualEncoderWrapper.caching_baselines`."""

    # Implemented by subclasses.

    def encode(self, inputs: Tensor, *extras: Any) -> Tensor:
        """The model's own embedding, (B, ...) -> (B, K), before any normalisation."""
        raise NotImplementedError

    def baseline(self, inputs: Tensor, *extras: Any) -> Tensor:
        """The default baseline, an uninformative input of the shape of ``inputs``, (B, ...)."""
        raise NotImplementedError

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        """Convert raw inputs (images, strings, or ready tensors) to :class:`TowerInputs`."""
        raise NotImplementedError

    def prefix(self, layer: Layer, inputs: Tensor, *extras: Any) -> tuple[Tensor, tuple[Any, ...]]:
        """Hidden states (B, T, D) at a layer, and the context that the tail needs.

        Tensors in the context have B rows. The context of a text determines the pooled token, so a
        baseline with the context of a caption is pooled at the same token as the caption.
        """
        raise NotImplementedError

    def tail(self, layer: Layer, states: Tensor, *context: Any) -> Tensor:
        """The rest of the tower, (B, T, D) -> (B, K): ``encode`` is ``tail`` after ``prefix``.

        If it treats the tokens at layer 0 as a set, and runs with fewer of them, methods that mask
        tokens can drop them (``masking="attention"``).
        """
        raise NotImplementedError

    def token_mask(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        """True for tokens that can influence the embedding, (B, T); None if all of them can."""
        return None

    def special_tokens(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        """True for special tokens at blocks, (B, T); None if there are none.

        Special tokens represent no part of the input: class token, registers, start and end of a
        text.
        """
        return None

    def check(self, inputs: Tensor, *extras: Any) -> None:
        """Raise an error, with given and expected values, if inputs (B, ...) are invalid."""

    def set_constant(self, inputs: Tensor, value: float, *extras: Any) -> Tensor:
        """A baseline of one constant value, of the shape of ``inputs``, (B, ...)."""
        return torch.full_like(inputs, value)

    def axis_at(self, layer: Layer, axis: TokenAxis, n_tokens: int) -> TokenAxis:
        """The axis of a layer, from the one that :meth:`prepare` returned."""
        if layer == "input":
            axis = axis.at_input()
        return axis if len(axis) == n_tokens else TokenAxis.numbered(n_tokens)

    def sample(self) -> Any:
        """Two sample inputs for :meth:`prepare`, on which the tower can be checked."""
        raise NotImplementedError(
            f"no inputs are known for {type(self).__name__}: pass two or more of your own"
        )

    # Called by attribution methods.

    @property
    def has_pool(self) -> bool:
        """Whether the tower has the layer ``"pool"``, the tokens that it pools."""
        return False

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers with hidden states, in execution order."""
        return (*range(self.n_blocks), *(("pool",) if self.has_pool else ()))

    @property
    def default_layer(self) -> Layer:
        """The default layer to attribute at: the input of the last block."""
        return -1 if self.n_blocks else "input"

    def resolve_layer(self, layer: Layer) -> Layer:
        """Check a layer, and return it as a non-negative index, ``"pool"`` or ``"input"``.

        Raises:
            ValueError: If the tower has no such layer.
        """
        if layer == "input" or (layer == "pool" and self.has_pool):
            return layer
        blocks = self.n_blocks
        if isinstance(layer, bool) or not isinstance(layer, int) or not -blocks <= layer < blocks:
            known = [f"an int from {-blocks} to {blocks - 1}"] if blocks else []
            known += ["'pool'"] if self.has_pool else []
            named = ", ".join([*known, "or 'input'"]) if known else "'input'"
            raise ValueError(f"layer must be {named} for {type(self).__name__}, but got {layer!r}")
        return layer % blocks

    def features(
        self, layer: Layer, inputs: Tensor, *extras: Any
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """The features (B, *F) at a layer, and the context for :meth:`embed`.

        Raises:
            ValueError: If features cannot be attributed to: token ids, or no states of tokens.
        """
        if layer != "input":
            states, context = self.prefix(layer, inputs, *extras)
            if states.dim() != 3 or len(states) != len(inputs):
                raise ValueError(
                    f"hidden states at layer {layer} of {type(self).__name__} must have shape "
                    f"({len(inputs)}, T, D), but have {tuple(states.shape)}: a block takes tokens, "
                    "before they are pooled"
                )
            return states, context
        if not inputs.is_floating_point():
            instead = "take embeddings, or a TextTower"
            if self.n_blocks:
                instead = "use layer 0, the embedding output"
            raise ValueError(
                f"layer 'input' needs real-valued inputs, but {type(self).__name__} got "
                f"{inputs.dtype}: {instead}"
            )
        return inputs, extras

    def embed(self, layer: Layer, features: Tensor, *context: Any) -> Tensor:
        """The embedding (B, K) from the features at a layer."""
        if layer == "input":
            return self.encode(features, *context)
        return self.tail(layer, features, *context)

    def along(self, layer: Layer, start: Tensor, end: Tensor, *context: Any) -> AlongPath | None:
        """The embedding as a function of one path coordinate per token, between two states.

        Towers implement it if it is cheaper than evaluating the states.

        Args:
            layer (Layer): The layer of the features.
            start (Tensor): Features at the start of the path, (B, *F) or (1, *F).
            end (Tensor): Features at its end, (B, *F).
            context: The context that :meth:`prefix` returned for the inputs.

        Returns:
            Callable: see :data:`AlongPath`; None if there is no faster way.
        """
        return None

    def mean_along(
        self, layer: Layer, start: Tensor, end: Tensor, *context: Any
    ) -> Callable[[int], tuple[Tensor, MeanAlong]] | None:
        """What the tower pools, along a path at the last block, with derivatives in closed form.

        Args:
            layer, start, end, context: As in :meth:`along`.

        Returns:
            Callable: from the index of an example to the indices of its T tokens that are not
            padding, and the mean of the block's outputs. Embeddings are those of the method
            ``project``. None if the derivatives are not known.
        """
        return None

    def embed_tokens(
        self, inputs: Tensor, *extras: Any, internal_batch_size: int | None = None
    ) -> Tensor:
        """Embeddings of single tokens (B, T, K): those of states in which all tokens are equal.

        The states are inputs of the last block, or its outputs if the tower implements that. Since
        all tokens are equal, the way of pooling does not matter: the result is the token's own
        embedding by the head of the tower.

        Raises:
            ValueError: If the tower has no blocks.
        """
        if not self.n_blocks:
            raise ValueError(
                f"{type(self).__name__} has no blocks, so the last states of its tokens are unknown"
            )
        states, context = self.prefix(self.n_blocks - 1, inputs, *extras)

        def embed(rows: Tensor, *own: Any) -> Tensor:
            everywhere = rows.unsqueeze(1).expand(-1, states.shape[1], -1)
            return self.tail(self.n_blocks - 1, everywhere, *own)

        return each_token(embed, states, context, internal_batch_size)

    def fold(self, layer: Layer, attribution: Tensor) -> Tensor:
        """Sum an attribution of features, (B, *F), over each token: (B, T).

        At a block, hidden units are summed. At the input, features of shape (B, F) are tokens
        themselves, (B, T, D) is summed over D, and (B, C, *S) over C: each position is a token.
        """
        if attribution.dim() == 2:
            return attribution
        if attribution.dim() == 3:
            return attribution.sum(-1)
        return attribution.sum(1).flatten(1)

    def spread(self, layer: Layer, weights: Tensor, shape: Sequence[int]) -> Tensor:
        """Token weights (..., T) as weights of features of shape ``(B, *F)``: (..., *F or ones).

        The adjoint of :meth:`fold`.
        """
        if len(shape) == 2:
            return weights
        if len(shape) == 3:
            return weights.unsqueeze(-1)
        return weights.reshape(*weights.shape[:-1], 1, *shape[2:])


def each_token(
    embed: Callable[..., Tensor],
    states: Tensor,
    context: tuple[Any, ...],
    internal_batch_size: int | None = None,
) -> Tensor:
    """Embeddings (B, T, K) of the states of single tokens.

    Args:
        embed (Callable): ``(states, *context) -> (R, K)``, for states of R tokens, (R, D).
        states (Tensor): shape (B, T, D).
        context: Further arguments; tensors have B rows.
        internal_batch_size (int, optional): At most this many tokens at once. Default: all
    """
    n_examples, n_tokens = states.shape[:2]
    rows = torch.arange(n_examples * n_tokens, device=states.device)
    parts = []
    for some in rows.split(internal_batch_size or len(rows)):
        examples = some // n_tokens
        parts.append(embed(states[examples, some % n_tokens], *take_rows(context, examples)))
    return torch.cat(parts).reshape(n_examples, n_tokens, -1)


def take_rows(context: Sequence[Any], rows: Tensor | slice) -> tuple[Any, ...]:
    """Some rows of a context: of its tensors (B, ...); all other values are for all rows."""
    return tuple(
        value[rows] if isinstance(value, Tensor) and value.dim() else value for value in context
    )
