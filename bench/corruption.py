"""What happens to damaged files: every loss is noticed, nothing crashes, hangs or writes an unreadable record.

    python -m bench.corruption --out bench/results/corruption.json     # 1,500 damaged files, all undamaged ones
    python -m bench.corruption --markdown                              # print the table of the documentation

13 small clips are encoded on the spot (H.264, HEVC, VP9 and MPEG-4 in MP4, Matroska, MPEG-TS and AVI) and damaged by
seed: flipped bits, cuts, splices, zeroed and inserted bytes. Each is extracted with default and with sparse options.
The truth is how many pictures plain PyAV decodes from first to last, against the undamaged clip: a record whose verdict
is `complete` although pictures are lost is a fault. Undamaged clips, all there are in four containers each, must stay
`complete`, except in containers that announce nothing, where `unknown` is allowed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
from pebble import ProcessPool

import codecmeta
from bench.corruption_inputs import CONTAINERS, DATA, KINDS, damage, make_clips, remux

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {"pixels": 64},
    "sparse": {"frames": "uniform:4", "maps": ("innovation",), "pixels": None},
}
"""Option sets by name."""

RESULTS = Path(__file__).resolve().parent / "results" / "corruption.json"
_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One damaged file."""

    clip: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one trial showed with one set of options.

    Attributes:
        trial: the trial.
        options: name of the options.
        kind: of the damage.
        outcome: the verdict's state, `refused` with its code, or `crash`, `hang`, `unreadable record`.
        lost: pictures that the damage took.
        fault: whether this must not happen.
        evidence: behind the verdict, or the error's message.
    """

    trial: Trial
    options: str
    kind: str
    outcome: str
    lost: int
    fault: bool
    evidence: str


def count_pictures(path: Path) -> int:
    """Pictures that a plain linear decode gives, errors passed over."""
    pictures = 0
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                return 0
            stream.thread_count = 1
            demuxed: Iterator[Any] = iter(container.demux(stream))
            while True:
                try:
                    packet = next(demuxed, None)
                    if packet is None:
                        break
                    pictures += len(stream.codec_context.decode(packet if packet.size else None))
                except av.InvalidDataError:
                    continue
    except (av.FFmpegError, IndexError, ValueError):
        pass
    return pictures


def extract_and_load(path: Path, record: Path, options: dict[str, Any]) -> tuple[str, str]:
    """Outcome and evidence of one extraction, saved and loaded again."""
    try:
        meta = codecmeta.extract(path, **options)
    except codecmeta.CodecMetaError as error:
        return f"refused: {getattr(error, 'code', 'usage')}", str(error)
    try:
        meta.save(record)
        meta = codecmeta.load(record)
    except codecmeta.CodecMetaError as error:
        return "unreadable record", str(error)
    verdict = meta.info["verdict"]
    return verdict["state"], verdict["evidence"]


def run_trial(folder: str, trial: Trial, whole: int) -> list[Finding]:
    """Damage one clip, count what is lost, and extract it with each set of options."""
    clip = Path(folder) / trial.clip
    kind, content = damage(clip.read_bytes(), seed=trial.seed)
    findings = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / trial.clip
        path.write_bytes(content)
        lost = max(whole - count_pictures(path), 0)
        for name, options in OPTIONS.items():
            outcome, evidence = extract_and_load(path, Path(place) / "record.npz", options)
            fault = (outcome == "complete" and lost > 0) or outcome in ("unreadable record", "refused: internal")
            findings.append(
                Finding(
                    trial=trial, options=name, kind=kind, outcome=outcome, lost=lost, fault=fault, evidence=evidence
                )
            )
    return findings


def run_trials(folder: Path, trials: Iterable[Trial], *, jobs: int = 1) -> Iterator[Finding]:
    """All trials in workers of their own, so that a crash or a hang is a finding."""
    clips = [path for path in sorted(folder.iterdir()) if path.is_file()]
    pictures = {path.name: count_pictures(path) for path in clips}
    for path in clips:
        # compiles what the workers, whose time is limited, will need
        for options in OPTIONS.values():
            codecmeta.extract(path, **options)
    listed = list(trials)
    with ProcessPool(max_workers=jobs) as pool:
        futures = [
            pool.schedule(run_trial, args=(str(folder), trial, pictures[trial.clip]), timeout=_SECONDS)
            for trial in listed
        ]
        for trial, future in zip(listed, futures, strict=True):
            try:
                yield from future.result()
            except Exception as error:
                # whatever ends a worker is a finding
                outcome = "hang" if isinstance(error, TimeoutError) else "crash"
                yield Finding(
                    trial=trial,
                    options="any",
                    kind=KINDS[trial.seed % len(KINDS)],
                    outcome=outcome,
                    lost=0,
                    fault=True,
                    evidence=repr(error),
                )


def plan_trials(clips: Iterable[Path], *, seeds: Iterable[int]) -> list[Trial]:
    """One trial per seed; clips take turns."""
    names = [path.name for path in clips]
    return [Trial(clip=names[seed % len(names)], seed=seed) for seed in seeds]


def judge_undamaged(sources: Iterable[Path], folder: Path) -> list[dict[str, str]]:
    """Verdicts of whole files, as they are and in four containers each."""
    rows = []
    for source in sources:
        copies = [folder / f"{source.stem}.{ending}" for ending in CONTAINERS]
        for path in [source, *(path for path in copies if remux(source, path))]:
            for name, options in OPTIONS.items():
                outcome, evidence = extract_and_load(path, folder / "record.npz", options)
                rows.append(
                    {
                        "clip": source.name,
                        "as": "itself" if path == source else path.suffix[1:],
                        "options": name,
                        "outcome": outcome,
                        "evidence": evidence,
                    }
                )
        for path in copies:
            path.unlink(missing_ok=True)
    return rows


def find_undamaged(shared: Path | None) -> list[Path]:
    """All clips of the project and of a folder of real ones."""
    folders = [DATA] if shared is None else [DATA, shared / "clips"]
    endings = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".264"}
    return [path for folder in folders for path in sorted(folder.rglob("*.*")) if path.suffix in endings]


def summarise(findings: Iterable[Finding]) -> dict[str, Any]:
    """Summarise the findings: counts per container, and the faults in full."""
    listed = list(findings)
    table: dict[str, Counter[str]] = {}
    for found in listed:
        counts = table.setdefault(found.trial.clip.split(".")[-1], Counter())
        counts["extractions"] += 1
        counts["pictures lost"] += found.lost > 0
        counts[found.outcome.split(":")[0]] += 1
        counts["complete, pictures lost"] += found.outcome == "complete" and found.lost > 0
    return {
        "trials": len({found.trial for found in listed}),
        "extractions": len(listed),
        "containers": {name: dict(sorted(counts.items())) for name, counts in sorted(table.items())},
        "faults": [asdict(found) for found in listed if found.fault],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--skip-undamaged", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(json.loads(RESULTS.read_text())))
        return
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clips = folder / "clips"
        clips.mkdir()
        trials = plan_trials(make_clips(clips), seeds=range(arguments.first, arguments.first + arguments.trials))
        findings = []
        for found in run_trials(clips, trials, jobs=arguments.jobs):
            findings.append(found)
            if found.fault:
                print(found)
        result = summarise(findings)
        if not arguments.skip_undamaged:
            rows = judge_undamaged([*sorted(clips.iterdir()), *find_undamaged(arguments.shared)], folder)
            result["undamaged"] = {
                "files": len(rows),
                "outcomes": dict(Counter(row["outcome"] for row in rows)),
                "not complete": [row for row in rows if row["outcome"] != "complete"],
            }
    result["seconds"] = round(time.perf_counter() - begin)
    print(json.dumps({name: value for name, value in result.items() if name != "faults"}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def markdown(result: dict[str, Any]) -> str:
    """Write the table of docs/reliability.md."""
    lines = [
        "| container | extractions | pictures lost | refused | `damaged` | `unknown` | `complete` | of these lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, counts in result["containers"].items():
        columns = (
            "extractions",
            "pictures lost",
            "refused",
            "damaged",
            "unknown",
            "complete",
            "complete, pictures lost",
        )
        lines.append(f"| {name} | " + " | ".join(str(counts.get(column, 0)) for column in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
