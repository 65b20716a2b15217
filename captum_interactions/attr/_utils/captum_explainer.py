"""An explainer of Captum, or a function of the user, run on one side of a batch of pairs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from captum.attr import (
    Attribution,
    DeepLiftShap,
    GradientShap,
    LayerAttribution,
    LayerGradCam,
    PerturbationAttribution,
    Saliency,
)
from torch import Tensor, nn

from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders.towers.base import take_rows

Explainer = Callable[..., Any]
"""A class of Captum, a function from a module to an ``Attribution`` of it, or a function
``(forward_func, inputs, baselines, additional_forward_args, **options)`` to attributions."""

_SET_HERE = ("inputs", "baselines", "target", "additional_forward_args", "return_convergence_delta")


class FunctionAttribution(Attribution):
    """A user's attribution function as an ``Attribution`` of Captum.

    Args:
        function (Callable): See :data:`Explainer`.
        forward_func (Callable): What is explained.
    """

    def __init__(self, function: Callable[..., Tensor], forward_func: Callable[..., Tensor]):
        super().__init__(forward_func)
        self.function = function

    def attribute(
        self, inputs: Tensor, baselines: Tensor, additional_forward_args: Any, **options: Any
    ) -> Tensor:
        """What the function returns, which must have the shape of the inputs."""
        found = self.function(
            self.forward_func, inputs, baselines, additional_forward_args, **options
        )
        if not isinstance(found, Tensor) or found.shape != inputs.shape:
            came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                "an attribution function must return a tensor of the shape of its inputs, "
                f"{tuple(inputs.shape)}, but returned {came}"
            )
        return found


def is_attribution_function(explainer: Any) -> bool:
    """Whether an explainer is the user's own attribution function, which takes the inputs too."""
    if isinstance(explainer, type):
        return False
    parameters = inspect.signature(explainer).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters) > 1


