"""Arrays that are filled a frame at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Columns:
    """Arrays with one row per sampled frame, made when the first row comes."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._arrays: dict[str, NDArray[Any]] = {}
        self._filled: dict[str, NDArray[np.bool_]] = {}

    def put(self, name: str, row: int, value: NDArray[Any]) -> None:
        """Set one row."""
        if name not in self._arrays:
            self._arrays[name] = np.empty((self._rows, *value.shape), value.dtype)
            self._filled[name] = np.zeros(self._rows, np.bool_)
        self._arrays[name][row] = value
        self._filled[name][row] = True

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        if len(rows) < self._rows:
            self._rows = len(rows)
            self._arrays = {name: array[rows] for name, array in self._arrays.items()}
            self._filled = {name: filled[rows] for name, filled in self._filled.items()}

    def filled(self, name: str) -> int:
        """How many rows of a column are set."""
        return int(np.count_nonzero(self._filled[name])) if name in self._filled else 0

    def whole(self, name: str) -> NDArray[Any] | None:
        """A column if all its rows are set."""
        return self._arrays[name] if self.filled(name) == self._rows else None

    def filled_up(self, name: str, value: int) -> NDArray[Any] | None:
        """A column whose missing rows hold `value`; None if no row is set."""
        if name not in self._arrays:
            return None
        array = self._arrays[name].copy()
        array[~self._filled[name]] = value
        return array
