"""Run a model as it is at inference, and put it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from captum_interactions.encoders.model.hooks import as_written


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode and allow gradients, whatever holds outside.

    On leaving, also after an error, every module is back in the mode that it was in. Autograd works
    inside although the caller may have switched it off (Captum's ``NoiseTunnel`` and metrics do).
    """
    devices = (parameter.device.type for parameter in model.parameters())
    device = next((device for device in devices if device != "meta"), "cpu")
    with as_written(model):  # one thread after the other
        training = [module for module in model.modules() if module.training]
        try:
            for module in training:
                module.training = False
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                torch.autocast(device, enabled=False),
            ):
                yield
        finally:
            for module in training:
                module.training = True
