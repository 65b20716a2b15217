"""Any first-order explainer of Captum as a second-order one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from captum.attr import (
    Attribution,
    DeepLiftShap,
    FeaturePermutation,
    GradientShap,
    InputXGradient,
    LayerAttribution,
    LayerFeatureAblation,
    LayerGradCam,
    NeuronAttribution,
    PerturbationAttribution,
    Saliency,
)
from captum.log import log_usage
from torch import Tensor, nn

from captum_interactions.attr.pairs import Baselines, PairAttribution, Side
from captum_interactions.attr.paths import (
    Groups,
    Normalization,
    Path,
    Products,
    taking_products,
)
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.encoders.modes import explaining
from captum_interactions.functional import Decomposition, quadrature

Explainer = Callable[..., Attribution]
_OURS = ("inputs", "baselines", "target", "additional_forward_args", "return_convergence_delta")


class LiftedAttribution(PairAttribution):
    r"""The second-order twin of a first-order explainer of Captum.

    A first-order explainer attributes a scalar function of one input. Here the function is the part
    of the score that token j of the other input accounts for: with ``side="a"``,

    .. math::
        A_{ij} = \mathrm{explainer}_i \big( a \mapsto \langle g(a), \psi_j \rangle \big) , \qquad
        \sum_j \psi_j = h(b) - h(r_b) ,

    where :math:`\psi_j` are the factors of b by
    :class:`~captum_interactions.SecondOrderIntegratedGradients`; with ``side="b"``, a and b swap.
    If the explainer's attributions sum to the difference that it explains (``IntegratedGradients``
    with enough nodes, ``ShapleyValueSampling`` always), the map sums to
    ``s(a, b) - s(a, r_b) - s(r_a, b) + s(r_a, r_b)``. With ``IntegratedGradients`` it is the map of
    second-order integrated gradients.

    What explainers see are the features at the layer: hidden states (B, T, D) or raw inputs.

    - Methods with baselines get the reference of the explained input; ``GradientShap`` and
      ``DeepLiftShap`` get all of them, if a list is given.
    - Methods that perturb (``FeatureAblation``, ``ShapleyValueSampling``, ``KernelShap``,
      ``Occlusion``) take whole tokens or groups away, not single features, unless ``options`` hold
      another ``feature_mask`` or window: a token's attribution is the mean over its features. One
      evaluation of the encoder serves all tokens j.
    - ``Layer...`` methods, such as ``LayerGradCam``, are given the features as the output of their
      layer, channels first: (B, D, T). ``LayerGradCam`` takes no ReLU unless ``options`` say so,
      and its means are over tokens that are not padding.
    - ``DeepLift`` hooks modules. Its attributions sum up if all that is not linear, from the layer
      on, is a module that runs once (``nn.ReLU``, not ``F.relu``; attention and layer norm are
      not), and ``normalization`` is ``"frozen"`` or ``"none"``: a cosine is no module either.
    - ``Saliency`` takes absolute values, and the absolute values of parts say nothing of their sum:
      it is refused without ``options={"abs": False}``.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): Where features live, see
            :class:`~captum_interactions.SecondOrderIntegratedGradients`. Default: None,
            ``wrapper.default_layers``
        explainer (type or Callable, optional): A class of Captum, or a function that takes an
            ``nn.Module`` (features and further arguments to one number an example) and returns an
            ``Attribution`` of it, such as ``lambda f: NoiseTunnel(InputXGradient(f))``. The
            module's ``features`` is the layer for ``Layer...`` methods. Default:
            ``InputXGradient``
        side (str, optional): The input that the explainer explains; the other one has the factors.
            Default: ``"a"``
        normalization (str, optional): The score that is explained, see there. Default:
            ``"cosine"``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper or ``explainer`` not callable.
        ValueError: If a layer does not exist, another option is unknown, or the explainer has no
            second-order twin.

    Examples::

        >>> from captum.attr import ShapleyValueSampling
        >>> from captum_interactions import wrap
        >>> wrapper = wrap((torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)))
        >>> lifted = LiftedAttribution(wrapper, explainer=ShapleyValueSampling)
        >>> lifted.attribute((torch.rand(2, 4), torch.rand(2, 5)), options={"n_samples": 3}).shape
        torch.Size([2, 4, 5])
    """

    cost = (
        "for S tokens that have factors, per node a pass of that input and S backward passes; then "
        "S times the explainer's own passes, or those of one score if it takes no gradients"
    )

    def __init__(
        self,
        wrapper: DualEncoderWrapper,
        layers: tuple[Layer, Layer] | None = None,
        *,
        explainer: Explainer = InputXGradient,
        side: Side = "a",
        normalization: Normalization = "cosine",
    ) -> None:
        PairAttribution.__init__(self, wrapper, layers, normalization)
        if side not in ("a", "b"):
            raise ValueError(f"side must be 'a' or 'b', but got {side!r}")
        if not callable(explainer):
            raise TypeError(
                "explainer must be a class of captum.attr, or a function from a module to an "
                f"Attribution, but got {explainer!r}"
            )
        if isinstance(explainer, type) and issubclass(explainer, NeuronAttribution):
            raise ValueError(
                f"{explainer.__name__} explains a neuron, not a score: there is nothing to pair"
            )
        if isinstance(explainer, type) and issubclass(explainer, FeaturePermutation):
            raise ValueError(
                f"{explainer.__name__} exchanges features between the examples of a batch, but a "
                "pair is explained by itself: take FeatureAblation"
            )
        if isinstance(explainer, type) and issubclass(explainer, LayerFeatureAblation):
            raise ValueError(
                f"{explainer.__name__} takes single features away, and not to the reference: take "
                "FeatureAblation, which sees the same features"
            )
        self.explainer = explainer
        self.side: Side = side

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        target: None = None,
        additional_forward_args: Any = None,
        n_steps: int = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        groups_a: Groups | None = None,
        groups_b: Groups | None = None,
        options: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        """Attributions of the explained input for every token of the other.

        Args:
            inputs (tuple[Tensor, Tensor]): Input a and input b, B rows each.
            baselines (None, scalar, Tensor or tuple, optional): The references, as in
                :meth:`SecondOrderIntegratedGradients.attribute
                <captum_interactions.SecondOrderIntegratedGradients.attribute>`. A list of them is
                averaged over. Default: None
            target: Must be None. Default: None
            additional_forward_args (optional): What the towers take beside their inputs. Default:
                None
            n_steps (int, optional): Number of nodes of the factors, and of the explainer if it has
                nodes. Default: 20
            method (str, optional): Quadrature rule of the factors and of the explainer. Default:
                ``gausslegendre``
            internal_batch_size (int, optional): At most this many rows are evaluated at once, as
                far as the explainer lets us choose: as many tokens are explained in one call of it
                as there is room for (one at least). Default: None, all
            groups_a, groups_b (optional): Groups of tokens instead of tokens. For methods that
                perturb, those of the explained side are the same in all examples, of whole tokens,
                and share none. Default: None
            options (dict, optional): What the explainer's ``attribute`` takes beyond this, such as
                ``n_samples`` or ``perturbations_per_eval``. Default: None
            show_progress (bool, optional): Show progress bars, the explainer's too if it has one.
                Default: False

        Returns:
            Tensor: shape (B, Ta, Tb), or (B, Ga, Gb) with groups. Padding is exactly zero.

        Raises:
            TypeError: If inputs are not a pair of tensors, or an option is not the explainer's.
            ValueError: If shapes, values or options are not as described.
        """
        self._check_target(target)
        rule = quadrature(method, n_steps, dtype=torch.float64)
        with explaining(self.wrapper):
            explained, other = self._ordered(
                self._open(inputs, baselines, additional_forward_args, groups_a, groups_b)
            )
            call = _Call(self.explainer, explained, options, n_steps, method, show_progress)
            with taking_products(rule, internal_batch_size, show_progress) as products:
                rows, _ = self._rows(call, explained, other, products)
        return self._as_map(rows)

    def decompose(
        self,
        inputs: tuple[Tensor, Tensor],
        baselines: Baselines = None,
        additional_forward_args: Any = None,
        n_steps: int = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        *,
        options: dict[str, Any] | None = None,
        show_progress: bool = False,
    ) -> Decomposition:
        """Constant, main effects of both sides, and interactions.

        The main effects of the explained input are the explainer's, of its score with the other
        input's reference. Together the parts are the score if the explainer is complete. The
        arguments are those of :meth:`attribute`.
        """
        rule = quadrature(method, n_steps, dtype=torch.float64)
        with explaining(self.wrapper):
            paths = self._open(inputs, baselines, additional_forward_args)
            explained, other = self._ordered(paths)
            call = _Call(self.explainer, explained, options, n_steps, method, show_progress)
            with taking_products(rule, internal_batch_size, show_progress) as products:
                rows, factors = self._rows(call, explained, other, products, main_effects=True)
        main = (rows[-1], (factors @ explained.reference.unsqueeze(-1)).squeeze(-1))
        main_a, main_b = self._ordered(main)
        return Decomposition(
            constant=(paths[0].reference * paths[1].reference).sum(-1),
            main_effects_a=main_a,
            main_effects_b=main_b,
            interactions=self._as_map(rows[:-1]),
            score=(paths[0].embedding * paths[1].embedding).sum(-1),
        )

    def _ordered(self, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        """What is of a and what is of b, as what is of the explained side and what is not."""
        return pair if self.side == "a" else pair[::-1]

    def _as_map(self, rows: Tensor) -> Tensor:
        """Attributions for each token of the other side, (T', B, T), as maps (B, Ta, Tb)."""
        return rows.permute(1, 2, 0) if self.side == "a" else rows.transpose(0, 1)

    def _rows(
        self,
        call: _Call,
        explained: Path,
        other: Path,
        products: Products,
        main_effects: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Attributions (T', B, T) for each token of the other side, and its factors (B, T', K).

        With main effects, a last row is for the other side's reference.
        """
        n_products = min(other.n_products, other.embedding.shape[1])
        products.progress.total = other.cost(n_products, products)
        factors = other.factors(products)
        cotangents = factors[:, other.live].transpose(0, 1)
        if main_effects:
            cotangents = torch.cat([cotangents, other.reference.unsqueeze(0)])
        size = products.internal_batch_size
        n_at_once = len(cotangents) if size is None else max(1, size // len(explained.end))
        rows = torch.cat([call(chunk, size) for chunk in cotangents.split(n_at_once)])
        n_live = len(other.live)
        padded = other.with_padding(rows[:n_live], dim=0)
        return torch.cat([padded, rows[n_live:]]), factors


class _ScalarScore(nn.Module):
    """What the explainer explains: ``features, cotangent, *context -> <embedding, cotangent>``.

    Rows may be copies of the same examples for several cotangents, which need one evaluation only
    if no gradient is taken.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tower = path.tower  # so that explainers find its modules
        self.features = nn.Identity()
        self.n_copies = 1
        self._function = path.function
        self._n_examples = len(path.end)

    def forward(self, features: Tensor, cotangent: Tensor, *context: Any) -> Tensor:
        features = _channels_last(self.features(_channels_first(features)))
        embedding = self._shared(features, context)
        if embedding is None:
            embedding = self._function(features, *context)
        return (embedding * cotangent).sum(-1)

    def _shared(self, features: Tensor, context: tuple[Any, ...]) -> Tensor | None:
        """One evaluation for all copies, if rows are copies and need no gradients of their own."""
        period = self.n_copies * self._n_examples
        if features.requires_grad or self.n_copies == 1 or len(features) % period:
            return None
        shape = (-1, self.n_copies, self._n_examples)
        arguments = [
            value.unflatten(0, shape) if isinstance(value, Tensor) and value.dim() else value
            for value in (features, *context)
        ]
        blocks = [value for value in arguments if isinstance(value, Tensor) and value.dim()]
        if not all(torch.equal(block, block[:, :1].expand_as(block)) for block in blocks):
            return None
        first = (
            value[:, 0].flatten(0, 1) if isinstance(value, Tensor) and value.dim() else value
            for value in arguments
        )
        embedding = self._function(*first)
        blocked = embedding.unflatten(0, (-1, 1, self._n_examples))
        return cast(Tensor, blocked.expand(-1, self.n_copies, -1, -1).flatten(0, 2))


class _Call:
    """An explainer of one side of a batch of pairs, ready to run for any cotangents."""

    def __init__(
        self,
        explainer: Explainer,
        path: Path,
        options: dict[str, Any] | None,
        n_steps: int,
        method: str,
        show_progress: bool,
    ) -> None:
        self.path = path
        self.score = _ScalarScore(path)
        is_layer = isinstance(explainer, type) and issubclass(explainer, LayerAttribution)
        self.explainer = explainer(self.score, *([self.score.features] if is_layer else []))
        # What NoiseTunnel passes its options on to.
        inner = getattr(self.explainer, "attribution_method", self.explainer)
        if not isinstance(inner, Attribution):
            raise TypeError(
                f"explainer must give an Attribution of Captum, but gave {type(inner).__name__}"
            )
        self.inner = inner
        self.options = dict(options or {})
        self.known = set(inspect.signature(inner.attribute).parameters) - {"kwargs"}
        outer = set(inspect.signature(self.explainer.attribute).parameters)
        self._check_options(self.known | outer)
        defaults = {"n_steps": n_steps, "method": method, "show_progress": show_progress}
        for name, value in defaults.items():
            if name in self.known:
                self.options.setdefault(name, value)
        if isinstance(inner, PerturbationAttribution):
            self._perturb_tokens()

    def __call__(self, cotangents: Tensor, internal_batch_size: int | None) -> Tensor:
        """Attributions (C, B, G) of tokens or groups, for cotangents (C, B, K)."""
        if "internal_batch_size" in self.known:
            self.options.setdefault("internal_batch_size", internal_batch_size)
        n_examples = len(self.path.end)
        starts = [start.expand(self.path.end.shape) for start in self.path.starts]
        if isinstance(self.inner, (GradientShap, DeepLiftShap)):
            # These draw a baseline for every row from all that they get, so examples go alone.
            parts = [
                self._run(cotangents, slice(row, row + 1), torch.stack([s[row] for s in starts]))
                for row in range(n_examples)
            ]
            return torch.cat(parts, 1)
        if "baselines" not in self.known:
            starts = starts[:1]
        copies = (len(cotangents), *[1] * (self.path.end.dim() - 1))
        parts = [self._run(cotangents, slice(None), start.repeat(copies)) for start in starts]
        return torch.stack(parts).mean(0)

    def _run(self, cotangents: Tensor, rows: slice, baselines: Tensor) -> Tensor:
        """Attributions (C, R, G) of some examples."""
        own = cotangents[:, rows]
        n_copies, n_examples = own.shape[:2]
        self.score.n_copies = n_copies

        def copied(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.dim():
                return value
            return value[rows].repeat(n_copies, *[1] * (value.dim() - 1))

        features = copied(self.path.end)
        if not isinstance(self.inner, PerturbationAttribution):
            features.requires_grad_()
        if "baselines" in self.known:
            self.options["baselines"] = baselines
        attributions = self.explainer.attribute(
            features,
            additional_forward_args=(
                own.flatten(0, 1),
                *(copied(value) for value in self.path.context),
            ),
            **self.options,
        )
        if isinstance(self.inner, LayerAttribution):
            attributions = _channels_last(attributions)
        attributions = attributions.detach().unflatten(0, (n_copies, n_examples))
        folded = torch.stack([self.path.fold(copy, rows) for copy in attributions])
        if isinstance(self.inner, LayerGradCam):
            # Captum averages gradients over padding too, where there are none.
            mask = self.path.token_mask[rows]
            folded = folded * (mask.shape[1] / mask.sum(1, keepdim=True))
        if not isinstance(self.inner, PerturbationAttribution):
            return folded
        # Each feature of a token has the whole token's attribution.
        sizes = self.path.fold(torch.ones_like(attributions[0]), rows)
        return torch.where(sizes > 0, folded / sizes.clamp_min(1e-9), torch.zeros_like(folded))

    def _check_options(self, known: set[str]) -> None:
        if "return_convergence_delta" in self.options or "inputs" in self.options:
            raise TypeError(f"options must not hold {' or '.join(_OURS)}: these are set here")
        unknown = self.options.keys() - (known - set(_OURS))
        if unknown:
            raise TypeError(
                f"{type(self.explainer).__name__} has no option {', '.join(sorted(unknown))} to "
                f"choose; its options are {', '.join(sorted(known - {'self', *_OURS}))}"
            )
        if isinstance(self.inner, Saliency) and self.options.get("abs", True):
            raise ValueError(
                "Saliency takes absolute values: those of the parts <g(a), psi_j> of a score are "
                "not parts of anything, and no map sums to it. Signed gradients are "
                "options={'abs': False}"
            )

    def _perturb_tokens(self) -> None:
        """Let tokens or groups be taken away as wholes."""
        name = self.path.name
        if "sliding_window_shapes" in self.known:
            if "sliding_window_shapes" not in self.options:
                if self.path.groups is not None:
                    raise ValueError(
                        f"a sliding window knows no groups_{name}: take FeatureAblation, or choose "
                        "sliding_window_shapes in options"
                    )
                window = _window(self._labels())
                self.options.setdefault("strides", window)
                self.options["sliding_window_shapes"] = window
        elif "feature_mask" in self.known and "feature_mask" not in self.options:
            labels = self._labels()
            # Captum counts from 0, which is what belongs to no token here.
            self.options["feature_mask"] = labels - int(labels.min())

    def _labels(self) -> Tensor:
        """Number of each feature's token or group from 1, 0 for none, shape (1, *F)."""
        path = self.path
        if path.groups is None:
            members = torch.zeros(path.n_outputs, device=path.end.device)
            members[path.live] = torch.arange(1.0, len(path.live) + 1, device=members.device)
        else:
            groups = path.groups[0]
            is_plain = len(path.groups) == 1 and bool(((groups == 0) | (groups == 1)).all())
            if not is_plain or groups.sum(0).max() > 1:
                raise ValueError(
                    f"methods that perturb take groups_{path.name} away: these must be the same in "
                    "all examples, of whole tokens, and share none"
                )
            members = torch.arange(1.0, len(groups) + 1, device=groups.device) @ groups.float()
        labels = path.tower.spread(path.layer, members, path.end.shape)
        # A token's hidden units, or the channels of a pixel, share a weight.
        return labels.expand(path.end.shape[1:]).unsqueeze(0).round().long()


def _window(labels: Tensor) -> tuple[int, ...]:
    """The extent of the first token's features in labels (1, *F)."""
    places = (labels[0] == 1).nonzero()
    extent = places.amax(0) - places.amin(0) + 1
    return tuple(extent.tolist())


def _channels_first(features: Tensor) -> Tensor:
    """Hidden states (B, T, D) as (B, D, T); images have their channels first already."""
    return features.transpose(1, 2) if features.dim() == 3 else features


def _channels_last(features: Tensor) -> Tensor:
    return features.transpose(1, 2) if features.dim() == 3 else features
