"""Reference pictures: the frames a frame may refer to, and their order (Rec. ITU-T H.264, 8.2.4, 8.2.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from codecmeta.h264.slice_header import B, Operations, SliceHeader

Content = TypeVar("Content")

MAX_REFERENCES = 16
"""Limit on frames that are marked as used for reference (A.3.1)."""


@dataclass(kw_only=True, eq=False)
class ReferencePicture(Generic[Content]):
    """Frame that is used for reference.

    Attributes:
        frame_num: frame_num.
        order: PicOrderCnt.
        content: the frame's data; None for a frame that was inferred from a gap in frame_num.
        long_term: LongTermFrameIdx, None while it is used for short-term reference.
    """

    frame_num: int
    order: int
    content: Content | None
    long_term: int | None = field(default=None)


class ReferencePictures(Generic[Content]):
    """Frames of a stream that are used for reference; frames are passed in decode order.

    A stream may be entered at any frame: then earlier frames are missing from the lists.
    """

    def __init__(self) -> None:
        self._short: list[ReferencePicture[Content]] = []
        self._long: dict[int, ReferencePicture[Content]] = {}
        self._latest: int | None = None

    def __iter__(self) -> Iterator[ReferencePicture[Content]]:
        return iter((*self._short, *self._long.values()))

    def missing(self, header: SliceHeader) -> int:
        """Count the frames that frame_num implies before that of a slice, but that were not seen (7.4.3)."""
        if header.idr or self._latest is None or header.frame_num == self._latest:
            return 0
        return (header.frame_num - self._latest - 1) % (1 << header.parameters.sequence.log2_max_frame_num)

    def begin(self, header: SliceHeader) -> None:
        """Prepare for a frame: an IDR picture ends all references, a gap in frame_num implies frames (8.2.5.2)."""
        if header.idr:
            self._short, self._long, self._latest = [], {}, None
            return
        span = 1 << header.parameters.sequence.log2_max_frame_num
        for back in range(min(self.missing(header), MAX_REFERENCES), 0, -1):
            frame_num = (header.frame_num - back) % span
            self._slide(header)
            self._short.append(ReferencePicture(frame_num=frame_num, order=0, content=None))
            self._latest = frame_num

    def lists(
        self, header: SliceHeader, order: int
    ) -> tuple[list[ReferencePicture[Content] | None], list[ReferencePicture[Content] | None]]:
        """Build RefPicList0 and RefPicList1 of a slice (8.2.4).

        Args:
            header: of the slice.
            order: PicOrderCnt of its frame.

        Returns:
            As many frames each as are active, None where the frame is unknown.
        """
        long = [self._long[index] for index in sorted(self._long)]
        if header.slice_type != B:
            by_number = sorted(self._short, key=lambda one: self._number(header, one), reverse=True)
            initial = [[*by_number, *long], []]
        else:
            known = [one for one in self._short if one.content is not None]
            past = sorted((one for one in known if one.order < order), key=lambda one: one.order, reverse=True)
            future = sorted((one for one in known if one.order > order), key=lambda one: one.order)
            initial = [[*past, *future, *long], [*future, *past, *long]]
            if len(initial[1]) > 1 and initial[0] == initial[1]:
                initial[1][:2] = initial[1][1::-1]
        first, second = (
            self._modify(header, pictures, active, operations)
            for pictures, active, operations in zip(
                initial, header.num_ref_idx_active, header.modifications, strict=True
            )
        )
        return first, second

    def end(self, header: SliceHeader, order: int, content: Content) -> None:
        """Mark a decoded frame, and others as its header requires (8.2.5.1)."""
        if not header.ref_idc:
            return
        picture = ReferencePicture(frame_num=header.frame_num, order=order, content=content)
        self._latest = header.frame_num
        if header.idr:
            picture.long_term = 0 if header.long_term else None
        elif header.marking is None:
            self._slide(header)
        else:
            for operation, *values in header.marking:
                self._mark(header, picture, operation, values)
        if picture.long_term is not None:
            self._long[picture.long_term] = picture
        else:
            self._short.append(picture)
        while len(self._short) + len(self._long) > MAX_REFERENCES:
            self._drop_oldest(header)

    def _number(self, header: SliceHeader, picture: ReferencePicture[Content]) -> int:
        """Return PicNum of a short-term frame (8-27, 8-28)."""
        later = picture.frame_num > header.frame_num
        return picture.frame_num - (1 << header.parameters.sequence.log2_max_frame_num if later else 0)

    def _find(self, header: SliceHeader, number: int) -> ReferencePicture[Content] | None:
        return next((one for one in self._short if self._number(header, one) == number), None)

    def _modify(
        self,
        header: SliceHeader,
        initial: Sequence[ReferencePicture[Content]],
        active: int,
        operations: Operations,
    ) -> list[ReferencePicture[Content] | None]:
        """Truncate a list to its active entries, and modify it (8.2.4.3)."""
        pictures: list[ReferencePicture[Content] | None] = [*initial[:active]]
        pictures += [None] * (active - len(pictures))
        span = 1 << header.parameters.sequence.log2_max_frame_num
        predicted = header.frame_num
        for place, (operation, value) in enumerate(operations[:active]):
            if operation == 2:
                chosen = self._long.get(value)
            else:
                step = value + 1
                predicted = (predicted + (step if operation == 1 else -step)) % span
                chosen = self._find(header, predicted - (span if predicted > header.frame_num else 0))
            rest = [one for one in pictures[place:] if one is not chosen or one is None]
            pictures = [*pictures[:place], chosen, *rest][:active]
        return pictures

    def _slide(self, header: SliceHeader) -> None:
        """Apply the sliding window (8.2.5.3)."""
        if len(self._short) + len(self._long) >= max(header.parameters.sequence.max_num_ref_frames, 1):
            self._drop_oldest(header)

    def _drop_oldest(self, header: SliceHeader) -> None:
        if self._short:
            self._short.remove(min(self._short, key=lambda one: self._number(header, one)))
        else:
            del self._long[min(self._long)]

    def _mark(
        self, header: SliceHeader, picture: ReferencePicture[Content], operation: int, values: Sequence[int]
    ) -> None:
        """Apply a memory management control operation (8.2.5.4); ignore one that refers to a missing frame."""
        if operation in (1, 3):
            found = self._find(header, header.frame_num - (values[0] + 1))
            if found is not None:
                self._short.remove(found)
                if operation == 3:
                    found.long_term = values[1]
                    self._long[values[1]] = found
        elif operation == 2:
            self._long.pop(values[0], None)
        elif operation == 4:
            self._long = {index: one for index, one in self._long.items() if index < values[0]}
        elif operation == 5:
            self._short, self._long = [], {}
            picture.frame_num, picture.order, self._latest = 0, 0, 0
        else:
            picture.long_term = values[0]
