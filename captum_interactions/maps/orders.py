"""Maps of either order: which one a map is, and what both have."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from captum_interactions.maps.first_order_map import FirstOrderMap
from captum_interactions.maps.interaction_map import InteractionMap
from captum_interactions.maps.sides import Side

Map: TypeAlias = InteractionMap | FirstOrderMap


def is_map(source: Any) -> TypeGuard[Map]:
    """Whether something is a map of this package, of either order."""
    return isinstance(source, (InteractionMap, FirstOrderMap))


def is_second_order(source: Any) -> TypeGuard[InteractionMap]:
    """Whether something is an interaction map."""
    return isinstance(source, InteractionMap)


def has_map(imap: Map, side: Side) -> bool:
    """Whether a map has values of an input; a method of the first order may lack one."""
    own = "attributions_a" if side == "a" else "attributions_b"
    return is_second_order(imap) or getattr(imap, own) is not None


def values_of(imap: Map, side: Side, selection: Any = None) -> NDArray[np.float32] | None:
    """Values (T,) of an input, for a selection of the other one; None if there is no map of it."""
    if not has_map(imap, side):
        return None
    return np.asarray(imap.marginal(side, selection).numpy())
