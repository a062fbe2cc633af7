"""Coding tree units of random syntax, and the residual and QP that they stand for (Rec. ITU-T H.265, 7.3.8, 8.6)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from tests.codecmeta.hevc.residual_writer import TABLES, ContextCoder
from tests.codecmeta.hevc.transform_writer import TransformWriter

if TYPE_CHECKING:
    from tests.codecmeta.hevc.stream_writer import Tools

B, I = 0, 2  # noqa: E741


class UnitWriter(TransformWriter):
    """Writes the coding tree units of one picture."""

    ranges = TABLES["rangeTabLPS"]
    after_lps = TABLES["transIdxLPS"]

    def __init__(self, *, tools: Tools, rng: random.Random, tile: dict[tuple[int, int], int]) -> None:
        self.tools, self.rng, self.tile = tools, rng, tile
        self.wide, self.tall = tools.size
        self.shift_x, self.shift_y = int(tools.chroma in (1, 2)), int(tools.chroma == 1)
        shape = (self.tall >> self.shift_y, self.wide >> self.shift_x) if tools.chroma else (0, 0)
        self.planes = [np.zeros(one, np.int64) for one in ((self.tall, self.wide), shape, shape)]
        blocks = (-(-self.tall // 8), -(-self.wide // 8))
        self.qp, self.deep, self.skipped = (np.zeros(blocks, np.int64) for _ in range(3))
        self.modes = np.ones((-(-self.tall // 4), -(-self.wide // 4)), np.int64)
        self.units: list[tuple[int, int, int, int]] = []
        self.slices: dict[tuple[int, int], int] = {}
        self.slice = -1

    def start_slice(self, number: int, header: dict[str, int]) -> None:
        self.slice, self.header = number, header
        self.previous_qp = header["qp"]
        self.chroma_offset = (0, 0)

    def start_segment(self, coder: ContextCoder, position: int) -> None:
        self.coder, self.marked = coder, position

    def end_segment(self, position: int) -> None:
        x, y, size, _ = self.units[-1]
        self.units.append((x, y, -size, position - self.marked))

    def start_qp(self) -> None:
        self.previous_qp = self.header["qp"]

    def same_slice(self, place: tuple[int, int], *, number_of_slice: int) -> bool:
        """Whether a coding tree block is there and of a slice."""
        return self.slices.get(place) == number_of_slice

    def available(self, x: int, y: int) -> bool:
        """Whether a sample left of or above the current unit is there for it (6.4.1)."""
        if x < 0 or y < 0:
            return False
        place = x >> self.tools.log2_ctb, y >> self.tools.log2_ctb
        return self.slices.get(place) == self.slice and self.tile[place] == self.tile[self.place]

    def write_tree_unit(self, place: tuple[int, int], size: int) -> None:
        self.place = place
        self.slices[place] = self.slice
        x, y = place[0] * size, place[1] * size
        if self.header["sao_luma"] or self.header["sao_chroma"]:
            self._sao(x, y)
        self._quadtree(x, y, self.tools.log2_ctb, 0)

    def _sao(self, x: int, y: int) -> None:
        coder, rng = self.coder, self.rng
        for near in ((x - 1, y), (x, y - 1)):
            if self.available(*near) and coder.flag("sao_merge_flag", rng.randint(0, 1)):
                return
        kind = 0
        for plane in range(3 if self.tools.chroma else 1):
            if not self.header["sao_chroma" if plane else "sao_luma"]:
                continue
            if plane < 2:
                kind = rng.randint(0, 2)
                coder.flag("sao_type_idx", int(kind > 0))
                if kind:
                    coder.bypass(kind - 1)
            if not kind:
                continue
            most = (1 << (min(self.tools.depth, 10) - 5)) - 1
            values = [rng.choice((0, 1, rng.randint(0, most))) for _ in range(4)]
            for value in values:
                coder.fixed((1 << value) - 1, value)
                if value < most:
                    coder.bypass(0)
            if kind == 1:
                for value in values:
                    if value:
                        coder.bypass(rng.randint(0, 1))
                coder.fixed(rng.randint(0, 31), 5)
            elif plane < 2:
                coder.fixed(rng.randint(0, 3), 2)

    def _quadtree(self, x: int, y: int, log2: int, depth: int) -> None:
        tools = self.tools
        size = 1 << log2
        split = log2 > tools.log2_min_cb
        if split and x + size <= self.wide and y + size <= self.tall:
            split = self.rng.random() < 0.6
            increment = sum(
                self.available(*near) and self.deep[near[1] >> 3, near[0] >> 3] > depth
                for near in ((x - 1, y), (x, y - 1))
            )
            self.coder.flag("split_cu_flag", int(split), int(increment))
        if tools.qp_delta >= 0 and log2 >= tools.log2_ctb - tools.qp_delta:
            self.delta_coded = False
            self._start_group(x, y)
        elif tools.qp_delta < 0:
            self.delta_coded, self.current_qp = True, self.header["qp"]
        if log2 >= tools.log2_ctb:
            self.offset_coded = False
        if not split:
            self._coding_unit(x, y, log2, depth)
            return
        half = size >> 1
        for i in range(4):
            left, top = x + half * (i & 1), y + half * (i >> 1)
            if left < self.wide and top < self.tall:
                self._quadtree(left, top, log2 - 1, depth + 1)

    def _start_group(self, x: int, y: int) -> None:
        """qPY_PRED (8.6.1)."""
        log2 = self.tools.log2_ctb
        near = []
        for a, b in ((x - 1, y), (x, y - 1)):
            inside = a >= 0 and b >= 0 and a >> log2 == x >> log2 and b >> log2 == y >> log2
            near.append(int(self.qp[b >> 3, a >> 3]) if inside else self.previous_qp)
        self.predicted_qp = self.current_qp = (sum(near) + 1) >> 1

    def _coding_unit(self, x: int, y: int, log2: int, depth: int) -> None:
        coder, rng, tools = self.coder, self.rng, self.tools
        size = 1 << log2
        self.unit = (x, y, size)
        self.lossless = tools.bypass and coder.flag("cu_transquant_bypass_flag", int(rng.random() < 0.3)) == 1
        intra_slice = self.header["type"] == I
        skip = False
        if not intra_slice:
            increment = sum(
                self.available(*near) and self.skipped[near[1] >> 3, near[0] >> 3] for near in ((x - 1, y), (x, y - 1))
            )
            skip = coder.flag("cu_skip_flag", int(rng.random() < 0.3), int(increment)) == 1
        self.inter, self.shape = not intra_slice, "2Nx2N"
        block = np.s_[y >> 2 : (y + size) >> 2, x >> 2 : (x + size) >> 2]
        self.modes[block] = 1
        if skip:
            self._merge_index()
        else:
            self._coded_unit(x, y, log2, depth, intra_slice)
        eighths = np.s_[y >> 3 : (y + size) >> 3, x >> 3 : (x + size) >> 3]
        self.deep[eighths], self.skipped[eighths], self.qp[eighths] = depth, skip, self.current_qp
        self.previous_qp = self.current_qp
        here = coder.position
        self.units.append((x, y, size, here - self.marked))
        self.marked = here

    def _coded_unit(self, x: int, y: int, log2: int, depth: int, intra_slice: bool) -> None:
        coder, rng, tools = self.coder, self.rng, self.tools
        if not intra_slice:
            self.inter = not coder.flag("pred_mode_flag", int(rng.random() < 0.4))
        if self.inter or log2 == tools.log2_min_cb:
            self._part_mode(log2)
        merged = False
        if self.inter:
            merged = self._prediction_units(1 << log2, depth)
        else:
            low, high = tools.pcm_sizes
            if self.shape == "2Nx2N" and tools.pcm and low <= log2 <= high:
                pcm = rng.random() < 0.3
                coder.terminate(int(pcm))
                if pcm:
                    self._pcm(x, y, 1 << log2)
                    return
            self._intra_modes(x, y, 1 << log2)
        root = True
        if self.inter and not (self.shape == "2Nx2N" and merged):
            root = coder.flag("rqt_root_cbf", int(rng.random() < 0.7)) == 1
        if root:
            self.transform_tree(x, y, log2, 0, 0, 1, 1, (x, y))

    def _pcm(self, x: int, y: int, size: int) -> None:
        writer = self.coder.writer
        writer.bits += "1"
        writer.align_zero()
        for number, plane in enumerate(self.planes):
            bits = 7 if number else 5
            if not plane.size:
                continue
            a, b = (x >> self.shift_x, y >> self.shift_y) if number else (x, y)
            across, down = (size >> self.shift_x, size >> self.shift_y) if number else (size, size)
            for row in range(b, b + down):
                for column in range(a, a + across):
                    value = self.rng.randrange(1 << bits)
                    writer.u(value, bits)
                    plane[row, column] = (value << (self.tools.depth - bits)) - (1 << (self.tools.depth - 1))
        self.coder.start()

    def _part_mode(self, log2: int) -> None:
        coder, rng, tools = self.coder, self.rng, self.tools
        smallest = log2 == tools.log2_min_cb
        if not self.inter:
            self.shape = rng.choice(("2Nx2N", "NxN"))
            coder.flag("part_mode", int(self.shape == "2Nx2N"))
            return
        codes = {"2Nx2N": "1", "2NxN": "01", "Nx2N": "00"}
        if smallest and log2 > 3:
            codes = {"2Nx2N": "1", "2NxN": "01", "Nx2N": "001", "NxN": "000"}
        elif not smallest and tools.amp:
            codes = {"2Nx2N": "1", "2NxN": "011", "2NxnU": "0100", "2NxnD": "0101"}
            codes |= {"Nx2N": "001", "nLx2N": "0000", "nRx2N": "0001"}
        self.shape = rng.choice(list(codes))
        for number, bit in enumerate(codes[self.shape]):
            if number == 3:
                coder.bypass(int(bit))
            else:
                coder.flag("part_mode", int(bit), number if number < 2 or smallest else 3)

    def _merge_index(self) -> None:
        most = self.header["candidates"] - 1
        value = self.rng.randint(0, most)
        for number in range(most):
            bit = int(number < value)
            if number:
                self.coder.bypass(bit)
            else:
                self.coder.flag("merge_idx", bit)
            if not bit:
                return

    def _prediction_units(self, size: int, depth: int) -> bool:
        """All prediction units; whether the first is merged."""
        half, quarter = size // 2, size // 4
        sides = {
            "2Nx2N": [2 * size],
            "2NxN": [size + half] * 2,
            "Nx2N": [size + half] * 2,
            "NxN": [2 * half] * 4,
            "2NxnU": [size + quarter, size + size - quarter],
            "2NxnD": [size + size - quarter, size + quarter],
        }
        sides |= {"nLx2N": sides["2NxnU"], "nRx2N": sides["2NxnD"]}
        merged = [self._prediction_unit(total, depth) for total in sides[self.shape]]
        return merged[0]

    def _prediction_unit(self, sides: int, depth: int) -> bool:
        coder, rng, header = self.coder, self.rng, self.header
        if coder.flag("merge_flag", rng.randint(0, 1)):
            self._merge_index()
            return True
        lists = 1
        if header["type"] == B:
            lists = rng.choice((1, 2, 3) if sides != 12 else (1, 2))
            if sides != 12:
                coder.flag("inter_pred_idc", int(lists == 3), depth)
            if lists != 3:
                coder.flag("inter_pred_idc", lists - 1, 4)
        for number in (0, 1):
            if not lists >> number & 1:
                continue
            most = header["l1" if number else "l0"] - 1
            value = rng.randint(0, most)
            for index in range(most):
                bit = int(index < value)
                if index < 2:
                    coder.flag("ref_idx", bit, index)
                else:
                    coder.bypass(bit)
                if not bit:
                    break
            if not (number and header["l1_zero"] and lists == 3):
                self._mvd()
            coder.flag("mvp_flag", rng.randint(0, 1))
        return False

    def _mvd(self) -> None:
        coder = self.coder
        values = [self.rng.choice((0, 1, -1, 2, self.rng.randint(-32768, 32767))) for _ in range(2)]
        for value in values:
            coder.flag("abs_mvd_greater0_flag", int(value != 0))
        for value in values:
            if value:
                coder.flag("abs_mvd_greater1_flag", int(abs(value) > 1))
        for value in values:
            if abs(value) > 1:
                coder.exp_golomb(abs(value) - 2, 1)
            if value:
                coder.bypass(int(value < 0))

    def _intra_modes(self, x: int, y: int, size: int) -> None:
        coder, rng, tools = self.coder, self.rng, self.tools
        parts = (
            [(x, y)]
            if self.shape == "2Nx2N"
            else [(x + size // 2 * (i & 1), y + size // 2 * (i >> 1)) for i in range(4)]
        )
        side = size if len(parts) == 1 else size // 2
        flags = [coder.flag("prev_intra_luma_pred_flag", rng.randint(0, 1)) for _ in parts]
        self.luma_mode = {}
        for (a, b), flag in zip(parts, flags, strict=True):
            candidates = self._candidates(a, b)
            if flag:
                index = rng.randint(0, 2)
                coder.fixed((0, 2, 3)[index], (1, 2, 2)[index])
                mode = candidates[index]
            else:
                rest = rng.randint(0, 31)
                coder.fixed(rest, 5)
                mode = [one for one in range(35) if one not in candidates][rest]
            self.luma_mode[a, b] = mode
            self.modes[b >> 2 : (b + side) >> 2, a >> 2 : (a + side) >> 2] = mode
        self.chroma_mode = {}
        if not tools.chroma:
            return
        for place in parts if tools.chroma == 3 else parts[:1]:
            choice = rng.randint(0, 4)
            coder.flag("intra_chroma_pred_mode", int(choice < 4))
            luma = mode = self.luma_mode[place]
            if choice < 4:
                coder.fixed(choice, 2)
                mode = (0, 26, 10, 1)[choice]
                mode = 34 if mode == luma else mode
            if tools.chroma == 2:
                mode = TABLES["intra_chroma_422_mode"][mode]
            self.chroma_mode[place] = (mode, choice == 4)

    def _candidates(self, x: int, y: int) -> list[int]:
        """candModeList (8.4.2)."""
        a = int(self.modes[y >> 2, (x - 1) >> 2]) if self.available(x - 1, y) else 1
        same_row = y > 0 and (y - 1) >> self.tools.log2_ctb == y >> self.tools.log2_ctb
        b = int(self.modes[(y - 1) >> 2, x >> 2]) if same_row and self.available(x, y - 1) else 1
        if a == b:
            return [0, 1, 26] if a < 2 else [a, 2 + (a + 29) % 32, 2 + (a - 2 + 1) % 32]
        return [a, b, next(one for one in (0, 1, 26) if one not in (a, b))]
