"""Maps as segmentations: intersection over union, and average precision."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions.metrics.localization import check_maps


def mean_iou(maps: Tensor, regions: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """Intersection over union of a thresholded map and the region, and of what both leave out.

    The mean of both is taken, as usual for segmentation of foreground and background. Patches that
    are covered in part count by area: it is the value for pixels, if each has the value of its
    patch. The chance level depends on how much of the map passes the threshold:
    :func:`~captum_interactions.metrics.shuffled_level` measures it.

    Source: the segmentation test of Chefer, Gur and Wolf, "Transformer Interpretability Beyond
    Attention Visualization", CVPR 2021 (arXiv 2012.09838), which also cuts at the mean of a map.
    There, areas are added up over the data set before they are divided; here each map has a value.

    Args:
        maps (Tensor): Maps over patches, shape (B, T) or (B, H, W).
        regions (Tensor): Covered share of each patch in [0, 1], of the shape of ``maps``.
        threshold (float or Tensor, optional): Patches above it are foreground; a tensor of shape
            (B,) has one for each map. Default: None, the mean of each map

    Returns:
        Tensor: float64 in [0, 1], shape (B,). NaN where no region is visible. If the region is
        everything and so is the map's foreground, there is no background and the foreground alone
        counts.

    Raises:
        ValueError: If shapes differ, a map is not finite, or a share is not from 0 to 1.

    Examples::

        >>> maps = torch.tensor([[0.9, 0.8, 0.1, 0.0]])
        >>> mean_iou(maps, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        tensor([0.5833], dtype=torch.float64)
    """
    maps, regions = check_maps(maps, regions)
    if threshold is None:
        cut = maps.mean(1, keepdim=True)
    else:
        cut = torch.as_tensor(threshold, dtype=maps.dtype, device=maps.device)
        if cut.dim() and cut.shape != maps.shape[:1]:
            raise ValueError(
                f"threshold must be a number or one for each of {len(maps)} maps, but got shape "
                f"{tuple(cut.shape)}"
            )
        cut = cut.reshape(-1, 1)
    marked = (maps > cut).double()
    # A patch is marked as a whole, so the areas of patches are exact.
    both = [
        torch.minimum(mark, part).sum(1) / torch.maximum(mark, part).sum(1)
        for mark, part in ((marked, regions), (1 - marked, 1 - regions))
    ]
    return torch.stack(both).nanmean(0).masked_fill(~regions.any(1), torch.nan)


def average_precision(maps: Tensor, regions: Tensor) -> Tensor:
    r"""Average precision of a map's patches as a ranking of what lies in the region.

    :math:`\sum_n (R_n - R_{n-1}) P_n` over the distinct values of the map as thresholds, with
    precision P and recall R in area. Equally strong patches share a threshold, so a constant map
    has the region's share of the area, the
    :func:`~captum_interactions.metrics.chance_level`. Shuffled maps lie a little above it if there
    are few patches. Only the order of a map's values matters.

    Args:
        maps (Tensor): Maps over patches, shape (B, T) or (B, H, W).
        regions (Tensor): Covered share of each patch in [0, 1], of the shape of ``maps``.

    Returns:
        Tensor: float64 in [0, 1], shape (B,). NaN where no region is visible. It reaches 1 only if
        no patch is covered in part.

    Raises:
        ValueError: If shapes differ, a map is not finite, or a share is not from 0 to 1.

    Examples::

        >>> maps = torch.tensor([[0.9, 0.8, 0.1, 0.0]])
        >>> average_precision(maps, torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
        tensor([0.8333], dtype=torch.float64)
    """
    maps, regions = check_maps(maps, regions)
    order = maps.argsort(1, descending=True)
    values, covered = maps.gather(1, order), regions.gather(1, order)
    # Where the patches that are as strong as this one end.
    last = torch.searchsorted((-values).contiguous(), (-values).contiguous(), right=True)
    found = covered.cumsum(1).gather(1, last - 1)
    precision = found / last
    recalled = covered / covered.sum(1, keepdim=True)
    return (recalled * precision).sum(1)
