"""What factors depend on besides their input: model, layers and options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from reprlib import repr as shortened
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from captum_interactions.attr._utils.arguments import Baseline, Normalization
from captum_interactions.encoders import DualEncoderWrapper, Layer
from captum_interactions.functional.quadrature import METHODS

_PARTS = ("image_processor", "feature_extractor", "config")
"""Attributes of a tower that describe its model and the preparation of its inputs."""


@dataclass(frozen=True)
class Settings:
    """How the factors of one side were computed, in plain values."""

    side: Literal["a", "b"]
    """Which tower: ``"a"`` is the first."""
    layers: tuple[Layer, Layer]
    """Layers of both towers, counted from the front."""
    normalization: Normalization
    n_steps: int | Literal["auto"]
    method: str
    """Quadrature rule."""
    baseline: Any
    """None for the wrapper's own baseline, a number, the hash of a tensor, or a list of these."""
    truncation: bool
    """Whether texts that are too long were cut."""
    model: dict[str, str]
    """The result of :func:`model_identity`."""

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        fields_: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields_

    @classmethod
    def from_json(cls, values: Any) -> Settings:
        """Settings from the result of :meth:`to_json`.

        Raises:
            ValueError: If the value is invalid; the message names the field.
        """
        if not isinstance(values, dict) or values.keys() != _VALID.keys():
            came = sorted(values) if isinstance(values, dict) else values
            raise ValueError(f"settings must be {', '.join(_VALID)}, but are {shortened(came)}")
        for name, is_valid in _VALID.items():
            if not is_valid(values[name]):
                raise ValueError(f"settings: {name} cannot be {shortened(values[name])}")
        return cls(**{**values, "layers": tuple(values["layers"])})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_VALID: dict[str, Callable[[Any], bool]] = {
    "side": lambda value: value in ("a", "b"),
    "layers": lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and all(layer == "input" or _is_count(layer) for layer in value)
    ),
    "normalization": lambda value: value in get_args(Normalization),
    "n_steps": lambda value: value == "auto" or (_is_count(value) and value > 0),
    "method": lambda value: value in METHODS,
    "baseline": lambda _: True,
    "truncation": lambda value: isinstance(value, bool),
    "model": lambda value: (
        isinstance(value, dict)
        and value.keys() == {"name", "weights", "configuration"}
        and all(isinstance(one, str) for one in value.values())
    ),
}
"""Checks of the fields of settings, as JSON values."""


def model_identity(wrapper: DualEncoderWrapper) -> dict[str, str]:
    """Name and SHA-256 hashes of a model, to check that factors come from the same model.

    Returns:
        dict: ``name``, for readers; ``weights``, the hash of all parameters and buffers with their
        names, types and shapes; ``configuration``, the hash of the configurations and vocabularies
        of model and processors and of the plain attributes of the towers. Paths, versions of
        libraries and the device have no effect. Functions without weights have the same hashes.
    """
    weights, configuration = hashlib.sha256(), hashlib.sha256()
    with torch.no_grad():
        for name, tensor in _tensors(wrapper):
            weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            weights.update(tensor_bytes(tensor))
    towers = (wrapper.tower_a, wrapper.tower_b)
    described = [_description(tower) for tower in towers]
    configuration.update(json.dumps(described, sort_keys=True, default=str).encode())
    models = [type(getattr(tower, "model", tower)).__name__ for tower in towers]
    return {
        "name": " and ".join(dict.fromkeys(models)),
        "weights": weights.hexdigest(),
        "configuration": configuration.hexdigest(),
    }


def baseline_identity(baseline: Baseline) -> Any:
    """A baseline in plain values: a tensor becomes its shape and hash."""
    if isinstance(baseline, list):
        return [baseline_identity(one) for one in baseline]
    if isinstance(baseline, Tensor):
        digest = hashlib.sha256(tensor_bytes(baseline)).hexdigest()
        return {"shape": list(baseline.shape), "sha256": digest}
    return baseline


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, without a copy if it is contiguous and on the CPU."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data


def differences(
    first: Settings, second: Settings, names: tuple[str, ...] | None = None
) -> list[str]:
    """What differs between two settings, in words; all fields by default."""
    found = []
    for name in names or tuple(field.name for field in fields(Settings)):
        one, other = getattr(first, name), getattr(second, name)
        if name == "model":
            changed = [key for key in one if one[key] != other.get(key)]
            found += [f"model {key} ({_short(one[key])}, {_short(other[key])})" for key in changed]
        elif one != other:
            found.append(f"{name} ({one!r}, {other!r})")
    return found


def check_compatible(a: Settings, b: Settings) -> None:
    """Check that the factors of two inputs, one of each side, can be combined.

    Raises:
        ValueError: If they are not of the sides a and b, or of different models, layers or
            normalizations; the message says what differs.
    """
    if (a.side, b.side) != ("a", "b"):
        raise ValueError(f"a map needs factors of sides a and b, but got {a.side} and {b.side}")
    found = differences(a, b, ("model", "layers", "normalization"))
    if found:
        raise ValueError(f"these factors make no maps with each other: {', '.join(found)} differ")


def _tensors(wrapper: DualEncoderWrapper) -> Iterator[tuple[str, Tensor]]:
    """All weights, each once, even if both towers share a model."""
    yield from wrapper.named_parameters()
    yield from wrapper.named_buffers()


def _description(tower: Any) -> list[Any]:
    plain = {
        name: value
        for name, value in vars(tower).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }
    plain["context_length"] = getattr(tower, "context_length", None)
    plain["pool"] = getattr(getattr(tower, "pool", None), "module", None)
    inner: Any = getattr(tower, "encoder", None)  # of a tower around another one
    if inner is not None:
        return [type(tower).__name__, plain, _description(inner)]
    model: Any = getattr(tower, "model", None)
    holders: list[Any] = [getattr(owner, name, None) for owner in (tower, model) for name in _PARTS]
    known = [_plain(holder.to_dict()) for holder in holders if hasattr(holder, "to_dict")]
    tokenizer: Any = getattr(tower, "tokenizer", None)
    vocabulary = sorted(tokenizer.get_vocab().items()) if hasattr(tokenizer, "get_vocab") else None
    return [type(tower).__name__, plain, known, vocabulary]


def _is_plain(value: Any) -> bool:
    """Whether a value is the same in every process, as functions are not."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _plain(value: Any) -> Any:
    """A configuration without paths and versions, which change nothing."""
    if isinstance(value, dict):
        dropped = ("transformers_version", "name_or_path")
        kept = {str(key): _plain(item) for key, item in value.items()}
        return {k: v for k, v in kept.items() if not k.startswith("_") and k not in dropped}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _short(text: str) -> str:
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] + "…" if is_digest else text
