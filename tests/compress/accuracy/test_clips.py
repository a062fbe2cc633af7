"""Clips are rendered and extracted once, and their frames are those that the questions are about."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from codecmeta.record.sampling import choose_frames
from compress.accuracy import clips
from compress.accuracy.clips import Clip, default_cache, digest_extraction, digest_world, open_clip, sampled_frames
from compress.accuracy.scene import SAMPLED, make_scene, sample_frames
from compress.accuracy.world import decode


def test_frames_are_those_that_the_questions_are_about(clip: Clip, cache: Path) -> None:
    scene = make_scene(clip.seed, split=clip.split)
    assert np.array_equal(sampled_frames(clip.meta), scene.sampled)
    (file,) = cache.rglob(f"{clip.seed:06d}.mp4")
    assert clip.meta.frames is not None
    plain = decode(file.read_bytes(), scene.sampled).astype(int)
    assert np.abs(clip.meta.frames - plain).mean() < 3
    others = decode(file.read_bytes(), scene.sampled - 3).astype(int)
    assert np.abs(clip.meta.frames - plain).mean() < np.abs(clip.meta.frames - others).mean()


@pytest.mark.parametrize("count", [16, 17, 99, 100, 180, 181])
def test_the_benchmark_samples_as_codecmeta_does(count: int) -> None:
    chosen = choose_frames(f"uniform:{SAMPLED}", np.arange(count) / 25, np.arange(count) == 0)
    assert np.array_equal(chosen, sample_frames(count))


def test_a_clip_is_made_once(clip: Clip, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise AssertionError("rendered again")

    monkeypatch.setattr(clips, "encode", refuse)
    again = open_clip(cache, clip.split, clip.seed)
    assert again.questions == clip.questions
    assert np.array_equal(again.labels.occupied, clip.labels.occupied)
    with pytest.raises(AssertionError, match="rendered"):
        open_clip(cache, clip.split, clip.seed + 1)
    monkeypatch.setattr(clips, "digest_world", lambda: "another")
    with pytest.raises(AssertionError, match="rendered"):
        open_clip(cache, clip.split, clip.seed)


def test_a_changed_codecmeta_extracts_anew(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip(tmp_path, clip.split, clip.seed)
    open_clip(tmp_path, clip.split, clip.seed)
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    digest_extraction.cache_clear()
    monkeypatch.setattr(clips.codecmeta, "__path__", [str(Path(clips.__file__).parent)])
    open_clip(tmp_path, clip.split, clip.seed)
    digest_extraction.cache_clear()
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    assert len(list(tmp_path.rglob("*.mp4"))) == 1


def test_a_record_of_other_frames_is_refused(clip: Clip, cache: Path, tmp_path: Path) -> None:
    import codecmeta

    (file,) = cache.rglob(f"{clip.seed:06d}.mp4")
    home = tmp_path / f"world-{digest_world()}"
    record = home / f"meta-{digest_extraction()}" / clip.split / f"{file.name}.npz"
    (home / clip.split).mkdir(parents=True)
    shutil.copy(file, home / clip.split)
    record.parent.mkdir(parents=True)
    codecmeta.extract(file, frames="uniform:8").save(record)
    with pytest.raises(ValueError, match="uniform:16 chose frames"):
        open_clip(tmp_path, clip.split, clip.seed)


def test_all_maps_and_sizes_are_there(clip: Clip) -> None:
    assert clip.meta.energy_carried is not None and clip.meta.energy_innovation is not None
    assert clip.meta.frames is not None and clip.meta.frames.shape == (16, 128, 128, 3)
    assert clip.labels.occupied.shape == (16, 7, 7)
    assert clip.name == "val/3"


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/codecmeta/accuracy")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/codecmeta/accuracy"
