"""Record what the benchmark consists of, so that changes show: digests of scenes, questions, files, pictures, weights.

    python -m bench.accuracy.freeze        writes compress/accuracy/frozen.json and the clips of data/sprites

Scenes and questions depend on NumPy's generator alone. Files and decoded pictures depend on libx264, FFmpeg and OpenCV
too; the versions of these are recorded next to their digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import av
import cv2

from compress.accuracy.questions import ask
from compress.accuracy.scene import make_scene
from compress.accuracy.world import decode, encode
from compress.demo import WEIGHTS

VERSION: Final = 2
"""Of the benchmark; figures of different versions are not to be compared."""

TEST_CLIPS: Final = 2000
CHECKED: Final = 50
"""Clips of the test split whose files and pictures are digested."""

ROOT: Final = Path(__file__).parents[2]
FROZEN: Final = ROOT / "compress" / "accuracy" / "frozen.json"
SPRITES: Final = ROOT / "data" / "sprites"
SHOWN: Final = (1000007, 1000011, 1000073, 1000091)
"""Seeds of the split val, far from those that settings are chosen on, whose clips are in the repository."""


def digest_questions(seeds: Sequence[int]) -> str:
    """SHA-256 over scenes and questions of the test split."""
    digest = hashlib.sha256()
    for seed in seeds:
        scene = make_scene(seed, split="test")
        digest.update(json.dumps(_plain(asdict(scene)), sort_keys=True).encode())
        digest.update(json.dumps([asdict(question) for question in ask(scene, scene.sampled)]).encode())
    return digest.hexdigest()


def digest_clips(seeds: Sequence[int]) -> tuple[str, str]:
    """SHA-256 over the files and over the sampled pictures of the test split."""
    files, pictures = hashlib.sha256(), hashlib.sha256()
    for seed in seeds:
        scene = make_scene(seed, split="test")
        data = encode(scene)
        files.update(data)
        pictures.update(decode(data, scene.sampled).tobytes())
    return files.hexdigest(), pictures.hexdigest()


def encoder_versions() -> dict[str, str]:
    """Return the versions of the libraries that files and pictures depend on."""
    return {"pyav": av.__version__, "ffmpeg": str(av.ffmpeg_version_info), "opencv": cv2.__version__}


def describe() -> dict[str, Any]:
    """Compute the contents of `frozen.json`."""
    files, pictures = digest_clips(range(CHECKED))
    return {
        "version": VERSION,
        "test_clips": TEST_CLIPS,
        "questions_sha256": digest_questions(range(TEST_CLIPS)),
        "checked": CHECKED,
        "checked_questions_sha256": digest_questions(range(CHECKED)),
        "encoder": encoder_versions(),
        "checked_files_sha256": files,
        "checked_pictures_sha256": pictures,
        "weights_sha256": hashlib.sha256((WEIGHTS / "model.safetensors").read_bytes()).hexdigest(),
    }


def write_sprites(folder: Path) -> None:
    """Write a few clips of the benchmark's world with their questions, for the demo and for tests."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = {}
    for seed in SHOWN:
        scene = make_scene(seed, split="val")
        name = f"sprites_{seed % 1000:02d}.mp4"
        (folder / name).write_bytes(encode(scene))
        asked[name] = [
            {"family": one.family, "question": one.text, "answer": one.answer} for one in ask(scene, scene.sampled)
        ]
    (folder / "questions.json").write_text(json.dumps(asked, indent=1) + "\n")


def _plain(value: Any) -> Any:
    """Numbers rounded to what every machine agrees on."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(describe(), indent=1) + "\n")
    write_sprites(SPRITES)
