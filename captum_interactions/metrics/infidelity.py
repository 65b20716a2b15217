"""Interaction infidelity: do interactions say what happens when groups of parts are taken away?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_interactions.metrics.curves import Score
from captum_interactions.metrics.mixed_difference import mixed_difference


def interaction_infidelity(
    score: Score,
    interactions: Tensor,
    removed_a: Tensor,
    removed_b: Tensor,
    normalize: bool = False,
) -> Tensor:
    r"""Mean squared error of interactions as predictions of mixed differences of the score.

    Captum's ``infidelity`` compares a first-order map with the change of the score when a part of
    the input is taken away. Its second-order analogue takes a group I away from a and a group K
    from b, and asks for what the score loses by their meeting alone:

    .. math::
        E_{I, K}\Big[\Big(\sum_{i \in I, j \in K} A_{ij} - \Delta^2 s(I, K)\Big)^2\Big] , \qquad
        \Delta^2 s(I, K) = s(a, b) - s(a_{\setminus I}, b) - s(a, b_{\setminus K})
        + s(a_{\setminus I}, b_{\setminus K}) .

    With everything taken away, a complete map has the square of its convergence delta. A map of
    zeros has the mean of :math:`(\Delta^2 s)^2`, which is the level to beat.

    Source: infidelity of Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS
    2019 (arXiv 1901.09392), for the mixed difference that second-order attributions explain.

    Args:
        score (Callable): See :data:`~captum_interactions.metrics.Score`.
        interactions (Tensor): shape (B, Ta, Tb).
        removed_a (Tensor): M groups of parts of a that are taken away, bool, shape (B, M, Ta).
        removed_b (Tensor): The groups of b that go along with them, bool, shape (B, M, Tb).
        normalize (bool): Scale each map by the number that makes its error smallest, as Captum
            does. Default: False

    Returns:
        Tensor: float64, at least 0, shape (B,).

    Raises:
        ValueError: If shapes do not fit, or groups are not bool.
    """
    for name, removed, axis in (("a", removed_a, 1), ("b", removed_b, 2)):
        expected = (interactions.shape[0], removed_a.shape[1], interactions.shape[axis])
        if removed.shape != expected or removed.dtype != torch.bool:
            raise ValueError(
                f"removed_{name} must be bool of shape {expected}, for interactions of shape "
                f"{tuple(interactions.shape)}, but is {removed.dtype} of shape "
                f"{tuple(removed.shape)}"
            )
    rows = removed_a.double() @ interactions.detach().double()
    predicted = (rows * removed_b.double()).sum(2)
    actual = mixed_difference(score, removed_a, removed_b).to(predicted)
    if normalize:
        product, square = (predicted * actual).sum(1), predicted.square().sum(1)
        scale = torch.where(square > 0, product / square, 1.0)
        predicted = scale.unsqueeze(1) * predicted
    return (predicted - actual).square().mean(1)
