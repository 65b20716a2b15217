"""A bilinear surrogate of the score, fitted to inputs with tokens taken away."""

from __future__ import annotations

from typing import Any, cast

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.masking import masked_embeddings, players
from captum_interactions.attr._utils.path import Groups, Normalization, Path
from captum_interactions.attr.second_order.base import Baselines, PairAttribution, check_target
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition, contract, decompose


class InteractionLIME(PairAttribution, PerturbationAttribution):
    r"""Interactions are the coefficients of a bilinear model of the score near the input.

    Tokens of both inputs are taken away at random: ``z`` holds 1 for those that stay, and others
    are put at their reference. The map is W in the weighted least-squares fit

    .. math::
        \min_{c, u, v, W} \sum_{p, q} \pi(z_a^p) \, \pi(z_b^q) \,
        \big( s(z_a^p, z_b^q) - c - u^\top z_a^p - v^\top z_b^q - z_a^{p\top} W z_b^q \big)^2 ,
        \qquad
        \pi(z) = \exp\Big( -\frac{(1 - \sqrt{|z| / T})^2}{2 \sigma^2} \Big)

    over the grid of ``m_a`` masks of a and ``m_b`` masks of b, where T is the number of tokens and
    ``|z|`` the number of those that stay: the exponential kernel of the cosine distance, with
    LIME's width σ = 0.25. Masks are fair coin flips, and the first one keeps everything; when there
    are no more masks than asked for, each is taken once.

    On a grid the design is a Kronecker product, and the score of a dual encoder one of embeddings.
    So the fit is the product of two vector-valued LIMEs, of the embeddings of a and of b: it takes
    ``m_a + m_b`` encoder passes and two small regressions in place of ``m_a m_b`` scores and one
    regression on ``(1 + Ta)(1 + Tb)`` terms. The result is the same.

    Source: Joukovsky, Sammani and Deligiannis, "Model-agnostic visual explanations via approximate
    bilinear models", ICIP 2023, pp. 1770-1774. Kernel and number of samples are not known from
    there; Ribeiro et al., "Why should I trust you?", KDD 2016, for those of LIME.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): Where features are put at their reference, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. ``("input", 0)`` removes
            pixels and word embeddings. Default: None, ``wrapper.default_layers``
        normalization (str, optional): The score that is explained, see there. Default:
            ``"cosine"``
        kernel_width (float, optional): σ. Default: 0.25

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist, the normalization is unknown or the width not
            positive.

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
        PairAttribution.__init__(self, wrapper, layers, normalization)
        if not kernel_width > 0:
            raise ValueError(f"kernel_width must be positive, but got {kernel_width!r}")
        self.kernel_width = kernel_width

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        n_samples: int = 1000,
        *,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        seed: int = 0,
        internal_batch_size: int | None = 64,
        show_progress: bool = False,
    ) -> Tensor:
        """Coefficients of every pair of tokens.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b, B rows each.
            baselines (None, scalar, Tensor or tuple, optional): The references, as in
                :meth:`SecondOrderIntegratedGradients.attribute
                <captum_interactions.SecondOrderIntegratedGradients.attribute>`. Default: None
            target: Must be None. Default: None
            additional_forward_args (optional): What the towers take beside their inputs. Default:
                None
            n_samples (int, optional): Number of masks of each input, more than it has tokens.
                Default: 1000
            groups_a, groups_b (optional): Take groups of tokens away: a list of lists of token
                indices, or weights from 0 to 1 of shape (G, T) or (B, G, T). They must not share
                tokens; tokens in no group always stay. Default: None, every token
            seed (int, optional): Of the masks. They depend on it and on the number of tokens
                alone. Default: 0
            internal_batch_size (int, optional): At most this many rows go through a tower at once;
                None for all. Default: 64
            show_progress (bool, optional): Show progress bars. Default: False

        Returns:
            Tensor: shape (B, Ta, Tb), or (B, Ga, Gb) with groups. Padding is exactly zero.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If shapes, values or options are not as described, there are too few
                samples, or groups share tokens.
        """
        check_target(target)
        with explaining(self.wrapper):
            paths = self._open(inputs, baselines, additional_forward_args, groups_a, groups_b)
            (_, phi), (_, psi) = self._fit(
                paths, n_samples, seed, internal_batch_size, show_progress
            )
            return contract(phi, psi)

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        n_samples: int = 1000,
        *,
        seed: int = 0,
        internal_batch_size: int | None = 64,
        show_progress: bool = False,
    ) -> Decomposition:
        """The whole surrogate: c, u, v and W. What it misses of the score is the delta.

        The arguments are those of :meth:`attribute`.
        """
        with explaining(self.wrapper):
            path_a, path_b = paths = self._open(inputs, baselines, additional_forward_args)
            (first_a, phi), (first_b, psi) = self._fit(
                paths, n_samples, seed, internal_batch_size, show_progress
            )
            return decompose(phi, psi, path_a.embedding, path_b.embedding, first_a, first_b)

    def _fit(
        self,
        paths: tuple[Path, Path],
        n_samples: int,
        seed: int,
        internal_batch_size: int | None,
        show_progress: bool,
    ) -> list[tuple[Tensor, Tensor]]:
        """Constant (B, K) and coefficients (B, G, K) of the embeddings of both sides."""
        mine = [players(path) for path in paths]
        for path, own in zip(paths, mine, strict=True):
            most = int(own.sum(1).max())
            if isinstance(n_samples, bool) or not isinstance(n_samples, int) or n_samples <= most:
                raise ValueError(
                    f"n_samples must be an int of more than {most}, the number of tokens of input "
                    f"{path.name}, but got {n_samples!r}"
                )
        return [
            self._fit_side(path, own, n_samples, seed + index, internal_batch_size, show_progress)
            for index, (path, own) in enumerate(zip(paths, mine, strict=True))
        ]

    def _fit_side(
        self,
        path: Path,
        mine: Tensor,
        n_samples: int,
        seed: int,
        internal_batch_size: int | None,
        show_progress: bool,
    ) -> tuple[Tensor, Tensor]:
        designs = [draw_masks(int(own.sum()), n_samples, seed) for own in mine]
        n_masks = max(len(design) for design in designs)
        present = torch.ones(n_masks, *mine.shape)
        for index, (design, own) in enumerate(zip(designs, mine.cpu(), strict=True)):
            present[: len(design), index, own] = design
        embeddings = masked_embeddings(
            path, present.to(mine.device), internal_batch_size, show_progress
        )
        first = embeddings.new_zeros(embeddings.shape[1:])
        coefficients = embeddings.new_zeros((len(mine), path.n_outputs, embeddings.shape[2]))
        for index, (design, own) in enumerate(zip(designs, mine, strict=True)):
            inverse = self._pseudo_inverse(design)
            seen = embeddings[: len(design), index]
            # Fitted apart, because embeddings may hardly differ: sums of them would be rounded.
            common = seen.mean(0)
            of_one = inverse.sum(1, keepdim=True).to(embeddings)
            solution = inverse.to(embeddings) @ (seen - common) + of_one * common
            first[index] = solution[0]
            coefficients[index, own] = solution[1:]
        return first, coefficients

    def _pseudo_inverse(self, masks: Tensor) -> Tensor:
        """From values at masks (M, T) to the constant and coefficients of their weighted fit."""
        masks = masks.double()
        share = masks.mean(1) if masks.shape[1] else masks.new_ones(len(masks))
        roots = (-((1 - share.sqrt()) ** 2) / (4 * self.kernel_width**2)).exp().unsqueeze(1)
        design = torch.cat([torch.ones_like(masks[:, :1]), masks], 1)
        return cast(Tensor, torch.linalg.pinv(roots * design) * roots.T)


def draw_masks(n_tokens: int, n_samples: int, seed: int) -> Tensor:
    """Masks (M, T) of zeros and ones: everything first, then coin flips, or all there are.

    Args:
        n_tokens (int): T.
        n_samples (int): M, unless there are fewer masks.
        seed (int): Of the coin flips.
    """
    if 2**n_tokens <= n_samples:
        numbers = torch.arange(2**n_tokens).unsqueeze(1)
        return 1 - (numbers >> torch.arange(n_tokens) & 1).float()
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (n_samples, n_tokens), generator=generator).float()
    masks[0] = 1
    return masks
