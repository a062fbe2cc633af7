"""Measures runs over many videos as users start them: python -m bench.scale_runs storage|kills|pair|shards.

storage  records per second, and sizes, of a folder, of tars, and of tars with JPEG pixels
kills    N runs into one folder that are killed at a random moment: every file and every tar that is there is whole
pair     two runs over the same videos into the same folder at once, against one
shards   N videos through --shard 0/2 and 1/2 at once: what status says, against a count of its own

Figures go into the JSON file given by --out, those of other measurements there stay.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import codecmeta
from bench.scale import write_figures
from codecmeta.record.tar_shard import scan_shard

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ("still_h264.mp4", "event_h264.mp4", "noise_mpeg4.avi", "objects_vp9.webm")
SMALL = ("--residual", "none", "--pixels", "32", "--frames", "uniform:2")
BARE = ("--residual", "none", "--pixels", "none", "--frames", "uniform:2")


def link_clips(folder: Path, count: int, *, broken: int = 0) -> None:
    """Link clips of data/ under many names, in folders of a thousand; every `broken`-th is cut short."""
    half = folder / "half"
    half.write_bytes((ROOT / "data" / "event_h264.mp4").read_bytes()[:20_000])
    for number in range(count):
        place = folder / "videos" / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        clip = ROOT / "data" / CLIPS[number % len(CLIPS)]
        cut = bool(broken) and number % broken == 0
        os.link(half, place / f"{number:06d}.mp4") if cut else (place / f"{number:06d}{clip.suffix}").symlink_to(clip)


def command(folder: Path, out: str, *options: str) -> list[str]:
    main = "from codecmeta_cli.codecmeta import main; main()"
    return [sys.executable, "-c", main, "extract", str(folder / "videos"), "--out", str(folder / out), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "cli")))}


def run(folder: Path, out: str, *options: str) -> float:
    """Extract, and return the seconds it took; some videos may fail."""
    begin = time.perf_counter()
    done = subprocess.run(
        command(folder, out, *options), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return time.perf_counter() - begin


def storage(folder: Path, count: int) -> dict[str, Any]:
    link_clips(folder, count)
    figures: dict[str, Any] = {"videos": count}
    forms = {
        "folder": (),
        "tar": ("--pack", "tar"),
        "tar, jpeg": ("--pack", "tar", "--pixels", "jpeg", "--no-deflate"),
        "tar, jpeg, deflate": ("--pack", "tar", "--pixels", "jpeg"),
    }
    for name, options in forms.items():
        out = name.replace(", ", "-")
        seconds = run(folder, out, "--jobs", "1", *options)
        size = sum(path.stat().st_size for path in (folder / out).rglob("*") if path.suffix in (".npz", ".tar"))
        begin = time.perf_counter()
        read = sum(record.frames is not None for record in codecmeta.open_dataset(folder / out))
        reading = time.perf_counter() - begin
        figures[name] = {
            "mb_per_record": round(size / count / 1e6, 2),
            "written_per_s": round(count / seconds, 1),
            "read_per_s": round(read / reading, 1),
        }
        print(f"storage: {name}: {figures[name]}", flush=True)
    return figures


def kills(folder: Path, count: int) -> dict[str, Any]:
    """Kill runs with and without packing, and look at all that they left."""
    link_clips(folder, 400)
    rng = random.Random(0)
    bad = records = 0
    for number in range(count):
        out = ("plain", "packed")[number % 2]
        options = ("--pack", "tar", "--shard-size", "0.0002") if out == "packed" else ()
        process = subprocess.Popen(
            command(folder, out, *SMALL, "--jobs", "0", "--overwrite", *options),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        lines = count_lines(folder / out)
        # it works, and is somewhere between two writes
        while count_lines(folder / out) < lines + 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in (folder / out).rglob("*.npz"):
            records += 1
            bad += not is_whole(path)
        for path in (folder / out).glob("*.tar"):
            names = [name for name, _, _ in scan_shard(path)]
            found = [one for one in codecmeta.open_dataset(path) if one.frames is not None]
            records += len(found)
            bad += len(found) != len(set(names))
    return {"runs_killed": count, "records_read_afterwards": records, "bad_files": bad}


def count_lines(out: Path) -> int:
    try:
        return (out / "manifest.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def is_whole(path: Path) -> bool:
    try:
        return codecmeta.load(path).frames is not None
    except codecmeta.CodecMetaError:
        return False


def pair(folder: Path, count: int) -> dict[str, Any]:
    link_clips(folder, count)
    run(folder, "one", *SMALL, "--jobs", "1")
    both = [
        subprocess.Popen(command(folder, "two", *SMALL, "--jobs", "1"), env=environment(), stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    codes = [process.wait() for process in both]
    one, two = (
        {path.relative_to(folder / out): path.read_bytes() for path in (folder / out).rglob("*.npz")}
        for out in ("one", "two")
    )
    return {"exit_codes": codes, "records_of_one_run": len(one), "records_of_two": len(two), "equal_bytes": one == two}


def shards(folder: Path, count: int) -> dict[str, Any]:
    link_clips(folder, count, broken=1000)
    begin = time.perf_counter()
    both = [
        subprocess.Popen(
            command(folder, "meta", *BARE, "--jobs", "1", "--shard", f"{part}/2"),
            env=environment(),
            stderr=subprocess.DEVNULL,
        )
        for part in range(2)
    ]
    codes = [process.wait() for process in both]
    seconds = time.perf_counter() - begin
    main = "from codecmeta_cli.codecmeta import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", main, "status", str(folder / "meta"), "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    status = json.loads(shown.stdout)
    listed = {str(path.relative_to(folder / "videos")) for path in (folder / "videos").rglob("*.*")}
    there = {str(path.relative_to(folder / "meta"))[:-4] for path in (folder / "meta").rglob("*.npz")}
    cut = {name for name in listed if not (folder / "videos" / name).is_symlink()}
    expected = {"inputs": len(listed), "done": len(there), "failed": len(cut), "missing": 0, "gone": 0, "stale": 0}
    right = all(status[name] == value for name, value in expected.items()) and there == listed - cut
    says = {name: status[name] for name in expected}
    return {"videos": count, "seconds": round(seconds), "exit_codes": codes, "status": says, "right_to_the_file": right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = {"storage": (storage, 24), "kills": (kills, 60), "pair": (pair, 100), "shards": (shards, 20_000)}
    parser.add_argument("what", choices=list(modes))
    parser.add_argument("--videos", type=int, help="videos, or runs to kill")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    measure, usual = modes[arguments.what]
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.videos or usual)
    print(f"{arguments.what}: {figures}")
    write_figures(arguments.out, arguments.what, figures)


if __name__ == "__main__":
    main()
