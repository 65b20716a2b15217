"""A bilinear surrogate of the score, fitted to inputs with some tokens removed."""

from __future__ import annotations

from typing import Any, cast

import torch
from captum.attr import PerturbationAttribution
from torch import Tensor

from captum_interactions.attr._utils.arguments import Baselines, Groups, Inputs, Normalization
from captum_interactions.attr._utils.masking import masked_embeddings, removable
from captum_interactions.attr._utils.path import Path
from captum_interactions.attr.second_order.base import SecondOrderAttribution
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.functional import Decomposition, contract, decompose


class InteractionLIME(SecondOrderAttribution, PerturbationAttribution):
    r"""Coefficients of a bilinear model of the score near the input.

    Tokens of both inputs are removed at random: ``z`` is 1 for tokens that stay, and others are
    replaced by their baseline. The map is W in the weighted least-squares fit

    .. math::
        \min_{c, u, v, W} \sum_{p, q} \pi(z_a^p) \, \pi(z_b^q) \,
        \big( s(z_a^p, z_b^q) - c - u^\top z_a^p - v^\top z_b^q - z_a^{p\top} W z_b^q \big)^2 ,
        \qquad
        \pi(z) = \exp\Big( -\frac{(1 - \sqrt{|z| / T})^2}{2 \sigma^2} \Big)

    over the grid of ``m_a`` masks of a and ``m_b`` masks of b, where T is the number of tokens and
    ``|z|`` the number of those that stay: the exponential kernel of the cosine distance, with
    LIME's width σ = 0.25. Masks are fair coin flips, and the first one keeps all tokens; if there
    are no more masks than asked for, each is used once.

    On a grid the design is a Kronecker product, and the score of a dual encoder is a product of
    embeddings. The fit is therefore the product of two vector-valued LIMEs, of the embeddings of a
    and of b: it takes ``m_a + m_b`` encoder passes and two small regressions instead of ``m_a m_b``
    scores and one regression on ``(1 + Ta)(1 + Tb)`` terms, with the same result.

    Source: Joukovsky, Sammani and Deligiannis, "Model-agnostic visual explanations via approximate
    bilinear models", ICIP 2023, pp. 1770-1774. Kernel and number of samples are not known from
    there; Ribeiro et al., "Why should I trust you?", KDD 2016, for those of LIME.

    Args:
        layers (tuple, optional): ``(layer_a, layer_b)``, the layer of each tower whose features are
            replaced. ``("input", 0)`` removes pixels and word embeddings. Default: None,
            ``wrapper.default_layers``
        kernel_width (float, optional): σ. Default: 0.25

    Examples::

        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> InteractionLIME(wrapper).attribute((torch.rand(2, 4), torch.rand(2, 5))).shape
        torch.Size([2, 4, 5])
    """

    cost = "n_samples forward passes of each input; no backward pass"

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
        kernel_width: float = 0.25,
    ) -> None:
        super().__init__(wrapper, layers, normalization=normalization)
        if not kernel_width > 0:
            raise ValueError(f"kernel_width must be positive, but got {kernel_width!r}")
        self.kernel_width = kernel_width

    def attribute(
        self, inputs: Inputs, baselines: Baselines = None, target: None = None,
        additional_forward_args: Any = None, n_samples: int = 1000, *,
        groups_a: Groups | None = None, groups_b: Groups | None = None, seed: int = 0,
        internal_batch_size: int | None = 64, show_progress: bool = False,
    ) -> Tensor:  # fmt: skip
        """Coefficients of every pair of tokens.

        Args:
            n_samples (int, optional): Number of masks of each input, more than it has tokens.
                Default: 1000
            groups_a, groups_b (optional): Remove groups of tokens instead of tokens: a list of
                lists of token indices, or weights from 0 to 1 of shape (G, T) or (B, G, T). They
                must not share tokens; tokens in no group always stay. Default: None, every token
                by itself
            seed (int, optional): Seed of the masks, which otherwise depend on the number of tokens
                only. Default: 0
            internal_batch_size (int, optional): Maximum number of rows that go through a tower at
                once; None for all. Default: 64
        """
        return self._attribute(
            inputs, baselines, target, additional_forward_args, groups_a, groups_b,
            n_samples=n_samples, seed=seed, internal_batch_size=internal_batch_size,
            show_progress=show_progress,
        )  # fmt: skip

    def decompose(
        self, inputs: Inputs, baselines: Baselines = None, additional_forward_args: Any = None,
        n_samples: int = 1000, *, seed: int = 0, internal_batch_size: int | None = 64,
        show_progress: bool = False,
    ) -> Decomposition:  # fmt: skip
        """The whole surrogate: c, u, v and W. Its error for the whole pair is the delta."""
        return self._decompose(
            inputs, baselines, additional_forward_args, n_samples=n_samples, seed=seed,
            internal_batch_size=internal_batch_size, show_progress=show_progress,
        )  # fmt: skip

    def _interactions(self, sides: tuple[Path, Path], **options: Any) -> Tensor:
        (_, phi), (_, psi) = self._fit(sides, **options)
        return contract(phi, psi)

    def _parts(self, sides: tuple[Path, Path], **options: Any) -> Decomposition:
        (first_a, phi), (first_b, psi) = self._fit(sides, **options)
        return decompose(phi, psi, sides[0].embedding, sides[1].embedding, first_a, first_b)

    def _fit(
        self, paths: tuple[Path, Path], n_samples: int, seed: int, **options: Any
    ) -> list[tuple[Tensor, Tensor]]:
        """Constant (B, K) and coefficients (B, G, K) of the embeddings of both sides."""
        tokens = [removable(path) for path in paths]
        for path, own in zip(paths, tokens, strict=True):
            most = int(own.sum(1).max())
            if isinstance(n_samples, bool) or not isinstance(n_samples, int) or n_samples <= most:
                raise ValueError(
                    f"n_samples must be an int of more than {most}, the number of tokens of input "
                    f"{path.name}, but got {n_samples!r}"
                )
        return [
            self._fit_side(path, own, n_samples, seed + index, **options)
            for index, (path, own) in enumerate(zip(paths, tokens, strict=True))
        ]

    def _fit_side(
        self, path: Path, own: Tensor, n_samples: int, seed: int, **options: Any
    ) -> tuple[Tensor, Tensor]:
        designs = [draw_masks(int(row.sum()), n_samples, seed) for row in own]
        present = torch.ones(max(len(design) for design in designs), *own.shape)
        for index, (design, row) in enumerate(zip(designs, own.cpu(), strict=True)):
            present[: len(design), index, row] = design
        embeddings = masked_embeddings(path, present.to(own.device), **options)
        first = embeddings.new_zeros(embeddings.shape[1:])
        coefficients = embeddings.new_zeros((len(own), path.n_outputs, embeddings.shape[2]))
        for index, (design, row) in enumerate(zip(designs, own, strict=True)):
            inverse = self._pseudo_inverse(design)
            seen = embeddings[: len(design), index]
            # Fitted apart, because embeddings may hardly differ: sums of them would be rounded.
            common = seen.mean(0)
            of_one = inverse.sum(1, keepdim=True).to(embeddings)
            solution = inverse.to(embeddings) @ (seen - common) + of_one * common
            first[index] = solution[0]
            coefficients[index, row] = solution[1:]
        return first, coefficients

    def _pseudo_inverse(self, masks: Tensor) -> Tensor:
        """The matrix from values at masks (M, T) to constant and coefficients of the fit."""
        masks = masks.double()
        share = masks.mean(1) if masks.shape[1] else masks.new_ones(len(masks))
        roots = (-((1 - share.sqrt()) ** 2) / (4 * self.kernel_width**2)).exp().unsqueeze(1)
        design = torch.cat([torch.ones_like(masks[:, :1]), masks], 1)
        return cast(Tensor, torch.linalg.pinv(roots * design) * roots.T)


def draw_masks(n_tokens: int, n_samples: int, seed: int) -> Tensor:
    """Masks (M, T) of zeros and ones: all tokens first, then coin flips; or every mask once.

    Args:
        n_tokens (int): T.
        n_samples (int): M, unless there are fewer masks in all.
        seed (int): Seed of the coin flips.
    """
    if 2**n_tokens <= n_samples:
        numbers = torch.arange(2**n_tokens).unsqueeze(1)
        return 1 - (numbers >> torch.arange(n_tokens) & 1).float()
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (n_samples, n_tokens), generator=generator).float()
    masks[0] = 1
    return masks
