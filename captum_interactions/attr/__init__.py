"""Attribution methods, each a Captum ``Attribution``, known by a name."""

from __future__ import annotations

from captum_interactions.attr.second_order_integrated_gradients import (
    SecondOrderIntegratedGradients,
)

ATTRIBUTIONS = {"second_order_integrated_gradients": SecondOrderIntegratedGradients}
"""Names by which ``explain`` and the command line know attribution methods."""

__all__ = ["ATTRIBUTIONS", "SecondOrderIntegratedGradients"]
