"""Shards in the layout of WebDataset: per whole video its bytes, its packets and densities, and a JSON description.

python examples/webdataset_shards.py videos/ --out shards/ --per-shard 1000
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np

import codecmeta


def describe(meta: codecmeta.VideoMeta) -> dict[str, object]:
    """Describe what a later filter or sampler may want to know, as JSON."""
    stream = meta.info["stream"]
    facts = {name: stream[name] for name in ("codec", "width", "height", "fps", "duration_s")}
    return {
        **facts,
        "verdict": meta.info["verdict"]["state"],
        "gops": len(meta.gops),
        "bytes": int(meta.packet_size.sum()),
    }


def pack(meta: codecmeta.VideoMeta) -> bytes:
    """Pack packet sizes, times of the sampled frames and a coarse residual density as .npz."""
    arrays = {"packet_size": meta.packet_size, "frame_seconds": meta.frame_seconds}
    if meta.energy_innovation is not None:
        arrays["density"] = meta.density((14, 14), map="innovation").astype(np.float16)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def add_sample(shard: tarfile.TarFile, key: str, outcome: codecmeta.Outcome) -> None:
    """Add a video and what is known of it under one key."""
    meta, source = codecmeta.load(outcome.meta), Path(outcome.source)
    members = {
        source.suffix.lstrip(".").lower(): source.read_bytes(),
        "npz": pack(meta),
        "json": json.dumps(describe(meta)).encode(),
    }
    for extension, content in members.items():
        entry = tarfile.TarInfo(f"{key}.{extension}")
        entry.size = len(content)
        shard.addfile(entry, io.BytesIO(content))


def main() -> None:
    """Extract a folder and write its whole videos into shards."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-shard", type=int, default=1000)
    parser.add_argument("--jobs", type=int)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[codecmeta.Outcome] = []
    codecmeta.extract_many(
        options.videos,
        options.out / "meta",
        options=codecmeta.Options(frames="uniform:8", pixels=None),
        jobs=options.jobs,
        report=outcomes.append,
    )
    whole, skipped = [], []
    for outcome in sorted(outcomes, key=lambda one: one.source):
        code = outcome.code
        if outcome.status != "failed":
            state = codecmeta.load(outcome.meta).info["verdict"]["state"]
            code = state if state in ("damaged", "truncated") else ""
        if code:
            skipped.append({"source": outcome.source, "code": code, "message": outcome.message})
        else:
            whole.append(outcome)
    for start in range(0, len(whole), options.per_shard):
        with tarfile.open(options.out / f"videos-{start // options.per_shard:06d}.tar", "w") as shard:
            for number, outcome in enumerate(whole[start : start + options.per_shard], start):
                add_sample(shard, f"{number:08d}", outcome)
    (options.out / "skipped.jsonl").write_text("".join(json.dumps(line) + "\n" for line in skipped))
    print(f"{len(whole)} videos in shards, {len(skipped)} skipped")


if __name__ == "__main__":
    main()
