"""The pointing game: does a map lie on the region that it should be on?

Maps have one value per patch, regions the share of each patch that is covered, from 0 to 1, as
:meth:`ImageAxis.coverage <captum_interactions.encoders.ImageAxis.coverage>` gives it: the union of
boxes or masks, after the resizing and cropping of the model. What the crop cut off does not count.
Take the patches alone: the mass of a class token is nowhere in the image, and would count as
outside of every region.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Sign = Literal["positive", "negative", "absolute"]
"""Which part of a signed map is meant: its positive values, its negative values (as what they
take away), or the magnitudes of all."""


def point_game_energy(maps: Tensor, regions: Tensor, sign: Sign = "positive") -> Tensor:
    r"""Share of a map's mass that lies in the region.

    With :math:`m_j \ge 0` the mass of patch j and :math:`c_j` its covered share, it is
    :math:`\sum_j c_j m_j / \sum_j m_j`: the value for pixels, if each has the value of its patch.

    A map that knows nothing of the region has :func:`chance_level` on average; the most a map can
    have is :func:`best_level`. The scale of a map changes nothing.

    Source: the energy-based pointing game of Wang et al., "Score-CAM", CVPR workshops 2020 (arXiv
    1910.01279), where maps have no negative values.

    Args:
        maps (Tensor): Maps over patches, shape (B, T) or (B, H, W).
        regions (Tensor): Covered share of each patch in [0, 1], of the shape of ``maps``.
        sign (str): What counts as mass, see :data:`Sign`. Default: ``"positive"``, negative values
            count as zero

    Returns:
        Tensor: float64 in [0, 1], shape (B,). NaN where there is no mass of that sign, or no
        visible region.

    Raises:
        ValueError: If shapes differ, a map is not finite, a share is not from 0 to 1, or the sign
            is unknown.

    Examples::

        >>> maps = torch.tensor([[3.0, 1.0, -4.0, 0.0]])
        >>> point_game_energy(maps, torch.tensor([[1.0, 0.5, 0.0, 0.0]]))
        tensor([0.8750], dtype=torch.float64)
    """
    maps, regions = check_maps(maps, regions)
    mass = _mass(maps, sign)
    return _undefined_without(regions, (mass * regions).sum(1) / mass.sum(1))


def point_game_accuracy(maps: Tensor, regions: Tensor, sign: Sign = "positive") -> Tensor:
    """Whether the strongest patch lies in the region: the share of that patch that is covered.

    That is the chance that a point drawn in the strongest patch is a hit, so a map that knows
    nothing has :func:`chance_level` on average, however small the region. For hits that are whole,
    round the regions first: ``(regions >= 0.5).float()``. If several patches are equally strong,
    each of them counts alike, so that a constant map has the chance level.

    Source: the pointing game of Zhang et al., "Top-down Neural Attention by Excitation Backprop",
    IJCV 2018 (arXiv 1608.00507), without its margin of 15 pixels.

    Args:
        maps (Tensor): Maps over patches, shape (B, T) or (B, H, W).
        regions (Tensor): Covered share of each patch in [0, 1], of the shape of ``maps``.
        sign (str): What counts as strong, see :data:`Sign`. Default: ``"positive"``

    Returns:
        Tensor: float64 in [0, 1], shape (B,); its mean over pairs is the accuracy. NaN where there
        is no value of that sign, or no visible region.

    Raises:
        ValueError: In the same cases as :func:`point_game_energy`.

    Examples::

        >>> maps = torch.tensor([[0.1, 0.7, 0.2]])
        >>> point_game_accuracy(maps, torch.tensor([[1.0, 0.25, 0.0]]))
        tensor([0.2500], dtype=torch.float64)
    """
    maps, regions = check_maps(maps, regions)
    mass = _mass(maps, sign)
    highest = mass.amax(1, keepdim=True)
    strongest = ((mass == highest) & (highest > 0)).double()
    return _undefined_without(regions, (strongest * regions).sum(1) / strongest.sum(1))


def chance_level(regions: Tensor) -> Tensor:
    """What the pointing games give a map that knows nothing of the region: its share of the area.

    It is exact for maps whose patches are shuffled, and for constant maps.

    Args:
        regions (Tensor): Covered share of each patch in [0, 1], shape (B, T) or (B, H, W).

    Returns:
        Tensor: float64 in [0, 1], shape (B,). NaN where no region is visible.
    """
    regions = check_regions(regions)
    return _undefined_without(regions, regions.mean(1))


def best_level(regions: Tensor) -> Tensor:
    """The most that the pointing games can give: the largest covered share of any patch.

    It is below 1 for objects that fill no patch.

    Args:
        regions (Tensor): Covered share of each patch in [0, 1], shape (B, T) or (B, H, W).

    Returns:
        Tensor: float64 in [0, 1], shape (B,). NaN where no region is visible.
    """
    regions = check_regions(regions)
    return _undefined_without(regions, regions.amax(1))


def shuffled_level(
    metric: Callable[[Tensor, Tensor], Tensor],
    maps: Tensor,
    regions: Tensor,
    n_shuffles: int = 100,
    seed: int = 0,
) -> Tensor:
    """Chance level of any metric: its mean over maps whose patches are shuffled.

    Args:
        metric (Callable): ``metric(maps, regions) -> (B,)``.
        maps (Tensor): Maps over patches, shape (B, T) or (B, H, W).
        regions (Tensor): Covered share of each patch, of the shape of ``maps``.
        n_shuffles (int): How many times each map is shuffled. Default: 100
        seed (int): Seed of the shuffles; the global random numbers are left alone. Default: 0

    Returns:
        Tensor: shape (B,). NaN where the metric is NaN.

    Raises:
        ValueError: If ``n_shuffles`` is less than 1, or maps and regions are not as described.
    """
    if n_shuffles < 1:
        raise ValueError(f"n_shuffles must be at least 1, but got {n_shuffles}")
    maps, regions = check_maps(maps, regions)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(n_shuffles):
        order = torch.rand(maps.shape, generator=generator).argsort(1).to(maps.device)
        values.append(metric(maps.gather(1, order), regions))
    return torch.stack(values).mean(0)


def check_maps(maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and regions as float64 of shape (B, T).

    Raises:
        ValueError: If they are not as :func:`point_game_energy` wants them.
    """
    if maps.shape != regions.shape:
        raise ValueError(
            "maps and regions must have the same shape, (B, T) or (B, H, W), but got "
            f"{tuple(maps.shape)} and {tuple(regions.shape)}"
        )
    regions = check_regions(regions.to(maps.device))
    maps = maps.detach().double().flatten(1)
    if not torch.isfinite(maps).all():
        raise ValueError("maps hold NaN or infinite values")
    return maps, regions


