"""A dual encoder as two towers and their similarity, which every attribution explains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_interactions.axes import TokenAxis
from captum_interactions.encoders.baselines import caching
from captum_interactions.encoders.towers.base import Layer, Tower


class Batch(NamedTuple):
    """Aligned pairs, ready for ``attribute``."""

    inputs: tuple[Tensor, Tensor]
    """Input a and input b, each of shape (B, ...)."""
    additional_forward_args: tuple[Tensor | None, ...]
    """The extras of tower a, then those of tower b."""
    axes_a: tuple[TokenAxis, ...]
    """What the rows of each map stand for."""
    axes_b: tuple[TokenAxis, ...]
    """What the columns of each map stand for."""
    notes: tuple[dict[str, Any], ...] = ()
    """What the settings of each map say of its pair; empty if there is nothing to say."""


class DualEncoderWrapper(nn.Module):
    """A dual encoder ``s(a, b) = cos(g(a), h(b))`` that gives access to its two towers.

    The wrapper is a Captum ``forward_func``: ``wrapper(a, b, *additional)`` returns the cosine
    similarity of aligned pairs, shape (B,). The wrapped model is not modified.

    Args:
        tower_a (Tower): Encoder of the first input, the image for CLIP.
        tower_b (Tower): Encoder of the second input, the text for CLIP.
        default_layers (tuple, optional): Default layers of attribution, see
            :data:`~captum_interactions.encoders.towers.base.Layer`. Default: the last block of each
            tower; the pooling if it is by attention; the input if the tower has no blocks.
        default_n_steps (int, optional): Default number of quadrature nodes of ``explain``.
            Models that change sharply along the path need more. Default: 20

    Examples::

        >>> import torch
        >>> from captum_interactions import CallableTower
        >>> a, b = torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)
        >>> wrapper = DualEncoderWrapper(CallableTower(a), CallableTower(b))
        >>> wrapper(torch.ones(2, 4), torch.ones(2, 5)).shape
        torch.Size([2])
    """

    normalizations: tuple[Literal["cosine", "frozen", "none"], ...] = ("cosine", "frozen", "none")
    """Values of ``normalization`` that attributions take; the first explains the wrapper's own
    score."""

    def __init__(
        self,
        tower_a: Tower,
        tower_b: Tower,
        default_layers: tuple[Layer, Layer] | None = None,
        default_n_steps: int = 20,
    ) -> None:
        super().__init__()
        self.tower_a = tower_a
        self.tower_b = tower_b
        self.default_n_steps = default_n_steps
        self.default_layers = default_layers or (
            tower_a.default_layer,
            tower_b.default_layer,
        )
        for tower, layer in zip((tower_a, tower_b), self.default_layers, strict=True):
            tower.resolve_layer(layer)

    @property
    def model_name(self) -> str:
        """What results call the model: its name on the hub, or that of its folder, and its class.

        Functions are called by their class alone. Of a folder only the last part is told, so that
        a page that is sent to others holds no path.
        """
        names = dict.fromkeys(map(_model_name, (self.tower_a, self.tower_b)))
        return " and ".join(names)

    def forward(self, a: Tensor, b: Tensor, *additional: Any) -> Tensor:
        """Cosine similarity of aligned pairs.

        Args:
            a (Tensor): First inputs, shape (B, ...).
            b (Tensor): Second inputs, shape (B, ...).
            additional: The extras of tower a, then those of tower b (for CLIP: the attention mask).
                Extras at the end may be left out.

        Returns:
            Tensor: shape (B,), in float32 or wider.
        """
        for name, x in (("a", a), ("b", b)):
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"input {name} must be a tensor, but got {type(x).__name__}: raw inputs go "
                    "through wrapper.prepare or explain"
                )
        extras_a, extras_b = self.split_additional(additional)
        embedding_a, embedding_b = self.encode_a(a, *extras_a), self.encode_b(b, *extras_b)
        return (unit(embedding_a) * unit(embedding_b)).sum(-1)

    @contextmanager
    def caching_baselines(self) -> Iterator[None]:
        """Context manager in which baselines are propagated to their layers only once.

        A baseline that is the same for all inputs, such as that of images, costs nothing from the
        second call on. Do not modify the model inside: the cache detects in-place changes of
        parameters (by an optimizer, by ``load_state_dict``) and changes of hooks, but not changes
        through ``parameter.data`` or of attributes.

        Examples::

            >>> from captum_interactions import explain, load_demo
            >>> wrapper, scenes = load_demo(2)
            >>> with wrapper.caching_baselines():
            ...     maps = [explain(wrapper, scene.image, scene.caption) for scene in scenes]
        """
        with caching(self.tower_a), caching(self.tower_b):
            yield

    def encode_a(self, a: Tensor, *extras: Any) -> Tensor:
        """Embeddings of first inputs before normalisation, shape (B, K)."""
        return self.tower_a.encode(a, *extras)

    def encode_b(self, b: Tensor, *extras: Any) -> Tensor:
        """Embeddings of second inputs before normalisation, shape (B, K)."""
        return self.tower_b.encode(b, *extras)

    def prepare(self, a: Any, b: Any, *, truncation: bool = False) -> Batch:
        """Convert raw inputs to tensors, with axes that describe their tokens.

        Args:
            a: One raw input or a list of them (images for CLIP), or a ready tensor with a batch
                axis.
            b: As many second inputs (captions for CLIP), or a ready tensor.
            truncation (bool): Cut captions that are longer than the model's context instead of
                raising an error. Default: False

        Returns:
            Batch: inputs, additional arguments and axes of the pairs.

        Raises:
            ValueError: If the numbers of inputs differ, or an input is empty or too long.
        """
        inputs_a = self.tower_a.prepare(a, truncation=truncation)
        inputs_b = self.tower_b.prepare(b, truncation=truncation)
        if len(inputs_a.inputs) != len(inputs_b.inputs):
            raise ValueError(
                f"pairs need as many first as second inputs, but got {len(inputs_a.inputs)} and "
                f"{len(inputs_b.inputs)}"
            )
        return Batch(
            (inputs_a.inputs, inputs_b.inputs),
            inputs_a.extras + inputs_b.extras,
            inputs_a.axes,
            inputs_b.axes,
        )

    def split_additional(self, additional: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Divide ``additional_forward_args`` between the towers.

        Raises:
            ValueError: If there are more of them than the towers take.
        """
        if additional is None:
            additional = ()
        elif not isinstance(additional, tuple):
            additional = (additional,)
        names_a, names_b = self.tower_a.extra_names, self.tower_b.extra_names
        if len(additional) > len(names_a) + len(names_b):
            raise ValueError(
                f"the towers take {len(names_a) + len(names_b)} additional arguments "
                f"({', '.join(names_a + names_b) or 'none'}), but got {len(additional)}"
            )
        return additional[: len(names_a)], additional[len(names_a) :]


def unit(embedding: Tensor) -> Tensor:
    """Embeddings (..., K) scaled to unit length, in float32 or wider."""
    return F.normalize(widen(embedding), dim=-1)


def widen(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own type if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _model_name(tower: Tower) -> str:
    model = getattr(tower, "model", tower)
    kind = type(model).__name__
    source = str(getattr(getattr(model, "config", None), "_name_or_path", None) or "")
    path = source.replace("\\", "/").rstrip("/")
    if path.count("/") != 1 or path.startswith(("/", ".", "~")) or Path(source).is_dir():
        path = path.rsplit("/", 1)[-1]
    return f"{path} ({kind})" if path else kind
