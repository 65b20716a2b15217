"""Pure tensor mathematics: no model, no Captum."""

from captum_interactions.functional.contraction import (
    Decomposition,
    contract,
    contract_all,
    corner_difference,
    decompose,
)
from captum_interactions.functional.factors import Factors
from captum_interactions.functional.integrated import (
    NotTwiceDifferentiableError,
    integrated_jvp,
    integrated_vjp,
)
from captum_interactions.functional.quadrature import METHODS, Quadrature, quadrature

__all__ = [
    "METHODS",
    "Decomposition",
    "Factors",
    "NotTwiceDifferentiableError",
    "Quadrature",
    "contract",
    "contract_all",
    "corner_difference",
    "decompose",
    "integrated_jvp",
    "integrated_vjp",
    "quadrature",
]
