"""Class activation maps of both towers with joint channel weights."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor

from captum_interactions.attr._utils.path import Normalization, Path
from captum_interactions.attr.second_order.base import (
    PairAttribution,
    check_target,
    interactions_alone,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.wrapper import widen
from captum_interactions.functional import (
    Decomposition,
    NotTwiceDifferentiableError,
    Quadrature,
    contract,
    integrated_jvp,
    integrated_vjp,
)

_HERE = Quadrature(torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
"""The end of a path alone: derivatives are taken at the inputs."""


class InteractionCAM(PairAttribution, GradientAttribution):
    r"""Channels of both towers, weighted by how they act on the score together.

    With the features F of the tokens at a layer, channels c of a and d of b have the joint weight

    .. math::
        w_{cd} = \frac{1}{T_a T_b} \sum_{t, u}
        \frac{\partial^2 s}{\partial F^a_{tc} \, \partial F^b_{ud}}
        = \langle \bar g_c, \bar h_d \rangle , \qquad
        \bar g_c = \frac{1}{T_a} \sum_t \frac{\partial g}{\partial F^a_{tc}} ,

    and the map is the activation of both under these weights:

    .. math::
        A_{ij} = \sum_{c d} F^a_{ic} \, w_{cd} \, F^b_{jd}
        = \Big\langle \sum_c F^a_{ic} \, \bar g_c , \; \sum_d F^b_{jd} \, \bar h_d \Big\rangle .

    So it is Grad-CAM on both sides: a product of two vector-valued class activation maps, whose
    marginals are the maps of the single inputs with weights that the other one sets. There is no
    ReLU, and there is no reference: nothing is promised about the sum.

    In the publication both inputs pass the same convolutional encoder, channel c of one meets
    channel c of the other with the weight ``mean(F^a_c) mean(F^b_c)``, gradients pass a ReLU, and
    two maps are returned, one an image. With encoders of different widths no channel of one is that
    of the other; the mixed derivatives say how much each pair of channels has to do with each
    other, and keep the sign.

    Source: Sammani, Joukovsky and Deligiannis, "Visualizing and understanding contrastive
    learning", IEEE TIP 2023 (arXiv 2206.09753); Selvaraju et al., "Grad-CAM", ICCV 2017.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): Where features live, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`: tokens with channels. A
            feature map has its cells as tokens. Default: None, ``wrapper.default_layers``
        normalization (str, optional): The score that is explained, see there. Default:
            ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist or the normalization is unknown.

    Examples::

        >>> from captum_interactions import wrap
        >>> a, b = torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)
        >>> wrapper = wrap((lambda x: a(x.tanh()).mean(1), lambda y: b(y.tanh()).mean(1)))
        >>> InteractionCAM(wrapper).attribute((torch.rand(2, 6, 4), torch.rand(2, 7, 5))).shape
        torch.Size([2, 6, 7])
    """

    needs = "two encoders; features that are tokens with channels"
    cost = "a forward pass of each input, then 2 S backward passes for S tokens on the shorter side"

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        normalization: Normalization = "cosine",
    ) -> None:
        PairAttribution.__init__(self, wrapper, layers, normalization)
        GradientAttribution.__init__(self, wrapper)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: None = None,
        target: None = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Joint activation maps of B pairs.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b, B rows each.
            baselines: Must be None; activations are compared with nothing. Default: None
            target: Must be None. Default: None
            additional_forward_args (optional): What the towers take beside their inputs. Default:
                None
            internal_batch_size (int, optional): At most this many pairs are differentiated at
                once. Default: None, all

        Returns:
            Tensor: shape (B, Ta, Tb). Padding is exactly zero.

        Raises:
            TypeError: If inputs are not a pair of tensors, or are on another device.
            ValueError: If shapes or values are not as described, or features are no tokens with
                channels.
        """
        check_target(target)
        with explaining(self.wrapper):
            paths = self._open_here(inputs, baselines, additional_forward_args)
            return _joint_map(paths, internal_batch_size)

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: None = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Decomposition:
        """The map with the score. Constant and main effects, which it has not, are zero."""
        with explaining(self.wrapper):
            paths = self._open_here(inputs, baselines, additional_forward_args)
            return interactions_alone(
                _joint_map(paths, internal_batch_size),
                (paths[0].embedding * paths[1].embedding).sum(-1),
            )

    def _open_here(
        self, inputs: tuple[Tensor, Tensor], baselines: None, additional_forward_args: Any
    ) -> tuple[Path, Path]:
        if baselines is not None:
            raise ValueError("InteractionCAM compares with no reference, so baselines must be None")
        # A path that goes nowhere: no reference is asked for, which a model may not have.
        paths = self._open(inputs, inputs, additional_forward_args)
        for path in paths:
            if path.end.dim() != 3:
                raise ValueError(
                    "InteractionCAM weighs the channels of tokens, so it needs features of shape "
                    f"(B, T, D), but at layer {path.layer!r} those of input {path.name} have shape "
                    f"{tuple(path.end.shape)}: choose a block with layers"
                )
        return paths


