"""Run a model in evaluation mode, and restore its mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from captum_interactions.encoders.model.changes import changed
from captum_interactions.encoders.model.hooks import as_written


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Context manager that puts a model in evaluation mode and enables gradients.

    The mode of every module is restored on exit, also after an error. Gradients are enabled even if
    the caller has disabled them, as Captum's ``NoiseTunnel`` and metrics do.

    The mode of a module is one flag for all threads, so a model in training mode is temporarily in
    evaluation mode for other threads, too. PyTorch runs parts of a model in threads of its own,
    which must see the flag.
    """
    devices = (parameter.device.type for parameter in model.parameters())
    device = next((device for device in devices if device != "meta"), "cpu")
    with as_written(model):  # one thread after the other
        training = [module for module in model.modules() if module.training]

        def set_all(value: bool) -> Callable[[], object]:
            for module in training:
                module.training = value
            return partial(set_all, not value)

        with (
            changed(partial(set_all, False)),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device, enabled=False),
        ):
            yield