def check_regions(regions: Tensor) -> Tensor:
    """Regions as float64 of shape (B, T).

    Raises:
        ValueError: If they are not covered shares of patches.
    """
    if regions.dim() not in (2, 3) or not regions.shape[1:].numel():
        raise ValueError(
            "maps and regions are of shape (B, T) or (B, H, W) over patches, but got shape "
            f"{tuple(regions.shape)}"
        )
    regions = regions.detach().double().flatten(1)
    # Shares are sums of fractions, so they may be off by rounding.
    if not ((regions >= -1e-6) & (regions <= 1 + 1e-6)).all():
        low, high = (float(v) for v in regions.aminmax())
        raise ValueError(
            f"regions are shares of patches from 0 to 1, but hold values from {low:.4g} to "
            f"{high:.4g}"
        )
    return regions.clamp(0, 1)


def _mass(maps: Tensor, sign: Sign) -> Tensor:
    if sign == "positive":
        return maps.clamp(min=0)
    if sign == "negative":
        return (-maps).clamp(min=0)
    if sign == "absolute":
        return maps.abs()
    raise ValueError(f"sign must be 'positive', 'negative' or 'absolute', but got {sign!r}")


def _undefined_without(regions: Tensor, values: Tensor) -> Tensor:
    """NaN where no patch is covered: there is nothing to find then."""
    return values.masked_fill(~regions.any(1), torch.nan)
