"""Pure tensor mathematics: no model, no Captum."""

from captum_interactions.functional.contraction import (
    Decomposition,
    contract,
    contract_all,
    corner_difference,
    decompose,
)
from captum_interactions.functional.factors import Factors
from captum_interactions.functional.games import (
    Design,
    Effects,
    all_coalitions,
    design,
    draw_coalitions,
    effects,
    enough_coalitions,
    pair_effects,
    products,
)
from captum_interactions.functional.integrated import (
    NotTwiceDifferentiableError,
    integrated_jvp,
    integrated_vjp,
)
from captum_interactions.functional.quadrature import METHODS, Quadrature, quadrature

__all__ = [
    "METHODS",
    "Decomposition",
    "Design",
    "Effects",
    "Factors",
    "NotTwiceDifferentiableError",
    "Quadrature",
    "all_coalitions",
    "contract",
    "contract_all",
    "corner_difference",
    "decompose",
    "design",
    "draw_coalitions",
    "effects",
    "enough_coalitions",
    "integrated_jvp",
    "integrated_vjp",
    "pair_effects",
    "products",
    "quadrature",
]
