"""Transform trees of random syntax, and the residual that they stand for (Rec. ITU-T H.265, 7.3.8.8 ff., 8.6)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from tests.codecmeta.hevc.residual_writer import (
    DIAGONAL,
    HORIZONTAL,
    TABLES,
    VERTICAL,
    ContextCoder,
    default_weights,
    random_levels,
    scale,
    transform,
    write_levels,
)

if TYPE_CHECKING:
    from tests.codecmeta.hevc.stream_writer import Tools

Value = TypeVar("Value")


class TransformWriter:
    """Writes the transform tree of a coding unit, whose writer sets what is named here."""

    tools: Tools
    rng: random.Random
    coder: ContextCoder
    header: dict[str, int]
    planes: list[NDArray[np.int64]]
    shift_x: int
    unit: tuple[int, int, int]
    inter: bool
    shape: str
    lossless: bool
    luma_mode: dict[tuple[int, int], int]
    chroma_mode: dict[tuple[int, int], tuple[int, bool]]
    predicted_qp: int
    current_qp: int
    delta_coded: bool
    offset_coded: bool
    chroma_offset: tuple[int, int]

    def transform_tree(
        self, x: int, y: int, log2: int, depth: int, part: int, above_cb: int, above_cr: int, above: tuple[int, int]
    ) -> None:
        coder, rng, tools = self.coder, self.rng, self.tools
        quartered = not self.inter and self.shape == "NxN"
        most = tools.depth_inter if self.inter else tools.depth_intra + quartered
        if tools.log2_min_tb < log2 <= tools.log2_max_tb and depth < most and not (quartered and depth == 0):
            split = coder.flag("split_transform_flag", rng.randint(0, 1), 5 - log2) == 1
        else:
            forced = self.inter and tools.depth_inter == 0 and self.shape != "2Nx2N" and depth == 0
            split = log2 > tools.log2_max_tb or (quartered and depth == 0) or forced
        coded = []
        for parent in (above_cb, above_cr):
            flags = 0
            if (log2 > 2 and tools.chroma) or tools.chroma == 3:
                if parent:
                    flags = coder.flag("cbf_chroma", rng.randint(0, 1), depth)
                    if tools.chroma == 2 and (not split or log2 == 3):
                        flags |= coder.flag("cbf_chroma", rng.randint(0, 1), depth) << 1
            elif tools.chroma:
                flags = parent
            coded.append(flags)
        if split:
            half = 1 << (log2 - 1)
            for i in range(4):
                place = x + half * (i & 1), y + half * (i >> 1)
                self.transform_tree(*place, log2 - 1, depth + 1, i, coded[0], coded[1], (x, y))
            return
        luma = 1
        if not self.inter or depth or any(coded):
            luma = coder.flag("cbf_luma", rng.randint(0, 1), int(depth == 0))
        self._transform_unit(x, y, log2, part, luma, coded, above)

    def _transform_unit(
        self, x: int, y: int, log2: int, part: int, luma: int, coded: list[int], above: tuple[int, int]
    ) -> None:
        coder, rng, tools = self.coder, self.rng, self.tools
        if not luma and not any(coded):
            return
        if not self.delta_coded:
            self._qp_delta()
        if self.header["chroma_offset"] and any(coded) and not self.lossless and not self.offset_coded:
            self.offset_coded = True
            self.chroma_offset = (0, 0)
            if coder.flag("cu_chroma_qp_offset_flag", rng.randint(0, 1)):
                index = rng.randrange(len(tools.offset_list))
                for number in range(len(tools.offset_list) - 1):
                    if not coder.flag("cu_chroma_qp_offset_idx", int(number < index)):
                        break
                self.chroma_offset = tools.offset_list[index]
        residual = np.zeros((1 << log2, 1 << log2), np.int64)
        if luma:
            residual = self._block(0, x, y, log2, self._mode(self.luma_mode, x, y) if not self.inter else -1)
            self.planes[0][y : y + (1 << log2), x : x + (1 << log2)] = residual
        if not tools.chroma:
            return
        if log2 == 2 and tools.chroma != 3:
            if part != 3:
                return
            x, y = above
            side = 2
        else:
            side = log2 - self.shift_x
        mode, derived = (-1, True) if self.inter else self._mode(self.chroma_mode, x, y)
        a, b, size = x >> self.shift_x, y >> self.shift_y, 1 << side
        for plane in (1, 2):
            weight = 0
            if tools.cross and luma and derived:
                weight = self._cross(plane - 1)
            for number in range(2 if tools.chroma == 2 else 1):
                top = b + number * size
                block = np.zeros((size, size), np.int64)
                if coded[plane - 1] >> number & 1:
                    block = self._block(plane, a, top, side, mode)
                if weight:
                    block = block + ((weight * residual) >> 3)
                self.planes[plane][top : top + size, a : a + size] = block

    def _mode(self, modes: dict[tuple[int, int], Value], x: int, y: int) -> Value:
        """Return the mode of the prediction block that holds a sample."""
        left, top, size = self.unit
        if len(modes) == 1:
            return next(iter(modes.values()))
        half = size // 2
        return modes[left + half * (x >= left + half), top + half * (y >= top + half)]

    def _cross(self, c: int) -> int:
        value = self.rng.randint(0, 4)
        for number in range(4):
            if not self.coder.flag("log2_res_scale_abs_plus1", int(number < value), 4 * c + number):
                break
        if not value:
            return 0
        sign = self.coder.flag("res_scale_sign_flag", self.rng.randint(0, 1), c)
        return (1 << (value - 1)) * (1 - 2 * sign)

    def _qp_delta(self) -> None:
        coder, offset = self.coder, 6 * (self.tools.depth - 8)
        value = self.rng.choice((0, 1, -1, 3, -4, self.rng.randint(-(26 + offset // 2), 25 + offset // 2)))
        size = abs(value)
        for number in range(min(size, 5)):
            coder.flag("cu_qp_delta_abs", 1, int(number > 0))
        if size < 5:
            coder.flag("cu_qp_delta_abs", 0, int(size > 0))
        else:
            coder.exp_golomb(size - 5, 0)
        if value:
            coder.bypass(int(value < 0))
        self.delta_coded = True
        self.current_qp = (self.predicted_qp + value + 52 + 2 * offset) % (52 + offset) - offset

    def _block_qp(self, plane: int) -> int:
        """Qp'Y, Qp'Cb or Qp'Cr (8.6.1)."""
        offset = 6 * (self.tools.depth - 8)
        if plane == 0:
            return self.current_qp + offset
        index = self.current_qp + self.tools.offsets[plane - 1] + self.chroma_offset[plane - 1]
        index = min(max(index, -offset), 57)
        if self.tools.chroma != 1:
            return min(index, 51) + offset
        if 30 <= index <= 43:
            return int(TABLES["chroma_qp_420"]["qPi_30_to_43"][index - 30]) + offset
        return (index if index < 30 else index - 6) + offset

    def _block(self, plane: int, x: int, y: int, log2: int, mode: int) -> NDArray[np.int64]:
        """Write the syntax of a transform block that is coded, and return its residual."""
        coder, rng, tools = self.coder, self.rng, self.tools
        size, chroma = 1 << log2, plane > 0
        skip = False
        if tools.skip and not self.lossless and log2 <= tools.skip:
            skip = coder.flag("transform_skip_flag", rng.randint(0, 1), int(chroma)) == 1
        direction, hiding = "", tools.sign_hiding and not self.lossless
        if skip or self.lossless:
            if self.inter and tools.explicit:
                if coder.flag("explicit_rdpcm_flag", rng.randint(0, 1), int(chroma)):
                    vertical = coder.flag("explicit_rdpcm_dir_flag", rng.randint(0, 1), int(chroma))
                    direction, hiding = "vertical" if vertical else "horizontal", False
            elif not self.inter and tools.implicit and mode in (10, 26):
                direction, hiding = "horizontal" if mode == 10 else "vertical", False
        kind = DIAGONAL
        if not self.inter and (log2 == 2 or (log2 == 3 and (not chroma or tools.chroma == 3))):
            kind = VERTICAL if 6 <= mode <= 14 else HORIZONTAL if 22 <= mode <= 30 else DIAGONAL
        levels = random_levels(rng, size)
        write_levels(
            coder,
            levels,
            chroma=chroma,
            kind=kind,
            hiding=hiding,
            plain=tools.skip_context and (skip or self.lossless),
            skipped=skip or self.lossless,
            rice_adapts=tools.rice,
        )
        depth = tools.depth
        if self.lossless:
            residual = levels
        else:
            weights = np.full((size, size), 16, np.int64)
            if tools.scaling and not (skip and size > 4):
                weights = default_weights(size, inter=self.inter)
            residual = scale(levels, weights, self._block_qp(plane), depth)
        if skip:
            residual = ((residual << (5 + log2)) + (1 << (19 - depth))) >> (20 - depth)
        if not (skip or self.lossless):
            return transform(residual, depth, sine=not self.inter and size == 4 and not chroma)
        if tools.rotation and size == 4 and not self.inter:
            residual = residual[::-1, ::-1]
        if direction:
            residual = np.cumsum(residual, axis=1 if direction == "horizontal" else 0)
        return residual