class ScalarScore(nn.Module):
    """What the explainer explains: ``features, cotangent, *context -> <embedding, cotangent>``.

    Rows may be copies of the same examples for several cotangents. They share one evaluation if no
    gradient is taken.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tower = path.tower  # so that explainers find its modules
        self.features = nn.Identity()
        self.n_copies = 1
        self._function = path.function
        self._n_examples = len(path.features)

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


class ExplainerCall:
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
        self.score = ScalarScore(path)
        own = is_attribution_function(explainer)
        explained: Any = partial(FunctionAttribution, explainer) if own else explainer
        is_layer = isinstance(explainer, type) and issubclass(explainer, LayerAttribution)
        self.explainer = explained(self.score, *([self.score.features] if is_layer else []))
        # What NoiseTunnel passes its options on to.
        inner = getattr(self.explainer, "attribution_method", self.explainer)
        if not isinstance(inner, Attribution):
            raise TypeError(
                f"explainer must give an Attribution of Captum, but gave {type(inner).__name__}"
            )
        self.inner = inner
        self.options = dict(options or {})
        if own:
            name, (_, _, _, _, *further) = (
                explainer.__name__,
                inspect.signature(explainer).parameters,
            )
            self.known = outer = {"baselines", *further}
        else:
            name = type(self.explainer).__name__
            self.known = {*inspect.signature(inner.attribute).parameters} - {"kwargs"}
            outer = {*inspect.signature(self.explainer.attribute).parameters}
        self._check_options(name, self.known | outer)
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
        features = self.path.features
        baselines = [baseline.expand(features.shape) for baseline in self.path.baselines]
        if isinstance(self.inner, (GradientShap, DeepLiftShap)):
            # They draw a baseline for every row from all that they get, so examples run alone.
            parts = [
                self._run(cotangents, slice(row, row + 1), torch.stack([b[row] for b in baselines]))
                for row in range(len(features))
            ]
            return torch.cat(parts, 1)
        if "baselines" not in self.known:
            baselines = baselines[:1]
        copies = (len(cotangents), *[1] * (features.dim() - 1))
        parts = [self._run(cotangents, slice(None), one.repeat(copies)) for one in baselines]
        return torch.stack(parts).mean(0)

    def _run(self, cotangents: Tensor, rows: slice, baselines: Tensor) -> Tensor:
        """Attributions (C, R, G) of some examples."""
        own = cotangents[:, rows]
        n_copies, n_examples = own.shape[:2]
        self.score.n_copies = n_copies

        device = self.path.features.device
        every = torch.arange(len(self.path.features), device=device)[rows].repeat(n_copies)
        features = self.path.features[every]
        if not isinstance(self.inner, PerturbationAttribution):
            features.requires_grad_()
        if "baselines" in self.known:
            self.options["baselines"] = baselines
        attributions = self.explainer.attribute(
            features,
            additional_forward_args=(own.flatten(0, 1), *take_rows(self.path.context, every)),
            **self.options,
        )
        if isinstance(self.inner, LayerAttribution):
            attributions = _channels_last(attributions)
        attributions = attributions.detach().unflatten(0, (n_copies, n_examples))
        folded = torch.stack([self.path.fold(copy, rows) for copy in attributions])
        if isinstance(self.inner, LayerGradCam):
            # Captum averages gradients over padding too, where they are zero.
            mask = self.path.token_mask[rows]
            folded = folded * (mask.shape[1] / mask.sum(1, keepdim=True))
        if not isinstance(self.inner, PerturbationAttribution):
            return folded
        # Each feature of a token has the whole token's attribution.
        sizes = self.path.fold(torch.ones_like(attributions[0]), rows)
        return torch.where(sizes > 0, folded / sizes.clamp_min(1e-9), torch.zeros_like(folded))

    def _check_options(self, name: str, known: set[str]) -> None:
        if "return_convergence_delta" in self.options or "inputs" in self.options:
            raise TypeError(f"options must not hold {' or '.join(_SET_HERE)}: these are set here")
        unknown = self.options.keys() - (known - set(_SET_HERE))
        if unknown:
            raise TypeError(
                f"{name} has no option {', '.join(sorted(unknown))} to choose; its options are "
                f"{', '.join(sorted(known - {'self', *_SET_HERE})) or 'none'}"
            )
        if isinstance(self.inner, Saliency) and self.options.get("abs", True):
            raise ValueError(
                "Saliency takes absolute values, and the absolute values of the parts "
                "<g(a), psi_j> of a score do not add up to anything. Signed gradients are "
                "options={'abs': False}"
            )

    def _perturb_tokens(self) -> None:
        """Make the explainer perturb whole tokens or groups."""
        name = self.path.name
        if "sliding_window_shapes" in self.known:
            if "sliding_window_shapes" not in self.options:
                if self.path.groups is not None:
                    raise ValueError(
                        f"a sliding window has no groups_{name}: take FeatureAblation, or choose "
                        "sliding_window_shapes in options"
                    )
                window = _window(self._labels())
                self.options.setdefault("strides", window)
                self.options["sliding_window_shapes"] = window
        elif "feature_mask" in self.known and "feature_mask" not in self.options:
            labels = self._labels()
            # Captum counts from 0, which stands for no token here.
            self.options["feature_mask"] = labels - int(labels.min())

    def _labels(self) -> Tensor:
        """Number of each feature's token or group from 1, 0 for none, shape (1, *F)."""
        path = self.path
        if path.groups is None:
            members = torch.zeros(path.n_outputs, device=path.features.device)
            indices = path.unmasked
            members[indices] = torch.arange(1.0, len(indices) + 1, device=members.device)
        else:
            groups = path.groups[0]
            is_plain = len(path.groups) == 1 and bool(((groups == 0) | (groups == 1)).all())
            if not is_plain or groups.sum(0).max() > 1:
                raise ValueError(
                    f"for methods that perturb, groups_{path.name} must be the same in all "
                    "examples, of whole tokens, and share none"
                )
            members = torch.arange(1.0, len(groups) + 1, device=groups.device) @ groups.float()
        labels = path.tower.spread(path.layer, members, path.features.shape)
        # A token's hidden units, or the channels of a pixel, share a weight.
        return labels.expand(path.features.shape[1:]).unsqueeze(0).round().long()


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
