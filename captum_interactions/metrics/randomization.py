"""Sanity checks: does a map depend on the model's weights, and on the other input, at all?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from captum_interactions.encoders.model.changes import changed
from captum_interactions.metrics.correlation import spearman

Stage = tuple[str, Sequence[Tensor]]
"""A name, and parameters that lose their training together."""


class Cascade(NamedTuple):
    """How like the original maps are as more and more of the model is random."""

    stages: tuple[str, ...]
    """What was randomised last, beside all before it."""
    correlations: Tensor
    """Spearman's rank correlation with the original maps, shape (stages, B)."""
    magnitude_correlations: Tensor
    """The same of the maps' magnitudes, shape (stages, B)."""


def cascading_randomization(
    attribute: Callable[[], Tensor], stages: Sequence[Stage], seed: int = 0
) -> Cascade:
    """Randomise a model from its output to its input, and compare its maps with the original ones.

    The entries of each parameter are shuffled, which keeps their scale but nothing of what was
    learnt. A map that explains the model should be uncorrelated (0) with the original one in the
    end; one that stays alike (1) shows the input, not the model. Whatever happens, the weights are
    put back as they were.

    Source: cascading model parameter randomisation of Adebayo et al., "Sanity Checks for Saliency
    Maps", NeurIPS 2018 (arXiv 1810.03292), who draw new weights as at the start of training.

    Args:
        attribute (Callable): ``attribute() -> (B, ...)``: maps of the model as it is. It should
            leave out tokens that are always zero, as padding: they agree in every model. It must be
            deterministic.
        stages (sequence): Names and parameters, in the order of being randomised, see
            :func:`captum_interactions.attr.parameter_stages`. A parameter that comes again stays as
            the first stage left it.
        seed (int): Seed; the global random numbers are left alone. Default: 0

    Returns:
        Cascade: rank correlations after each stage, NaN where a map is constant.

    Raises:
        ValueError: If there are no stages, or one of them has no parameters.
    """
    if not stages or not all(len(parameters) for _, parameters in stages):
        raise ValueError(
            "there must be stages, each with parameters, but got "
            f"{[(name, len(parameters)) for name, parameters in stages]}"
        )
    generator = torch.Generator().manual_seed(seed)
    original = attribute().detach().flatten(1)
    correlations, magnitudes = [], []
    with restored([parameter for _, parameters in stages for parameter in parameters]):
        done: set[int] = set()
        for _, parameters in stages:
            for parameter in parameters:
                if id(parameter) not in done:
                    done.add(id(parameter))
                    _shuffle(parameter, generator)
            maps = attribute().detach().flatten(1)
            correlations.append(spearman(original, maps))
            magnitudes.append(spearman(original.abs(), maps.abs()))
    names = tuple(name for name, _ in stages)
    return Cascade(names, torch.stack(correlations), torch.stack(magnitudes))


def label_randomization(
    attribute: Callable[[Tensor], Tensor], n_pairs: int, seed: int = 0
) -> Tensor:
    """Give each input a the b of another pair, and compare its map with the original one.

    For images and captions: how much of the map of an image depends on the caption? A map that does
    not depend on it at all has 1. There is no level that a right map has to reach, because captions
    of a data set have words in common; lower is more specific.

    Source: the random-label check of Sixt, Granz and Landgraf, "When Explanations Lie", ICML 2020
    (arXiv 1912.09818), with captions as labels; no model is trained again.

    Args:
        attribute (Callable): ``attribute(order) -> (B, ...)``: maps over input a of each pair i
            with the b of pair ``order[i]``, order of shape (B,).
        n_pairs (int): Number of pairs B, at least 2.
        seed (int): Seed of the order; the global random numbers are left alone. Default: 0

    Returns:
        Tensor: Spearman's rank correlation, float64, shape (B,); NaN where a map is constant.

    Raises:
        ValueError: If there are fewer than two pairs.
    """
    if n_pairs < 2:
        raise ValueError(f"there must be another pair to take b from, but there are {n_pairs}")
    cycle = torch.randperm(n_pairs, generator=torch.Generator().manual_seed(seed))
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    original = attribute(torch.arange(n_pairs)).detach().flatten(1)
    return spearman(original, attribute(order).detach().flatten(1))


@contextmanager
def restored(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Put parameters back as they were on leaving, also after an error or an interrupt.

    Explanations in other threads wait until then.
    """
    saved = {id(parameter): (parameter, parameter.detach().clone()) for parameter in parameters}

    def restore() -> None:
        with torch.no_grad():
            for parameter, value in saved.values():
                parameter.copy_(value)

    with changed(lambda: restore):
        yield


def _shuffle(parameter: Tensor, generator: torch.Generator) -> None:
    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
    with torch.no_grad():
        parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
