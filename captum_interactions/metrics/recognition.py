"""Recognition in composed images: does each word find its own cell of a 2 × 2 picture?"""

from __future__ import annotations

import torch
from torch import Tensor


def quadrants(rows: int, columns: int) -> Tensor:
    """The patches of the four cells of a 2 × 2 picture.

    Of an odd number of rows or columns the middle one shows two cells, and belongs to none.

    Args:
        rows (int): Rows of the patch grid, at least 2.
        columns (int): Columns of the patch grid, at least 2.

    Returns:
        Tensor: 1 for patches of the cell, shape (4, rows, columns): upper left, upper right, lower
        left, lower right.

    Raises:
        ValueError: If there are fewer than two rows or columns.
    """
    if rows < 2 or columns < 2:
        raise ValueError(f"2 × 2 cells need as many patches, but the grid is {rows} × {columns}")
    cells = torch.zeros(4, rows, columns)
    for index in range(4):
        row, column = divmod(index, 2)
        vertical = slice(0, rows // 2) if row == 0 else slice(-(rows // 2), None)
        horizontal = slice(0, columns // 2) if column == 0 else slice(-(columns // 2), None)
        cells[index, vertical, horizontal] = 1.0
    return cells


def recognition_score(maps: Tensor, cells: Tensor, own: Tensor, *, pooled: bool = False) -> Tensor:
    r"""Share of a word's map that is right about where the word's object is.

    Positive values in the own cell and negative ones in the other cells are right, the reverse is
    wrong: with :math:`m^+` and :math:`m^-` the positive and negative mass of the word's map,

    .. math::
        \frac{m^+(\text{own}) + m^-(\text{others})}
        {m^+(\text{own}) + m^-(\text{own}) + m^+(\text{others}) + m^-(\text{others})} .

    :func:`recognition_chance` is the value of a map that knows nothing of where things are: it is
    1/4 for maps without negative values and 1/2 for maps with as much negative as positive mass.
    The scale of a map changes nothing.

    Published tables pool the masses: those of all words of a picture are added up before they are
    divided, so words with strong maps count more.

    Source: the pointing game recognition of Baniecki et al., "Explaining Similarity in
    Vision–Language Encoders with Weighted Banzhaf Interactions", 2025 (arXiv 2508.05430).

    Args:
        maps (Tensor): A map for each of L named objects, shape (B, L, T) or (B, L, H, W): rows of
            interaction maps. With L = 1, one map serves all words, as first-order maps do.
        cells (Tensor): Patches of each of C cells, values in [0, 1], shape (C, T) or (C, H, W), see
            :func:`quadrants`. Patches in no cell do not count.
        own (Tensor): Index of the cell of each object, shape (B, L).
        pooled (bool): Whether to give one value per picture, from the masses of all its words, as
            FIxLIP's program does. Default: False

    Returns:
        Tensor: float64 in [0, 1], shape (B, L), or (B,) if pooled. NaN where a map is zero in all
        cells.

    Raises:
        ValueError: If shapes do not fit, a map is not finite, or a cell does not exist.

    Examples::

        >>> maps = torch.tensor([[[3.0, -1.0, 0.0, 1.0]]])
        >>> recognition_score(maps, torch.eye(4), torch.tensor([[0]]))
        tensor([[0.8000]], dtype=torch.float64)
    """
    positive, negative, inside, outside = _masses(maps, cells, own)
    right = (positive * inside + negative * outside).sum(-1)
    wrong = (positive * outside + negative * inside).sum(-1)
    return _share(right, right + wrong, pooled)


def recognition_chance(maps: Tensor, cells: Tensor, own: Tensor, *, pooled: bool = False) -> Tensor:
    """Mean of :func:`recognition_score` over all shuffles of the map's patches that count.

    It is exact if cells do not cover patches in part.

    Args:
        maps, cells, own, pooled: As there.

    Returns:
        Tensor: float64 in [0, 1], shape (B, L), or (B,) if pooled. NaN where a map is zero in all
        cells.

    Raises:
        ValueError: In the same cases.
    """
    positive, negative, inside, outside = _masses(maps, cells, own)
    counted = inside + outside
    share = inside.sum(-1) / counted.sum(-1)
    plus, minus = (positive * counted).sum(-1), (negative * counted).sum(-1)
    return _share(plus * share + minus * (1 - share), plus + minus, pooled)


def _share(part: Tensor, whole: Tensor, pooled: bool) -> Tensor:
    """Of each object (B, L), or of all objects of a picture (B,)."""
    return part.sum(1) / whole.sum(1) if pooled else part / whole


def _masses(maps: Tensor, cells: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positive and negative mass, and how far patches are in and outside of the own cell."""
    if maps.dim() not in (3, 4) or cells.shape[1:] != maps.shape[2:]:
        raise ValueError(
            "maps must be of shape (B, L, T) or (B, L, H, W) and cells of shape (C, T) or "
            f"(C, H, W), but got {tuple(maps.shape)} and {tuple(cells.shape)}"
        )
    if own.dim() != 2 or len(own) != len(maps) or maps.shape[1] not in (1, own.shape[1]):
        raise ValueError(
            f"own must name a cell for each of (B, L) objects, but got shape {tuple(own.shape)} "
            f"for maps of shape {tuple(maps.shape)}"
        )
    if own.is_floating_point() or (own.numel() and not 0 <= own.min() <= own.max() < len(cells)):
        raise ValueError(f"own must be indices of {len(cells)} cells, but got {own.tolist()}")
    maps, cells = maps.detach().double().flatten(2), cells.to(maps.device).double().flatten(1)
    if not torch.isfinite(maps).all():
        raise ValueError("maps hold NaN or infinite values")
    if cells.min() < 0 or cells.sum(0).max() > 1 + 1e-6:
        raise ValueError(
            "cells must not overlap: shares of a patch are at least 0, at most 1 in all"
        )
    inside = cells[own.to(maps.device)]
    return maps.clamp(min=0), (-maps).clamp(min=0), inside, cells.sum(0) - inside
