"""How close cheaper stand-ins come to the residual in the bitstream.

    python bench/residual_fidelity.py [CLIP ...]    # measure H.264 clips
    python bench/residual_fidelity.py --markdown    # print the table of the documentation, measure nothing

Without a CLIP all H.264 clips of `--shared`/clips and of data/ are measured; the result goes to `--json`. The truth is
the mean squared luma residual that `codecmeta.h264` reads from each picture's own packet, on a 27x27 grid. Where
`--shared` holds residuals from another decoder, the truth is compared with them, block by block.

Per stand-in and picture type: Spearman's rank correlation, Pearson's correlation of log(1 + energy), overlap of the
30 % of the cells with most energy; medians over pictures. Pictures without any residual are counted apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fidelity_agreement import Agreement, agreement, varies
from fidelity_estimates import ESTIMATES, Estimator
from fidelity_scenes import TYPES, choose_pictures, order_frames, read_scenes
from numpy.typing import NDArray

from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import PacketTable, read_packets
from codecmeta.container.timeline import Timeline
from codecmeta.container.video import Video, open_video
from codecmeta.errors import BitstreamError, SourceError
from codecmeta.h264.reader import ResidualReader

Scores = dict[str, dict[str, list[Agreement]]]
"""Agreements by picture type and stand-in."""

_SUFFIXES = (".mp4", ".mov", ".mkv", ".264", ".h264", ".ts")
_EXPECTED_BLOCK = 8


def find_clips(shared: Path) -> list[Path]:
    """All H.264 clips of the project and of the folder of real ones."""
    folders = (shared / "clips", Path(__file__).resolve().parent.parent / "data")
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    return [path for path in found if _codec(path) == "h264"]


def _codec(path: Path) -> str:
    with open_video(path) as video:
        return video.codec


def measure(path: Path, *, count: int, expected: Path) -> tuple[Scores, dict[str, Any]]:
    """Score every stand-in on up to `count` pictures of each type of a clip.

    Args:
        path: the clip.
        count: most pictures of a type.
        expected: file with the residual as another decoder gives it; it need not exist.

    Returns:
        The scores; and pictures without residual by type, with how the truth agrees with the expected residual.

    Raises:
        SourceError: the clip cannot be read, or is not H.264.
        BitstreamError: a picture cannot be read.
    """
    scores: Scores = defaultdict(lambda: {name: [] for name in ESTIMATES})
    empty = dict.fromkeys(TYPES, 0)
    with open_video(path) as video:
        if video.codec != "h264":
            raise SourceError("no_signal", f"{path.name} is {video.codec}, the truth is available for h264 only")
        packets = read_packets(video)
        timeline = order_frames(video, packets)
        targets = choose_pictures(video, packets, timeline, count=count)
        reader = ResidualReader(bytes(video.stream.codec_context.extradata or b""))
        estimator = Estimator(width=video.width, height=video.height)
        for scene in read_scenes(video, packets, timeline, targets, reader):
            types = scene.residual.slice_types
            kind = next((one for one in "BP" if one in types), "I")
            truth = estimator.truth(scene)
            if not varies(truth):
                empty[kind] += 1
                continue
            for name, estimate in ESTIMATES.items():
                scores[kind][name].append(agreement(truth, estimate(estimator, scene)))
        check = compare_expected(video, packets, timeline, expected) if expected.exists() else None
    return scores, {"without residual": empty, "expected": check}


def compare_expected(video: Video, packets: PacketTable, timeline: Timeline, expected: Path) -> dict[str, int]:
    """Count the 8x8 luma blocks whose sum and sum of squares are those of another decoder.

    `shifted` is the control: how many would agree if each picture were taken for the one shown after it.
    """
    with np.load(expected) as file:
        frames, totals, squares = file["frame_index"].tolist(), file["y_sum"], file["y_sqsum"]
    reader = ResidualReader(bytes(video.stream.codec_context.extradata or b""))
    wanted = {int(timeline.packet[frame]) for frame in frames}
    moments = {}
    for number, payload in read_payloads(video, packets, wanted | set(np.flatnonzero(packets.key).tolist())):
        reader.observe(payload)
        if number in wanted:
            moments[number] = block_sums(reader.read(payload).y)
    counts = {"pictures": len(frames), "blocks": 0, "equal": 0, "shifted": 0}
    own = [moments[int(timeline.packet[frame])] for frame in frames]
    for place, (total, square) in enumerate(zip(totals, squares, strict=True)):
        unclipped = square >= 0
        for name, (sums, powers) in (("equal", own[place]), ("shifted", own[(place + 1) % len(own)])):
            counts[name] += int(np.count_nonzero((sums == total) & (powers == square) & unclipped))
        counts["blocks"] += int(np.count_nonzero(unclipped))
    return counts


def block_sums(luma: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Compute sums and sums of squares on 8x8 blocks, clipped to 8 bits around mid-grey, zeros beyond the picture."""
    side = _EXPECTED_BLOCK
    rows, cols = (-(-length // side) for length in luma.shape)
    padded = np.zeros((rows * side, cols * side), np.int64)
    padded[: luma.shape[0], : luma.shape[1]] = np.clip(luma, -128, 127)
    blocks = padded.reshape(rows, side, cols, side)
    return blocks.sum((1, 3)), (blocks * blocks).sum((1, 3))


def medians(scores: Scores) -> dict[str, Any]:
    """Median over pictures of the three figures, by picture type and stand-in."""
    return {
        kind: {
            "pictures": len(next(iter(scores[kind].values()))),
            **{name: np.median(np.array(found), axis=0).round(3).tolist() for name, found in scores[kind].items()},
        }
        for kind in TYPES
        if kind in scores
    }


def pool(clips: Sequence[Scores]) -> Scores:
    """Pool the scores of all clips."""
    together: Scores = defaultdict(lambda: {name: [] for name in ESTIMATES})
    for scores in clips:
        for kind, columns in scores.items():
            for name, found in columns.items():
                together[kind][name] += found
    return together


def show(title: str, kinds: dict[str, Any]) -> None:
    for kind, row in kinds.items():
        print(f"{title}: {kind}, {row['pictures']} pictures")
        for name in ESTIMATES:
            print(f"    {name:34s}" + "".join(f"{value:7.2f}" for value in row[name]), flush=True)


def markdown(report: dict[str, Any]) -> str:
    """Write the table of the documentation; in brackets the lowest median rank correlation of any clip."""
    whole, clips = report["all"], [found["types"] for found in report["clips"].values()]
    heads = [f"{kind}, {row['pictures']} pictures" for kind, row in whole.items()]
    lines = [f"| stand-in | {' | '.join(heads)} |", "|---" * (len(whole) + 1) + "|"]
    for name in ESTIMATES:
        cells = []
        for kind, row in whole.items():
            lowest = min(types[kind][name][0] for types in clips if kind in types)
            cells.append(" ".join(f"{value:.2f}" for value in row[name]) + f" ({lowest:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    root = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    parser.add_argument("--pictures", type=int, default=24, help="most pictures of a type per clip")
    parser.add_argument("--shared", type=Path, default=root.parent.parent / "shared")
    parser.add_argument("--json", type=Path, help="where the result goes; without CLIP bench/results by default")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    results = root / "results" / "residual_fidelity.json"
    if options.markdown:
        print(markdown(json.loads((options.json or results).read_text())))
        return 0
    report: dict[str, Any] = {"pictures of a type": options.pictures, "clips": {}}
    every = []
    failed = 0
    for path in options.clips or find_clips(options.shared):
        expected = options.shared / "h264" / "real" / f"{path.name}.residual.npz"
        try:
            scores, facts = measure(path, count=options.pictures, expected=expected)
        except (SourceError, BitstreamError) as error:
            print(f"{path.name}: not measured, {error}", file=sys.stderr)
            failed += 1
            continue
        every.append(scores)
        report["clips"][path.name] = {"types": medians(scores), **facts}
        show(path.name, report["clips"][path.name]["types"])
        if check := facts["expected"]:
            print(
                f"    truth: {check['equal']} of {check['blocks']} blocks of {check['pictures']} pictures are those of "
                f"another decoder ({check['shifted']} with pictures shifted by one)"
            )
    report["all"] = medians(pool(every))
    if len(every) > 1:
        show("all clips", report["all"])
    target = options.json or (None if options.clips or failed else results)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
