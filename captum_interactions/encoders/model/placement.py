"""Refuse models that cannot be explained: quantised ones, and those on several devices."""

from __future__ import annotations

from typing import Any

from torch import nn

_QUANTISED = ("bitsandbytes", "torchao", "gptqmodel", "auto_gptq", "awq", "hqq", "quanto", "aqlm")
"""Packages whose layers compute with rounded weights."""


def check_placement(model: Any) -> None:
    """Check that a model is on one device, with differentiable weights.

    Raises:
        TypeError: If it is quantised, offloaded, or split among devices.
    """
    if not isinstance(model, nn.Module):
        return
    name = type(model).__name__
    kinds = {type(part).__module__.partition(".")[0] for part in model.modules()}
    kinds |= {type(p.data).__module__.partition(".")[0] for p in model.parameters()}
    found = sorted(kinds & {*_QUANTISED})
    if found or getattr(model, "is_quantized", False):
        how = f" by {found[0]}" if found else ""
        raise TypeError(
            f"{name} is quantised{how}, and what its layers compute has no second derivative: load "
            "it without a quantization_config, for instance in half precision, "
            "from_pretrained(name, dtype='bfloat16')"
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise TypeError(
            f"{name} has weights on the meta device: load them all first (weights that are "
            "offloaded cannot be explained), from_pretrained(name, device_map=None)"
        )
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    devices = devices if len(devices) > 1 else sorted({*map(str, _device_map(model))})
    if len(devices) > 1:
        raise TypeError(
            f"{name} is split among {', '.join(devices)}, but inputs and states must be on one "
            "device: from_pretrained(name, device_map=None)"
        )


def _device_map(model: nn.Module) -> list[Any]:
    """The devices to which accelerate has dispatched parts of a model."""
    return list(getattr(model, "hf_device_map", {}).values())
