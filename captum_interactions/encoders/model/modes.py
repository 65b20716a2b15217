"""Run a model as it is at inference, and put it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from captum_interactions.encoders.model.changes import changed
from captum_interactions.encoders.model.hooks import as_written


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode and allow gradients, whatever holds outside.

    On leaving, also after an error, every module is back in the mode that it was in. Autograd works
    inside although the caller may have switched it off (Captum's ``NoiseTunnel`` and metrics do).

    The mode of a module is one flag for all threads, so a model that is in training mode is in
    evaluation mode for other threads too, meanwhile. PyTorch runs parts of a model in threads of
    its own, which must see it.
    """
    devices = (parameter.device.type for parameter in model.parameters())
    device = next((device for device in devices if device != "meta"), "cpu")
    with as_written(model):  # one thread after the other
        training = [module for module in model.modules() if module.training]

        def set_all(value: bool) -> None:
            for module in training:
                module.training = value

        with (
            changed(partial(set_all, False), partial(set_all, True)),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device, enabled=False),
        ):
            yield
