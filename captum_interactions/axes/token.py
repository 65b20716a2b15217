"""The tokens of an input: the rows or columns of an interaction map."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


class Unit(NamedTuple):
    """A natural part of an input, such as a word or a patch, with its tokens."""

    label: str
    tokens: tuple[int, ...]
    """Indices on the token axis."""


@dataclass(frozen=True)
class TokenAxis:
    """An axis of tokens with labels, some of which are special or padding."""

    labels: tuple[str, ...]
    special: tuple[bool, ...]
    padding: tuple[bool, ...]

    @classmethod
    def numbered(cls, n_tokens: int) -> TokenAxis:
        """An axis whose labels are ``"0"`` to ``str(n_tokens - 1)``."""
        none = (False,) * n_tokens
        return cls(tuple(str(index) for index in range(n_tokens)), none, none)

    def __len__(self) -> int:
        return len(self.labels)

    def at_input(self) -> TokenAxis:
        """The axis of the raw input, without tokens that the model adds."""
        return self

    @property
    def units(self) -> tuple[Unit, ...]:
        """The natural parts of the input: here, all tokens except special ones and padding.

        Every token that is neither special nor padding belongs to exactly one unit, so that the
        values of units sum to those of these tokens.
        """
        return tuple(
            Unit(label, (index,))
            for index, label in enumerate(self.labels)
            if not (self.special[index] or self.padding[index])
        )

    def sum_units(self, values: NDArray[Any], *, rest: bool = False) -> NDArray[Any]:
        """Sum values of tokens over units.

        Args:
            values (ndarray): shape (..., T).
            rest (bool, optional): Append the sum over the tokens that belong to no unit. Default:
                False

        Returns:
            ndarray: of the type of ``values``, in the order of :attr:`units`, shape (..., U), or
            (..., U + 1) with ``rest``.
        """
        members = [unit.tokens for unit in self.units]
        order = [token for tokens in members for token in tokens]
        if members:
            starts = list(accumulate(map(len, members[:-1]), initial=0))
            sums = np.add.reduceat(values[..., order], starts, axis=-1)
        else:
            sums = np.zeros((*values.shape[:-1], 0), values.dtype)
        if not rest:
            return sums
        outside = np.delete(values, order, axis=-1).sum(-1, keepdims=True)
        return np.concatenate([sums, outside], -1)

    def select(self, selection: Any = None) -> Weights:
        """Convert a selection to one weight per token.

        Args:
            selection: None for every token, or a slice, range, set or list of token indices.

        Returns:
            ndarray: float32 weights in [0, 1], shape (T,).

        Raises:
            TypeError: If the kind of selection is unknown.
            ValueError: If nothing is selected.
        """
        weights = np.zeros(len(self), np.float32)
        if selection is None:
            weights[:] = 1.0
            return weights
        if isinstance(selection, slice):
            selection = range(*selection.indices(len(self)))
        if not isinstance(selection, (list, range, set, frozenset, np.ndarray)):
            raise TypeError(f"{self._expects()}, but got {selection!r}")
        indices = np.asarray(
            sorted(selection) if isinstance(selection, (set, frozenset)) else selection
        )
        if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
            raise ValueError(f"{self._expects()}, but got {selection!r}")
        outside = indices[(indices < -len(self)) | (indices >= len(self))]
        if len(outside):
            raise ValueError(f"token {outside[0]} does not exist: there are {len(self)} tokens")
        weights[indices] = 1.0
        return weights

    def _expects(self) -> str:
        return "select tokens by a slice, a range, a set or a list of indices"
