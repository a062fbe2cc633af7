"""Frame table of the sampled frames: the origin of every cell, or the reason for its absence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from codecmeta.residual.source import SourceName

Column: TypeAlias = Literal[
    "picture", "frames", "residual", "innovation", "carried", "mb_bits", "mb_type", "motion", "qp"
]
"""`picture` holds that a frame was decoded, `residual` its moments; the others are signals of a record."""

Origin: TypeAlias = Literal["decoder", "bitstream", "motion", "proxy"]
COLUMNS: tuple[Column, ...] = get_args(Column)

ARRAYS: dict[Column, tuple[str, ...]] = {
    "frames": ("frames",),
    "residual": ("residual_power", "residual_mean"),
    "innovation": ("energy_innovation", "range_innovation"),
    "carried": ("energy_carried", "range_carried"),
    "mb_bits": ("mb_bits",),
    "mb_type": ("mb_type",),
    "qp": ("qp",),
}
"""Arrays of a record with one row per frame, by the column that they belong to."""


class Absence(Enum):
    """Kind of reason for which a cell holds nothing."""

    NOT_ASKED = "not asked for"
    NOT_READ = "not read yet"
    NOT_GIVEN = "not given by the decoder or the source that was read"
    REFUSED = "refused by every source that was tried"


@dataclass(frozen=True)
class Absent:
    """Cell that holds nothing, and the reason."""

    kind: Absence
    reason: str


@dataclass(frozen=True)
class Held:
    """Cell that holds a value, and its origin."""

    origin: Origin


@dataclass(kw_only=True)
class DecodeCounts:
    """Counts from decoding the stream.

    Attributes:
        pictures: pictures that were decoded.
        errors: packets that the decoder refused.
        corrupt: pictures that it marked as corrupt.
        checked: packets whose picture was read or decoded.
        unreadable: packets whose coded data contradicts itself.
        gaps: pictures between the rows whose residual could not be read, so that nothing of it is carried.
        missing: number of rows that were omitted because the decoder gave no picture.
        turned_otherwise: number of rows whose picture has another display orientation than the first one.
    """

    pictures: int = 0
    errors: int = 0
    corrupt: int = 0
    checked: set[int] = field(default_factory=set)
    unreadable: set[int] = field(default_factory=set)
    gaps: int = 0
    missing: int = 0
    turned_otherwise: int = 0

    def add(self, other: DecodeCounts) -> None:
        """Add the counts of another decoding."""
        for name, count in vars(other).items():
            own = getattr(self, name)
            setattr(self, name, own | count if isinstance(own, set) else own + count)


class FrameTable:
    """Table with one row per sampled frame, identified by its packet, and one column per signal.

    Attributes:
        packets: packet of each row, in presentation order.
        types: I, P, B or ? of each packet.
        refusals: per packet, which sources refused to read its residual, and why.
        vectors: motion vectors of the packets whose `motion` cell holds some, int16 (n, 7).
        decoding: counts from decoding the stream.
    """

    def __init__(self, packets: Sequence[int], *, not_asked: Mapping[Column, str]) -> None:
        """Make a table whose cells are all absent.

        Args:
            packets: packet of each row.
            not_asked: the columns that are not requested, each with the reason.
        """
        self.packets = list(packets)
        self.types = dict.fromkeys(self.packets, "?")
        self.refusals: dict[int, dict[SourceName, str]] = {packet: {} for packet in self.packets}
        self.vectors: dict[int, NDArray[np.int16]] = {}
        self.decoding = DecodeCounts()
        self._row = {packet: row for row, packet in enumerate(self.packets)}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._cells: dict[Column, dict[int, Held | Absent]] = {}
        for column in COLUMNS:
            reason = not_asked.get(column)
            kind = Absence.NOT_READ if reason is None else Absence.NOT_ASKED
            self._cells[column] = dict.fromkeys(self.packets, Absent(kind, reason or kind.value))

    def cells(self, column: Column) -> list[Held | Absent]:
        """Return a column from top to bottom."""
        return [self._cells[column][packet] for packet in self.packets]

    def requests(self, column: Column) -> bool:
        """Return whether a column is requested."""
        return not all(isinstance(one, Absent) and one.kind is Absence.NOT_ASKED for one in self.cells(column))

    def holds(self, packet: int, column: Column) -> bool:
        """Return whether a cell holds something."""
        return isinstance(self._cells[column][packet], Held)

    def is_unread(self, packet: int, *columns: Column) -> bool:
        """Return whether a cell of some columns is requested and has not been tried."""
        for column in columns:
            one = self._cells[column][packet]
            if isinstance(one, Absent) and one.kind is Absence.NOT_READ:
                return True
        return False

    def lacking(self, *columns: Column) -> list[int]:
        """List packets of rows that lack one of some columns: unread so far, or refused by the sources tried."""
        open_kinds = (Absence.NOT_READ, Absence.REFUSED)

        def lacks(packet: int) -> bool:
            cells = (self._cells[column][packet] for column in columns)
            return any(isinstance(one, Absent) and one.kind in open_kinds for one in cells)

        return [packet for packet in self.packets if lacks(packet)]

    def hold(self, packet: int, column: Column, origin: Origin, *values: NDArray[Any]) -> None:
        """Fill a cell that is requested.

        Args:
            packet: names the row.
            column: names the column.
            origin: where the values came from.
            values: of this row, for the arrays of the column (`ARRAYS`).
        """
        cell = self._cells[column][packet]
        if isinstance(cell, Absent) and cell.kind is Absence.NOT_ASKED:
            return
        self._cells[column][packet] = Held(origin)
        for name, value in zip(ARRAYS.get(column, ()), values, strict=True):
            if name not in self._arrays:
                self._arrays[name] = np.empty((len(self.packets), *value.shape), value.dtype)
            self._arrays[name][self._row[packet]] = value

    def hold_vectors(self, packet: int, origin: Origin, vectors: NDArray[np.int16] | None) -> None:
        """Fill a cell of `motion`; None where nothing is predicted from another picture."""
        self.hold(packet, "motion", origin)
        if self.holds(packet, "motion"):
            self.vectors[packet] = np.zeros((0, 7), np.int16) if vectors is None else vectors

    def refuse(self, packet: int, source: SourceName, reason: str) -> None:
        """Record that a source refused to read the residual of a row; another may still read it."""
        self.refusals[packet][source] = reason
        if not self.holds(packet, "residual"):
            self._cells["residual"][packet] = Absent(Absence.REFUSED, f"{source}: {reason}")

    def mark_absent(self, column: Column, reason: str, packets: Iterable[int] | None = None) -> None:
        """Record that the source just read has nothing for the unread cells of a column."""
        cells, absent = self._cells[column], Absent(Absence.NOT_GIVEN, reason)
        for packet in self.packets if packets is None else packets:
            if self.is_unread(packet, column):
                cells[packet] = absent

    def close_column(self, column: Column, reason: str) -> None:
        """Record the reason for all cells of a column that are still empty, including refused ones."""
        for packet in self.packets:
            cell = self._cells[column][packet]
            if isinstance(cell, Absent) and cell.kind is not Absence.NOT_ASKED:
                self._cells[column][packet] = Absent(Absence.NOT_GIVEN, reason)

    def drop(self, packets: Iterable[int]) -> None:
        """Drop rows."""
        gone = set(packets)
        if not gone:
            return
        rows = [row for row, packet in enumerate(self.packets) if packet not in gone]
        self.packets = [self.packets[row] for row in rows]
        self._row = {packet: row for row, packet in enumerate(self.packets)}
        self._arrays = {name: array[rows] for name, array in self._arrays.items()}

    def arrays(self, column: Column, *, fill: int | None = None) -> dict[str, NDArray[Any]]:
        """Return the arrays of a column by name.

        Args:
            column: names the column.
            fill: value of the rows that hold nothing; without it, such a row makes the arrays absent.

        Returns:
            `ARRAYS` of the column; nothing where a row of it is absent, or all are.
        """
        held = np.array([self.holds(packet, column) for packet in self.packets], np.bool_)
        if not held.any() or (fill is None and not held.all()):
            return {}
        arrays = {name: self._arrays[name] for name in ARRAYS.get(column, ())}
        if held.all():
            return arrays
        for name, array in arrays.items():
            arrays[name] = array.copy()
            arrays[name][~held] = fill
        return arrays
