"""Convert maps and games to ``shapiq.InteractionValues``, and back.

Players are the parts of a, followed by the parts of b.
"""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import shapiq

    from captum_interactions.axes import TokenAxis

_ADDITIVE = ("k-SII", "STII", "FSII", "FBII", "Moebius")
"""Indices whose values sum to the game if it has second order."""
_SHARED = ("SII", "BII", "kADD-SHAP")
"""Indices whose values of single players include half of each of their interactions."""
_ROUNDING = 1e-9
"""Values of higher order below this fraction of the largest value are rounding errors."""


class Parts(NamedTuple):
    """Constant, main effects and interactions of two inputs."""

    constant: float
    main_effects_a: Tensor
    """shape (na,)."""
    main_effects_b: Tensor
    """shape (nb,)."""
    interactions: Tensor
    """shape (na, nb)."""


def interaction_values(
    index: str,
    empty: float,
    singles: Tensor,
    pairs: Tensor,
    *,
    baseline: float | None = None,
    budget: int | None = None,
    estimated: bool = True,
) -> shapiq.InteractionValues:
    """Values of second order as ``shapiq.InteractionValues``.

    Args:
        index (str): shapiq's name of the index.
        empty (float): The value of the empty set.
        singles (Tensor): Values of n players, shape (n,).
        pairs (Tensor): Values of pairs of players, shape (n, n); the part above the diagonal is
            used. Zeros are left out, which is equivalent in shapiq.
        baseline (float, optional): The value of the game without players. Default: ``empty``
        budget (int, optional): Number of evaluations of the game.
        estimated (bool): Whether values have sampling errors. Default: True

    Raises:
        ImportError: If shapiq is not installed.
    """
    package = _shapiq()
    values: dict[tuple[int, ...], float] = {(): empty}
    values |= {(i,): value for i, value in enumerate(singles.tolist())}
    rows, columns = pairs.triu(1).nonzero(as_tuple=True)
    chosen = pairs[rows, columns].tolist()
    values |= dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), chosen, strict=True))
    with warnings.catch_warnings():
        # shapiq warns of an index that it does not compute itself.
        warnings.filterwarnings("ignore", ".*is not a valid interaction index", UserWarning)
        found: shapiq.InteractionValues = package.InteractionValues(
            values,
            index=index,
            min_order=0,
            max_order=2,
            n_players=len(singles),
            estimated=estimated,
            estimation_budget=budget,
            baseline_value=empty if baseline is None else baseline,
        )
    found.interactions[()] = empty
    return found


def map_values(
    parts: Parts, axis_a: TokenAxis, axis_b: TokenAxis, *, units: bool
) -> shapiq.InteractionValues:
    """Implements :meth:`~captum_interactions.InteractionMap.to_shapiq`."""
    main_a, main_b, across = (part.double().numpy() for part in parts[1:])
    constant = parts.constant
    if units:
        # Tokens of no unit are always present: they add to the players that they interact with.
        main_a = axis_a.sum_units(main_a, rest=True)
        main_b = axis_b.sum_units(main_b, rest=True)
        across = axis_b.sum_units(axis_a.sum_units(across.T, rest=True).T, rest=True)
        constant += float(main_a[-1] + main_b[-1] + across[-1, -1])
        main_a, main_b = main_a[:-1] + across[:-1, -1], main_b[:-1] + across[-1, :-1]
        across = across[:-1, :-1]
    singles = torch.from_numpy(np.concatenate([main_a, main_b]))
    pairs = singles.new_zeros(len(singles), len(singles))
    pairs[: len(main_a), len(main_a) :] = torch.from_numpy(across)
    return interaction_values("Moebius", constant, singles, pairs)


def parts(values: shapiq.InteractionValues, n_a: int, n_b: int) -> Parts:
    """Constant, main effects and interactions of two inputs, from values of all players.

    If the game has second order, the parts are exact for every index. Maps have no interactions
    within an input: half of each is added to the main effects of its two players, so the sum does
    not change.

    For the indices ``SII``, ``BII`` and ``kADD-SHAP``, the value of a single player includes half
    of its interactions, which is subtracted. For ``BII``, the value of the empty set is the mean of
    the game, and is converted to the value of the empty coalition.

    Args:
        values (shapiq.InteractionValues): Values of order 2 at most, of one of the indices above,
            or ``k-SII``, ``STII``, ``FSII``, ``FBII`` or ``Moebius``.
        n_a, n_b (int): Numbers of players of a and of b.

    Raises:
        TypeError: If ``values`` are not InteractionValues.
        ValueError: If the number of players differs, values have a higher order, or the index is
            not supported.
    """
    if not isinstance(values, _shapiq().InteractionValues):
        raise TypeError(f"expected shapiq.InteractionValues, but got {type(values).__name__}")
    n_players = n_a + n_b
    if values.n_players != n_players:
        raise ValueError(
            f"the inputs have {n_a} + {n_b} parts, but the values are of {values.n_players} players"
        )
    if values.index not in _ADDITIVE + _SHARED:
        known = ", ".join(_ADDITIVE + _SHARED)
        raise ValueError(
            f"index must be one of {known}, whose values of first and second order determine a "
            f"game of second order, but the values are of {values.index!r}"
        )
    known_values = dict(values.interactions)
    tolerance = _ROUNDING * max(map(abs, known_values.values()), default=0.0)
    order = max((len(p) for p, value in known_values.items() if abs(value) > tolerance), default=0)
    if order > 2:
        raise ValueError(
            f"a map holds interactions of two parts, but the values have order {order}"
        )
    singles = torch.tensor([known_values.get((i,), 0.0) for i in range(n_players)]).double()
    pairs = torch.zeros(n_players, n_players, dtype=torch.float64)
    for i, j in combinations(range(n_players), 2):
        pairs[i, j] = pairs[j, i] = known_values.get((i, j), 0.0)
    constant = float(known_values.get((), values.baseline_value))
    if values.index == "BII":
        # A player is present in half of all coalitions, and a pair in a quarter of them.
        constant -= float(singles.sum() / 2 - pairs.sum() / 8)
    elif values.index in _SHARED:
        constant = float(values.baseline_value)
    if values.index in _SHARED:
        singles = singles - pairs.sum(1) / 2
    within = torch.cat([pairs[:n_a, :n_a].sum(1), pairs[n_a:, n_a:].sum(1)])
    main = singles + within / 2
    across = pairs[:n_a, n_a:]
    return Parts(constant, main[:n_a].float(), main[n_a:].float(), across.float())


def axis_of_units(axis: TokenAxis) -> TokenAxis:
    """An axis each of whose tokens is one of the units of another: a word, a patch, a cell."""
    units = axis.units
    none = (False,) * len(units)
    labels = tuple(unit.label for unit in units)
    changes: dict[str, Any] = {"labels": labels, "special": none, "padding": none}
    for field in fields(axis):
        values = getattr(axis, field.name)
        # One value per token: that of a unit's only token. Words have spans of their own.
        if field.name in ("spans", "times", "bands"):
            changes[field.name] = tuple(values[unit.tokens[0]] for unit in units)
    words = getattr(axis, "words", ())
    if words:
        changes["spans"] = tuple(word.span for word in words)
    return replace(axis, **changes)


def _shapiq() -> Any:
    try:
        import shapiq
    except ImportError as error:
        raise ImportError(
            "shapiq is not installed: pip install 'captum-interactions[shapiq]'"
        ) from error
    return shapiq