def _joint_map(paths: tuple[Path, Path], internal_batch_size: int | None) -> Tensor:
    """Products on the shorter side, then one a token back through the longer one."""
    path_a, path_b = paths
    dimension = path_a.embedding.shape[1]
    if min(path_a.n_products, path_b.n_products) > dimension:
        phi, psi = (_by_dimension(path, internal_batch_size) for path in paths)
        return contract(phi, psi)
    a_is_short = path_a.n_products < path_b.n_products
    short, long = paths if a_is_short else paths[::-1]
    try:
        factors = _by_token(short, internal_batch_size)
    except NotTwiceDifferentiableError:
        factors = _by_dimension(short, internal_batch_size)
    cotangents = factors[:, short.live].transpose(0, 1)
    rows = _pull_back(long, cotangents, internal_batch_size).movedim(0, 1)
    attributions = short.with_padding(rows, tokens=short.live)
    return attributions if a_is_short else attributions.transpose(1, 2)


def _by_token(path: Path, internal_batch_size: int | None) -> Tensor:
    """Factors (B, T, K): derivatives along each token's features, put at every token."""
    end = widen(path.end)
    weights = (path.token_mask / path.token_mask.sum(1, keepdim=True)).unsqueeze(-1)
    own = end * path.token_mask.unsqueeze(-1)
    tangents = own[:, path.live].transpose(0, 1).unsqueeze(2) * weights
    products = integrated_jvp(
        path.function,
        path.end,
        path.end,
        tangents,
        _HERE,
        args=path.context,
        direction=torch.ones_like(end),
        internal_batch_size=internal_batch_size,
    )
    return path.with_padding(products.transpose(0, 1), tokens=path.live)


def _by_dimension(path: Path, internal_batch_size: int | None) -> Tensor:
    """The same with first derivatives only, one product a dimension."""
    basis = torch.eye(path.embedding.shape[1]).to(path.embedding).unsqueeze(1)
    return _pull_back(path, basis, internal_batch_size).permute(1, 2, 0)


def _pull_back(path: Path, cotangents: Tensor, internal_batch_size: int | None) -> Tensor:
    """Class activation maps (C, B, T) of ``<cotangent, embedding>``."""

    def activate(gradient: Tensor, rows: slice) -> Tensor:
        mask = path.token_mask[rows]
        # Nothing flows back to padding, which does not count.
        channels = gradient.sum(1) / mask.sum(1, keepdim=True)
        return (widen(path.end[rows]) @ channels.unsqueeze(-1)).squeeze(-1) * mask

    return integrated_vjp(
        path.function,
        path.end,
        path.end,
        cotangents,
        _HERE,
        args=path.context,
        reduce=activate,
        internal_batch_size=internal_batch_size,
    )
