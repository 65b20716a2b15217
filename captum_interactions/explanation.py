"""From raw inputs to an explanation, in one call."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, Literal, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.encoders import Batch, DualEncoderWrapper, Layer
from captum_interactions.encoders.cut import structure
from captum_interactions.encoders.modes import explaining
from captum_interactions.first_order_map import FirstOrderMap
from captum_interactions.functional import Decomposition
from captum_interactions.interaction_map import InteractionMap

_CHECKED: WeakKeyDictionary[DualEncoderWrapper, set[tuple[Any, ...]]] = WeakKeyDictionary()
"""What :func:`_check_score` has seen."""


@overload
def explain(
    wrapper: DualEncoderWrapper,
    a: Any,
    b: Any,
    attribution: Literal["second_order_integrated_gradients"] = ...,
    *,
    truncation: bool = ...,
    **options: Any,
) -> InteractionMap: ...


@overload
def explain(
    wrapper: DualEncoderWrapper,
    a: Any,
    b: Any,
    attribution: str,
    *,
    truncation: bool = ...,
    **options: Any,
) -> InteractionMap | FirstOrderMap: ...


def explain(
    wrapper: DualEncoderWrapper,
    a: Any,
    b: Any,
    attribution: str = "second_order_integrated_gradients",
    *,
    truncation: bool = False,
    **options: Any,
) -> InteractionMap | FirstOrderMap:
    """Explain the score of one pair of raw inputs, by any method that :func:`attributions` lists.

    Args:
        wrapper (DualEncoderWrapper): The model, see :func:`~captum_interactions.wrap`.
        a: The first input: for CLIP a PIL image, a path, a uint8 array, or pixel values of shape
            (1, 3, H, W).
        b: The second input: for CLIP a caption, or token ids (1, T).
        attribution (str): Name of the attribution method. Default:
            ``"second_order_integrated_gradients"``
        truncation (bool): Cut a caption that is longer than the model's context instead of raising
            an error. Default: False
        options: Options of the method: of its constructor (``layers``, ``normalization``) and of
            its ``decompose`` (``n_steps``, ``method``, ``baselines``, ``internal_batch_size``,
            ``show_progress``), or for first-order methods of its ``attribute``. ``n_steps`` is
            ``wrapper.default_n_steps`` by default.

    Returns:
        InteractionMap: score, constant, main effects and interactions, with tokens and words. For a
        first-order method a FirstOrderMap, which has the same views.

    Raises:
        ValueError: If the method is unknown, or an input is empty, too long or not a single one.
        TypeError: If an option or an input is of the wrong kind.
        FileNotFoundError: If an image path does not exist.

    Warns:
        UserWarning: If the convergence delta exceeds a tenth of the score or of the interactions.

    Examples::

        >>> from captum_interactions import explain, load_demo
        >>> wrapper, scenes = load_demo()
        >>> imap = explain(wrapper, scenes[0].image, scenes[0].caption)
        >>> abs(imap.convergence_delta) < 0.01
        True
    """
    if not isinstance(wrapper, DualEncoderWrapper):
        raise TypeError(
            f"explain takes a DualEncoderWrapper, but got {type(wrapper).__name__}: wrap the model "
            "with wrap(model, processor) first"
        )
    if attribution not in ATTRIBUTIONS:
        raise ValueError(
            f"attribution must be one of {', '.join(ATTRIBUTIONS)}, but got {attribution!r}"
        )
    method = ATTRIBUTIONS[attribution]
    run = method.decompose if method.order == 2 else method.attribute
    to_constructor = set(inspect.signature(method).parameters) - {"wrapper"}
    to_call = set(inspect.signature(run).parameters)
    to_call -= {"self", "inputs", "target", "additional_forward_args"}
    unknown = options.keys() - to_constructor - to_call
    if unknown:
        raise TypeError(
            f"{attribution} has no option {', '.join(sorted(unknown))}; its options are "
            f"{', '.join(sorted(to_constructor | to_call))}"
        )
    explainer = method(wrapper, **{k: v for k, v in options.items() if k in to_constructor})

    batch = wrapper.prepare(a, b, truncation=truncation)
    if len(batch.axes_a) != 1:
        raise ValueError(f"explain takes one pair, but got {len(batch.axes_a)}")
    if "n_steps" in to_call:
        options.setdefault("n_steps", wrapper.default_n_steps)
    result = run(
        explainer,
        batch.inputs,
        additional_forward_args=batch.additional_forward_args,
        **{k: v for k, v in options.items() if k in to_call},
    )
    used: dict[str, Any] = {
        k: v for k, v in options.items() if isinstance(v, (str, int, float, bool))
    }
    steps, taken = getattr(explainer, "n_steps_used", None), {}
    if steps is not None:
        taken["n_steps"] = steps[0] if steps[0] == steps[1] else list(steps)
    settings = {"attribution": attribution, **used, **taken, "layers": list(explainer.layers)}
    if method.order == 2:
        return _interaction_map(wrapper, batch, explainer, result, settings)
    return _first_order_map(wrapper, batch, explainer, result, settings)


def _interaction_map(
    wrapper: DualEncoderWrapper,
    batch: Batch,
    explainer: Any,
    parts: Decomposition,
    settings: dict[str, Any],
) -> InteractionMap:
    if getattr(explainer, "normalization", "cosine") != "none":
        _check_score(wrapper, batch, explainer.layers, float(parts.score[0]))
    if explainer.has_convergence_delta():
        _check_delta(parts)
    layer_a, layer_b = explainer.layers
    n_a, n_b = parts.interactions.shape[1:]
    return InteractionMap(
        interactions=parts.interactions[0].float().cpu(),
        main_effects_a=parts.main_effects_a[0].float().cpu(),
        main_effects_b=parts.main_effects_b[0].float().cpu(),
        constant=float(parts.constant[0]),
        score=float(parts.score[0]),
        convergence_delta=float(parts.convergence_delta[0]),
        axis_a=wrapper.tower_a.axis_at(layer_a, batch.axes_a[0], n_a),
        axis_b=wrapper.tower_b.axis_at(layer_b, batch.axes_b[0], n_b),
        settings=settings,
    )


def _first_order_map(
    wrapper: DualEncoderWrapper,
    batch: Batch,
    explainer: Any,
    sides: tuple[Tensor | None, Tensor | None],
    settings: dict[str, Any],
) -> FirstOrderMap:
    with explaining(wrapper), torch.no_grad():
        score = float(wrapper(*batch.inputs, *batch.additional_forward_args))
    values = [None if side is None else side[0].float().cpu() for side in sides]
    towers = (wrapper.tower_a, wrapper.tower_b)
    axes = [
        axis if value is None else tower.axis_at(layer, axis, len(value))
        for tower, layer, axis, value in zip(
            towers, explainer.layers, (batch.axes_a[0], batch.axes_b[0]), values, strict=True
        )
    ]
    return FirstOrderMap(values[0], values[1], score, axes[0], axes[1], settings)


def _check_score(
    wrapper: DualEncoderWrapper, batch: Batch, layers: tuple[Layer, Layer], explained: float
) -> None:
    """The towers are explained in pieces: see that the pieces still make the model's own score.

    That takes a run of the whole model, so it is done once for every shape of inputs, layers and
    set of hooks.
    """
    run = (structure(wrapper), layers, *(tuple(x.shape[1:]) for x in batch.inputs))
    checked = _CHECKED.setdefault(wrapper, set())
    if run in checked:
        return
    with explaining(wrapper), torch.no_grad():
        score = float(wrapper(*batch.inputs, *batch.additional_forward_args))
    half = any(parameter.element_size() < 4 for parameter in wrapper.parameters())
    if not abs(score - explained) <= (0.05 if half else 1e-3):
        raise ValueError(
            f"the wrapper gives the score {score:.4f}, but its towers, entered at their layers, "
            f"make {explained:.4f}: a tower's tail is not the rest of its model, or a hook outside "
            "of the blocks changes what the model does"
        )
    checked.add(run)


def _check_delta(parts: Decomposition) -> None:
    delta, score = float(parts.convergence_delta[0]), float(parts.score[0])
    largest = max(abs(score), abs(float(parts.interactions.sum())))
    if abs(delta) > 0.1 * largest:
        warnings.warn(
            f"the parts miss the score {score:.3f} by {delta:+.3f} (convergence delta): take more "
            "nodes (n_steps) or a later layer",
            stacklevel=4,
        )
