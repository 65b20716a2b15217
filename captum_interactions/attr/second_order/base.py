"""The base classes of second-order attributions: interactions of the tokens of two inputs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import (
    Baselines,
    Groups,
    Inputs,
    Normalization,
    check_batch_size,
    check_normalization,
    check_target,
    check_wrapper,
)
from captum_interactions.attr._utils.base import DualEncoderAttribution
from captum_interactions.attr._utils.inputs import paths_of_pairs, propagate_pairs
from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition


class SecondOrderAttribution(DualEncoderAttribution):
    """Base class of interactions of every token of a with every token of b.

    A method implements :meth:`_interactions`, and :meth:`_parts` if it defines a constant and main
    effects. A method with further arguments also writes its ``attribute`` and ``decompose``, which
    pass them to :meth:`_attribute` and :meth:`_decompose`; one that does not follow this template
    writes all of both.

    Args:
        normalization (str, optional): The score to explain. ``"cosine"``: embeddings have unit
            length, also those of baselines, of masked inputs and everywhere on a path, which is the
            score of the wrapper. ``"frozen"``: the dot product over the norms of the actual pair,
            taken as constants. ``"none"``: the dot product, which is the only score of a
            :class:`~captum_interactions.encoders.LateInteractionWrapper`. Default: ``"cosine"``
    """

    order = 2

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
    ) -> None:
        check_wrapper(type(self).__name__, wrapper)
        check_normalization(normalization, wrapper)
        super().__init__(wrapper, layers)
        self.normalization: Normalization = normalization
        self._multiply_by_inputs = True

    def attribute(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """Interaction maps of B aligned pairs.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b as the towers take them, B rows each
                (for CLIP: pixel values and token ids).
            baselines (None, scalar, Tensor or tuple, optional): The baselines. A tuple gives one
                for each input; each is

                - None: the wrapper's own baseline,
                - an int or float: a constant; for token ids, this id wherever no special token is,
                - a tensor of the input's shape, or with one row for all pairs,
                - a list of these: the attributions are averaged over them (expected attributions).

                A bare scalar serves both inputs; a bare tensor or list serves input a only.
                Default: None
            target: Must be None; a similarity has a single output. Default: None
            additional_forward_args (optional): Further arguments of the towers: those of a, then
                those of b (for CLIP: the attention mask), B rows each. Default: None
            groups_a, groups_b (optional): Explain groups of tokens (words, phrases, boxes, objects)
                instead of tokens: a list of lists of token indices, or weights of shape (G, T) or
                (B, G, T). Default: None, every token by itself
            internal_batch_size (int, optional): Maximum number of rows that go through a tower at
                once; None for all
            show_progress (bool, optional): Show a progress bar. Default: False

        Returns:
            Tensor: shape (B, Ta, Tb) over all tokens, or (B, Ga, Gb) with groups; padding is
            exactly zero. In float32 or wider.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If shapes, values or options are not as described.
        """
        return self._attribute(inputs, baselines, target, additional_forward_args)

    def decompose(
        self,
        inputs: Inputs,
        baselines: Baselines = None,
        additional_forward_args: Any = None,
    ) -> Decomposition:
        """Constant, main effects of both sides, and interactions.

        Returns:
            Decomposition: all parts, the score, and their difference as ``convergence_delta``.
        """
        return self._decompose(inputs, baselines, additional_forward_args)

    def _attribute(
        self,
        inputs: Inputs,
        baselines: Baselines,
        target: None,
        additional_forward_args: Any,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        **options: Any,
    ) -> Tensor:
        check_target(target)
        with explaining(self.wrapper):
            args = (inputs, baselines, additional_forward_args, groups_a, groups_b)
            return self._interactions(self._propagate(*args), **options).detach()

    def _decompose(
        self,
        inputs: Inputs,
        baselines: Baselines,
        additional_forward_args: Any,
        **options: Any,
    ) -> Decomposition:
        with explaining(self.wrapper):
            paths = self._propagate(inputs, baselines, additional_forward_args)
            return Decomposition(*(part.detach() for part in self._parts(paths, **options)))

    def _propagate(
        self,
        inputs: Inputs,
        baselines: Baselines,
        additional_forward_args: Any,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
    ) -> tuple[Path, Path]:
        """Check both inputs and baselines, and propagate them to their layers."""
        return paths_of_pairs(
            self.wrapper, self.layers, inputs, baselines, additional_forward_args, groups_a,
            groups_b, normalization=self.normalization,
            multiply_by_inputs=self._multiply_by_inputs,
        )  # fmt: skip

    @abstractmethod
    def _interactions(self, sides: tuple[Any, Any], **options: Any) -> Tensor:
        """Interactions of both sides, (B, Ga, Gb).

        Args:
            sides: The output of :meth:`_propagate`.
            options: Further arguments of :meth:`attribute`.
        """

    def _parts(self, sides: tuple[Any, Any], **options: Any) -> Decomposition:
        """All parts of the score. By default those that a method does not define are zero."""
        interactions = self._interactions(sides, **options)
        score = pair_score(sides)
        return Decomposition(
            constant=torch.zeros_like(score),
            main_effects_a=interactions.new_zeros(interactions.shape[:2]),
            main_effects_b=interactions.new_zeros(interactions.shape[::2]),
            interactions=interactions,
            score=score,
        )


class BaselineFreeAttribution(SecondOrderAttribution):
    """Base class of interactions without baselines, constant and main effects."""

    def attribute(  # type: ignore[override]  # there is no baseline to choose
        self, inputs: Inputs, baselines: None = None, target: None = None,
        additional_forward_args: Any = None, *, internal_batch_size: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Interaction maps of B aligned pairs.

        Args:
            baselines: Must be None; the method has no baselines. Default: None
            internal_batch_size (int, optional): Maximum number of rows that are evaluated at once.
                Default: None, all
        """
        check_batch_size(internal_batch_size)
        return self._attribute(
            inputs, baselines, target, additional_forward_args,
            internal_batch_size=internal_batch_size,
        )  # fmt: skip

    def decompose(  # type: ignore[override]
        self, inputs: Inputs, baselines: None = None, additional_forward_args: Any = None, *,
        internal_batch_size: int | None = None,
    ) -> Decomposition:  # fmt: skip
        """The interactions and the score. The constant and the main effects are zero."""
        check_batch_size(internal_batch_size)
        return self._decompose(
            inputs, baselines, additional_forward_args, internal_batch_size=internal_batch_size
        )

    def _propagate(  # type: ignore[override]
        self, inputs: Inputs, baselines: None, additional_forward_args: Any, *_: Any
    ) -> tuple[LayerInputs, LayerInputs]:
        if baselines is not None:
            raise ValueError(f"{type(self).__name__} has no baselines, so baselines must be None")
        return propagate_pairs(
            self.wrapper, self.layers, inputs, None, additional_forward_args,
            with_baselines=False, normalization=self.normalization,
        )  # fmt: skip


def pair_score(sides: tuple[LayerInputs, LayerInputs]) -> Tensor:
    """The scores (B,) of B pairs."""
    return (sides[0].embedding * sides[1].embedding).sum(-1)
