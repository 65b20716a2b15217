"""Explain pairs of raw inputs in one call."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from captum_interactions.attr import ATTRIBUTIONS
from captum_interactions.axes import TextAxis
from captum_interactions.encoders import Batch, DualEncoderWrapper, Layer
from captum_interactions.encoders.model.hooks import as_written, structure
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.functional import Decomposition
from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.user_warnings import warn_caller

_CHECKED: WeakKeyDictionary[DualEncoderWrapper, set[tuple[Any, ...]]] = WeakKeyDictionary()
"""Configurations for which :func:`_check_scores` has passed."""


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
    """Explain the score of one pair of raw inputs, by a method of :func:`attributions`.

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
        UserWarning: If the convergence delta exceeds a tenth of the score or of the interactions,
            or the values of words and patches are no larger than rounding errors.

    Examples::

        >>> from captum_interactions import explain, load_demo
        >>> wrapper, scenes = load_demo()
        >>> imap = explain(wrapper, scenes[0].image, scenes[0].caption)
        >>> abs(imap.convergence_delta) < 0.01
        True
    """
    (result,) = explain_batch(wrapper, [a], [b], attribution, truncation=truncation, **options)
    return result


def explain_batch(
    wrapper: DualEncoderWrapper,
    a: Sequence[Any],
    b: Sequence[Any],
    attribution: str = "second_order_integrated_gradients",
    *,
    truncation: bool = False,
    spans: Sequence[Sequence[tuple[int, int]]] | None = None,
    **options: Any,
) -> list[InteractionMap | FirstOrderMap]:
    """Explain the scores of aligned pairs of raw inputs: ``a[0]`` with ``b[0]``, and so on.

    The maps are those of :func:`explain` up to rounding. Pairs with inputs of the same shapes, such
    as images with captions of equal length, are evaluated together; no caption is padded.

    Args:
        wrapper (DualEncoderWrapper): The model.
        a (sequence): First inputs, each as :func:`explain` takes it.
        b (sequence): As many second inputs.
        attribution (str): Name of the attribution method. Default:
            ``"second_order_integrated_gradients"``
        truncation (bool): Cut captions that are longer than the model's context. Default: False
        spans (sequence, optional): The character ranges of each text b whose values are needed.
            A method whose ``decompose`` takes ``groups_b`` then merges tokens that no span
            distinguishes, see :meth:`TextAxis.merged`: the values of the ranges are the same, at
            the cost of fewer tokens. Other methods ignore them. Default: None, no merging
        options: Options of the method, the same for all pairs. Tensors of baselines have one row.

    Returns:
        list: one InteractionMap per pair, or one FirstOrderMap for a first-order method.

    Raises:
        ValueError: If the numbers of inputs or of spans differ, and in the cases of
            :func:`explain`.
        TypeError: If ``a`` or ``b`` is not a sequence, and in the cases of :func:`explain`.

    Examples::

        >>> from captum_interactions import explain_batch, load_demo
        >>> wrapper, scenes = load_demo()
        >>> images, captions = zip(*[(scene.image, scene.caption) for scene in scenes[:3]])
        >>> maps = explain_batch(wrapper, images, captions, "grad_eclip")
        >>> [f"{one.score:.2f}" for one in maps]
        ['0.66', '0.76', '0.26']
    """
    if not isinstance(wrapper, DualEncoderWrapper):
        raise TypeError(
            f"explain takes a DualEncoderWrapper, but got {type(wrapper).__name__}: wrap the model "
            "with wrap(model, processor) first"
        )
    for name, inputs in (("a", a), ("b", b)):
        if not isinstance(inputs, Sequence) or isinstance(inputs, (str, bytes)):
            raise TypeError(
                f"explain_batch takes a list of inputs {name}, but got {type(inputs).__name__}: "
                "explain takes single ones"
            )
    if len(a) != len(b):
        raise ValueError(
            f"explain_batch takes aligned pairs, but got {len(a)} inputs a and {len(b)} inputs b"
        )
    if spans is not None and len(spans) != len(b):
        raise ValueError(
            f"spans must be one sequence of ranges per pair, but got {len(spans)} of them for "
            f"{len(b)} pairs"
        )
    method, to_constructor, to_call = _divided(attribution, options, wrapper)
    explainer = method(wrapper, **to_constructor)
    run = explainer.decompose if method.order == 2 else explainer.attribute
    pairs = [_prepared(wrapper, *pair, truncation=truncation) for pair in zip(a, b, strict=True)]
    parameters = inspect.signature(run).parameters
    if "n_steps" in parameters:
        to_call.setdefault("n_steps", wrapper.default_n_steps)
    groups: list[Tensor | None] = [None] * len(pairs)
    if spans is not None and "groups_b" in parameters:
        merged = [_merged(pair, own) for pair, own in zip(pairs, spans, strict=True)]
        pairs, groups = [pair for pair, _ in merged], [weights for _, weights in merged]
    if to_call.get("n_steps") == "auto":
        # Recorded, because the number of steps does not tell that it was chosen automatically.
        to_call.setdefault("tolerance", parameters["tolerance"].default)
    given = {**to_constructor, **to_call}
    used = {k: v for k, v in given.items() if isinstance(v, (str, int, float, bool))}

    alike: dict[Any, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        n_groups = None if (weights := groups[index]) is None else len(weights)
        key = (*_shapes(pair), n_groups)
        alike[key].append(index)
    maps: dict[int, InteractionMap | FirstOrderMap] = {}
    to_maps: Callable[..., list[Any]] = (
        _interaction_maps if method.order == 2 else _first_order_maps
    )
    model = wrapper.model_name
    for indices in alike.values():
        batch = _joined([pairs[index] for index in indices])
        words = [own for index in indices if (own := groups[index]) is not None]
        more = {"groups_b": torch.stack(words)} if words else {}
        extras = batch.additional_forward_args
        result = run(batch.inputs, additional_forward_args=extras, **to_call, **more)
        settings = {"attribution": attribution, "model": model, **used, **_nodes(explainer)}
        settings["layers"] = list(explainer.layers)
        each = [{**settings, **notes} for notes in batch.notes or [{}] * len(indices)]
        found = to_maps(wrapper, batch, explainer, result, each)
        maps.update(zip(indices, found, strict=True))
    for one in maps.values():
        if one.at_rounding:
            warn_caller(
                f"{attribution}: {' and '.join(one.at_rounding)} no larger than rounding errors "
                f"(up to {one.rounding:.0e}): they carry no information; take another "
                "layer or method"
            )
    return [maps[index] for index in range(len(pairs))]


def check_options(attribution: str, options: Mapping[str, Any]) -> None:
    """Check that a method and its options exist; this needs no model.

    Raises:
        ValueError: If the method is unknown.
        TypeError: If it has no such option.
    """
    _divided(attribution, options)


def is_complete(wrapper: DualEncoderWrapper, attribution: str, options: Mapping[str, Any]) -> bool:
    """Whether the parts of a method should sum to the score.

    Only then is a map's ``convergence_delta`` an error.
    """
    method, to_constructor, _ = _divided(attribution, options, wrapper)
    return method.order == 2 and bool(method(wrapper, **to_constructor).has_convergence_delta())


class _Divided(NamedTuple):
    method: Any
    to_constructor: dict[str, Any]
    to_call: dict[str, Any]


def _divided(
    attribution: str, options: Mapping[str, Any], wrapper: DualEncoderWrapper | None = None
) -> _Divided:
    """The method, with the options of its constructor and of its call."""
    if attribution not in ATTRIBUTIONS:
        raise ValueError(
            f"attribution must be one of {', '.join(ATTRIBUTIONS)}, but got {attribution!r}"
        )
    method = ATTRIBUTIONS[attribution]
    run = method.decompose if method.order == 2 else method.attribute
    to_constructor = set(inspect.signature(method).parameters) - {"wrapper"}
    to_call = set(inspect.signature(run).parameters)
    to_call -= {"self", "inputs", "target", "additional_forward_args", "groups_a", "groups_b"}
    unknown = options.keys() - to_constructor - to_call
    if unknown:
        raise TypeError(
            f"{attribution} has no option {', '.join(sorted(unknown))}; its options are "
            f"{', '.join(sorted(to_constructor | to_call))}"
        )
    own = "cosine" if wrapper is None else wrapper.normalizations[0]
    if own != "cosine" and "normalization" in to_constructor:
        options = {"normalization": own, **options}
    return _Divided(
        method,
        {k: v for k, v in options.items() if k in to_constructor},
        {k: v for k, v in options.items() if k in to_call},
    )


def _nodes(explainer: Any) -> dict[str, Any]:
    """The numbers of nodes of both sides, if the method chose them."""
    steps = getattr(explainer, "n_steps_used", None)
    if steps is None:
        return {}
    return {"n_steps": steps[0] if steps[0] == steps[1] else list(steps)}


def _prepared(wrapper: DualEncoderWrapper, a: Any, b: Any, *, truncation: bool) -> Batch:
    batch = wrapper.prepare(a, b, truncation=truncation)
    if len(batch.axes_a) != 1:
        raise ValueError(f"explain takes one pair, but got {len(batch.axes_a)}")
    return batch


def _merged(pair: Batch, spans: Sequence[tuple[int, int]]) -> tuple[Batch, Tensor | None]:
    """A pair with the merged tokens of its text, and the weights of their groups."""
    (axis,) = pair.axes_b
    if not isinstance(axis, TextAxis):
        return pair, None
    weights, merged = axis.merged(spans)
    return pair._replace(axes_b=(merged,)), torch.from_numpy(weights)


def _shapes(pair: Batch) -> tuple[Any, ...]:
    """The shapes that pairs evaluated together have in common."""
    tensors = (*pair.inputs, *pair.additional_forward_args)
    return tuple(None if x is None else (tuple(x.shape), x.dtype) for x in tensors)


def _joined(pairs: Sequence[Batch]) -> Batch:
    """Prepared pairs of the same shapes as one batch."""
    return Batch(
        (
            torch.cat([pair.inputs[0] for pair in pairs]),
            torch.cat([pair.inputs[1] for pair in pairs]),
        ),
        tuple(
            None if extras[0] is None else torch.cat(extras)
            for extras in zip(*[pair.additional_forward_args for pair in pairs], strict=True)
        ),
        tuple(axis for pair in pairs for axis in pair.axes_a),
        tuple(axis for pair in pairs for axis in pair.axes_b),
        tuple(notes for pair in pairs for notes in pair.notes),
    )


def _interaction_maps(
    wrapper: DualEncoderWrapper,
    batch: Batch,
    explainer: Any,
    parts: Decomposition,
    settings: list[dict[str, Any]],
) -> list[InteractionMap]:
    own = wrapper.normalizations[0]
    if getattr(explainer, "normalization", own) in (own, "frozen"):
        _check_scores(wrapper, batch, explainer.layers, parts.score)
    if explainer.has_convergence_delta():
        _check_deltas(parts)
    layer_a, layer_b = explainer.layers
    n_a, n_b = parts.interactions.shape[1:]
    return [
        InteractionMap(
            interactions=parts.interactions[row].float().cpu(),
            main_effects_a=parts.main_effects_a[row].float().cpu(),
            main_effects_b=parts.main_effects_b[row].float().cpu(),
            constant=float(parts.constant[row]),
            score=float(parts.score[row]),
            convergence_delta=float(parts.convergence_delta[row]),
            axis_a=wrapper.tower_a.axis_at(layer_a, axis_a, n_a),
            axis_b=wrapper.tower_b.axis_at(layer_b, axis_b, n_b),
            settings=settings[row],
        )
        for row, (axis_a, axis_b) in enumerate(zip(batch.axes_a, batch.axes_b, strict=True))
    ]


def _first_order_maps(
    wrapper: DualEncoderWrapper,
    batch: Batch,
    explainer: Any,
    sides: tuple[Tensor | None, Tensor | None],
    settings: list[dict[str, Any]],
) -> list[FirstOrderMap]:
    scores = _scores(wrapper, batch)
    towers = (wrapper.tower_a, wrapper.tower_b)
    maps = []
    for row, axes in enumerate(zip(batch.axes_a, batch.axes_b, strict=True)):
        values = [None if side is None else side[row].float().cpu() for side in sides]
        axis_a, axis_b = (
            axis if value is None else tower.axis_at(layer, axis, len(value))
            for tower, layer, axis, value in zip(
                towers, explainer.layers, axes, values, strict=True
            )
        )
        score = float(scores[row])
        maps.append(FirstOrderMap(values[0], values[1], score, axis_a, axis_b, settings[row]))
    return maps


def _scores(wrapper: DualEncoderWrapper, batch: Batch) -> Tensor:
    with explaining(wrapper), torch.no_grad():
        scores: Tensor = wrapper(*batch.inputs, *batch.additional_forward_args)
    return scores


def _check_scores(
    wrapper: DualEncoderWrapper, batch: Batch, layers: tuple[Layer, Layer], explained: Tensor
) -> None:
    """Check that the parts of the towers compose to the model's own scores.

    This needs a run of the whole model, so it is done once for each combination of input shapes,
    layers and hooks.
    """
    with as_written(wrapper):  # ignores hooks of explanations in other threads
        run = (structure(wrapper), layers, *(tuple(x.shape[1:]) for x in batch.inputs))
    checked = _CHECKED.setdefault(wrapper, set())
    if run in checked:
        return
    half = any(parameter.element_size() < 4 for parameter in wrapper.parameters())
    scores = _scores(wrapper, batch)
    for score, made in zip(scores.tolist(), explained.tolist(), strict=True):
        if not abs(score - made) <= (0.05 if half else 1e-3) * max(1.0, abs(score)):
            raise ValueError(
                f"the score of the model is {score:.4f}, but {made:.4f} if its towers start at the "
                "layers: a tower's tail is not the rest of its model, or a hook outside of the "
                "blocks changes the output"
            )
    checked.add(run)


def _check_deltas(parts: Decomposition) -> None:
    sums = parts.interactions.flatten(1).sum(1)
    rows = (parts.convergence_delta, parts.score, sums)
    for delta, score, total in zip(*(row.tolist() for row in rows), strict=True):
        if abs(delta) > 0.1 * max(abs(score), abs(total)):
            warn_caller(
                f"attributions sum to {score + delta:.3f} instead of the score {score:.3f} "
                f"(convergence delta {delta:+.3f}); increase n_steps or take a later layer"
            )
