"""The factors of single inputs, with their axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import compress
from typing import Any, Literal

import torch
from torch import Tensor

from captum_interactions.attr import SecondOrderIntegratedGradients
from captum_interactions.attr._utils.arguments import Baseline, Normalization
from captum_interactions.attr._utils.steps import check_steps
from captum_interactions.corpus.settings import (
    Settings,
    baseline_identity,
    differences,
    model_identity,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer, TokenAxis
from captum_interactions.functional import Factors

_EACH_TOKEN = ("labels", "special", "padding", "spans")
"""Fields of axes that hold a value for each token, including padding."""


@dataclass(frozen=True, eq=False)
class Item:
    """The factors of one input, and what else its maps with inputs of the other side need."""

    key: str
    values: Tensor
    """One vector of R^K per token, shape (T, K)."""
    embedding: Tensor
    """Embedding of the input as the score uses it, shape (K,)."""
    baseline: Tensor
    """Embedding of its baseline, as the score uses it, shape (K,)."""
    axis: TokenAxis
    """What the tokens stand for."""
    settings: Settings
    """How the factors were computed."""

    def factors(self, *selections: Any) -> Tensor:
        """Factors of parts of the input: phrases, spans, boxes, masks or token indices.

        Args:
            selections: As ``axis.select`` takes them, see
                :class:`~captum_interactions.InteractionMap`. Default: a single selection of all
                tokens

        Returns:
            Tensor: one vector per selection, shape (P, K). Its product with the factor of a token
            of the other side is the interaction of that token with the whole part.
        """
        weights = [torch.from_numpy(self.axis.select(one)) for one in selections or (None,)]
        return torch.stack(weights) @ self.values

    def __repr__(self) -> str:
        return f"Item({self.key!r}, side {self.settings.side}, {len(self.axis)} tokens)"


class FactorEncoder:
    """Computes the factors of raw inputs of one side of a dual encoder.

    Args:
        wrapper (DualEncoderWrapper): The model.
        side (str): ``"a"`` or ``"b"``.
        layers (tuple, optional): Layers of *both* towers, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: None,
            ``wrapper.default_layers``
        normalization (str): The score to explain, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: ``"cosine"``
        n_steps (int or "auto", optional): Number of steps; ``"auto"`` finds it for each batch.
            Default: None, ``wrapper.default_n_steps``
        method (str): Quadrature rule. Default: ``"gausslegendre"``
        baseline (optional): The baseline of every input, as ``factors_a`` takes it. Default: None,
            the wrapper's own
        truncation (bool): Cut texts that are longer than the model's context. Default: False
        internal_batch_size (int, optional): Maximum number of rows (inputs times steps) that are
            evaluated at once. Default: None, as many as fit into memory

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If the side, a layer, the normalization or the rule does not exist, or the rule
            does not allow this number of steps.
    """

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        side: Literal["a", "b"],
        *,
        layers: tuple[Layer, Layer] | None = None,
        normalization: Normalization = "cosine",
        n_steps: int | Literal["auto"] | None = None,
        method: str = "gausslegendre",
        baseline: Baseline = None,
        truncation: bool = False,
        internal_batch_size: int | None = None,
    ) -> None:
        if side not in ("a", "b"):
            raise ValueError(f"side must be 'a' or 'b', but got {side!r}")
        self._explainer = SecondOrderIntegratedGradients(
            wrapper, layers, normalization=normalization
        )
        self._tower = wrapper.tower_a if side == "a" else wrapper.tower_b
        self._baseline = baseline
        self._internal_batch_size = internal_batch_size
        n_steps = wrapper.default_n_steps if n_steps is None else n_steps
        check_steps(n_steps, method, tolerance=1.0)
        self.settings = Settings(
            side=side,
            layers=self._explainer.layers,
            normalization=normalization,
            n_steps=n_steps,
            method=method,
            baseline=baseline_identity(baseline),
            truncation=truncation,
            model=model_identity(wrapper),
        )

    @classmethod
    def matching(
        cls,
        wrapper: DualEncoderWrapper,
        settings: Settings,
        *,
        n_steps: int | Literal["auto"] | None = None,
        baseline: Baseline = None,
        truncation: bool = False,
        internal_batch_size: int | None = None,
    ) -> FactorEncoder:
        """An encoder of the other side, whose factors can be combined with those of ``settings``.

        Args:
            wrapper (DualEncoderWrapper): The model from which the factors are.
            settings (Settings): Settings of the other side, such as ``index.settings``.
            n_steps (int or "auto", optional): Number of steps. Default: None, that of ``settings``
            baseline, truncation, internal_batch_size (optional): See the class.

        Raises:
            ValueError: If the wrapper is another model; the message says what differs.
        """
        made = cls(
            wrapper,
            "b" if settings.side == "a" else "a",
            layers=settings.layers,
            normalization=settings.normalization,
            n_steps=settings.n_steps if n_steps is None else n_steps,
            method=settings.method,
            baseline=baseline,
            truncation=truncation,
            internal_batch_size=internal_batch_size,
        )
        found = differences(settings, made.settings, ("model",))
        if found:
            raise ValueError(
                f"the wrapper is not the model of the index: {', '.join(found)} differ"
            )
        return made

    def __call__(self, raw: Any) -> Item:
        """The factors of one raw input; a text's key is the text itself."""
        return self.batch([raw if isinstance(raw, str) else "query"], [raw])[0]

    def batch(self, keys: Sequence[str], raw: Sequence[Any]) -> list[Item]:
        """The factors of several raw inputs, computed together.

        Padding tokens whose factors are zero are removed, so an item has as many tokens as it would
        have alone.

        Args:
            keys (sequence of str): Names of the items.
            raw (sequence): An input for each key: raw inputs of the tower, or tensors with a batch
                axis of length one.

        Raises:
            ValueError: If a tensor is not one input, or the tower does not accept an input.
        """
        settings = self.settings
        is_ready = all(isinstance(one, Tensor) for one in raw)
        for one in raw if is_ready else ():
            if one.shape[:1] != (1,):
                raise ValueError(
                    "an item is a single input: as a tensor it has a batch axis of length one, but "
                    f"got shape {tuple(one.shape)}"
                )
        if is_ready and len({one.shape for one in raw}) > 1:
            pairs = zip(keys, raw, strict=True)
            return [self.batch([key], [one])[0] for key, one in pairs]
        prepared = self._tower.prepare(
            torch.cat(list(raw)) if is_ready else list(raw), truncation=settings.truncation
        )
        run = self._explainer.factors_a if settings.side == "a" else self._explainer.factors_b
        factors: Factors = run(
            prepared.inputs,
            self._baseline,
            prepared.extras,
            settings.n_steps,
            settings.method,
            self._internal_batch_size,
        )
        layer = settings.layers["ab".index(settings.side)]
        n_tokens = factors.values.shape[1]
        items = []
        for row, (key, axis) in enumerate(zip(keys, prepared.axes, strict=True)):
            axis_here = self._tower.axis_at(layer, axis, n_tokens)
            values = factors.values[row].cpu()
            nothing = (values == 0).all(1).tolist()
            keep = [not (p and n) for p, n in zip(axis_here.padding, nothing, strict=True)]
            items.append(
                Item(
                    key,
                    values[torch.tensor(keep)],
                    factors.embedding[row].cpu(),
                    factors.baseline[row].cpu(),
                    _kept(axis_here, keep),
                    settings,
                )
            )
        return items


def _kept(axis: TokenAxis, keep: list[bool]) -> TokenAxis:
    """The axis of some of its tokens."""
    if all(keep):
        return axis
    each = {
        field.name: tuple(compress(getattr(axis, field.name), keep))
        for field in fields(axis)
        if field.name in _EACH_TOKEN
    }
    return replace(axis, **each)
