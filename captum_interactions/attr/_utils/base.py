"""The base class of all attribution methods, of first and second order."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from captum.attr import Attribution
from captum.log import log_usage

from captum_interactions.attr._utils.arguments import check_wrapper, resolve_layers
from captum_interactions.attr._utils.docstrings import complete_docstrings
from captum_interactions.encoders import DualEncoderWrapper, Layer


class DualEncoderAttribution(Attribution):
    """Base class of attribution methods for dual encoders.

    A subclass describes only its own arguments: :func:`complete_docstrings` adds those of its base
    classes to its docstrings. Its ``attribute`` is logged as Captum logs its own methods.

    Args:
        wrapper (DualEncoderWrapper): The dual encoder.
        layers (tuple, optional): ``(layer_a, layer_b)``, the layer of each tower to attribute at:
            an int k for the hidden state entering block k (0 is the embedding output, -1 enters the
            last block), or ``"input"`` for the raw tensor. Inputs and baselines are propagated to
            the layer first. Default: None, ``wrapper.default_layers``

    Raises:
        TypeError: If ``wrapper`` is not a DualEncoderWrapper.
        ValueError: If a layer does not exist, or an option is not as described.
    """

    order: ClassVar[Literal[1, 2]]
    """1 for attributions of tokens, 2 for interactions of pairs of tokens."""
    needs: ClassVar[str] = "two encoders"
    """What the wrapper must have."""
    cost: ClassVar[str]
    """The cost of one pair, in encoder passes."""

    def __init__(
        self, wrapper: DualEncoderWrapper, layers: tuple[Layer, Layer] | None = None
    ) -> None:
        check_wrapper(type(self).__name__, wrapper)
        super().__init__(wrapper)
        self.wrapper = wrapper
        layers = self._default_layers(wrapper) if layers is None else layers
        self.layers = resolve_layers(wrapper, layers)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        complete_docstrings(cls, DualEncoderAttribution)
        if "attribute" in vars(cls):
            # NoiseTunnel calls the ``__wrapped__`` that this sets.
            setattr(cls, "attribute", log_usage()(vars(cls)["attribute"]))  # noqa: B010

    def _default_layers(self, wrapper: DualEncoderWrapper) -> tuple[Layer, Layer]:
        """The layers to attribute at if the user names none."""
        return wrapper.default_layers
