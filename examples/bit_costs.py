"""Bit costs for LLaVA-OneVision-2's preprocessing, without its patched decoder.

    python examples/bit_costs.py clip.mp4

codec-video-prep (`codec_selector.codec_patch_gop.video_processor`) takes the bit costs of its frames from one function.
With `replace_reader` that is `codecmeta.bit_costs`: any platform, any NumPy, H.264 and HEVC, exact bits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import codecmeta


def read_selected(path: str, frame_ids: Sequence[int], **options: Any) -> list[dict[str, Any]]:
    """Return what `read_video_fast_selected` returns; threads are of no use here, and pixels are not exported."""
    if options.get("export_pixels"):
        raise ValueError("export_pixels is set; leave it out and read pixels with PyAV")
    return codecmeta.bit_costs(path, frames=frame_ids)


def replace_reader(video_processor: ModuleType) -> None:
    """Let codec-video-prep read bit costs with codecmeta."""
    video_processor._read_video_fast_selected = read_selected


def main() -> None:
    """Print what some frames cost."""
    for frame in read_selected(sys.argv[1], range(4)):
        bits = frame["bitcost"]
        units = bits.get("mb_bit_cost", bits.get("ctu_bit_cost"))
        print(frame["frame_idx"], frame["pict_type"], f"{units.shape[0]}x{units.shape[1]} units, {units.sum()} bits")


if __name__ == "__main__":
    main()
