"""What `compress run` does: files, resume, failures, and the one video in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from codecmeta import VideoMeta
from compress.density import measure_density
from compress.encoders import SpectralEncoder
from compress.encoders.spectral import COVERED, GRID
from compress.errors import CompressError, ConfigError
from compress.infomerge import InfoMerge
from compress.metom.btm import BTM
from compress.metom.rpm import RPM
from compress.records import find_metas
from compress.runner import Job, output_paths, run
from compress.stage import Compression, Signals
from compress.token_file import read_tokens, write_whole
from compress.video import compress_video, merge_patches


@dataclass(frozen=True, kw_only=True)
class Both:
    """RPM before the encoder and BTM after it."""

    retention: float = 0.3
    tau_tem: float = 0.9

    def before_encoder(self, density: Tensor | NDArray[np.float32]) -> Compression:
        return RPM(target_keep=0.8).before_encoder(density)

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        return BTM(retention=self.retention, tau_tem=self.tau_tem).before_llm(tokens, signals)


def make_meta(
    *, maps: tuple[str, ...] = ("carried", "innovation"), pixels: bool = True, frames: int = 6, seed: int = 0
) -> VideoMeta:
    """Make a record of a fictitious video: 64x48, one GoP of two packets per frame, the third much larger."""
    rng = np.random.default_rng(seed)
    sizes = np.full(2 * frames, 100, np.uint32)
    sizes[4:6] = 5000
    arrays: dict[str, Any] = {}
    for name in maps:
        energy = rng.exponential(1, (frames, 12, 16)).astype(np.float32)
        arrays[f"energy_{name}"] = energy
        arrays[f"range_{name}"] = np.stack([energy.min((1, 2)) / 2, energy.max((1, 2)) * 2], 1)
    coarse = rng.integers(0, 256, (frames, 6, 8, 3), np.uint8)
    fine = rng.integers(0, 2, (frames, 48, 64, 3), np.uint8)
    return VideoMeta(
        info={
            "source": {"name": "clip.mp4", "bytes": 1, "mtime_ns": 0, "sha256": "0" * 64},
            "stream": {
                "index": 0,
                "codec": "h264",
                "profile": "High",
                "width": 64,
                "height": 48,
                "bit_depth": 8,
                "chroma": "4:2:0",
                "fps": 25.0,
                "time_base": [1, 25],
                "duration_s": frames / 12.5,
                "orientation": [[1, 0, 0], [0, 1, 0]],
                "sar": [1, 1],
            },
            "verdict": {"state": "complete"},
            "signals": {},
            "extraction": {
                "version": "0",
                "libraries": {},
                "sampling": "all",
                "block": 4,
                "pixels": 48,
                "warnings": [],
            },
        },
        packet_pts=np.arange(2 * frames),
        packet_dts=np.arange(2 * frames),
        packet_size=sizes,
        packet_key=np.arange(2 * frames) % 2 == 0,
        frame_packet=np.arange(0, 2 * frames, 2, dtype=np.int32),
        frame_pts=np.arange(0, 2 * frames, 2),
        frame_type=np.array(["I"] * frames),
        frames=np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8)) ^ fine if pixels else None,
        **arrays,
    )


@pytest.fixture
def meta_folder(tmp_path: Path) -> Path:
    """Two videos, one of them in a folder."""
    folder = tmp_path / "meta"
    (folder / "a").mkdir(parents=True)
    make_meta().save(folder / "one.mp4.npz")
    make_meta(seed=1).save(folder / "a" / "two.mkv.npz")
    return folder


def job(**changes: Any) -> Job:
    return Job(method=Both(), name="both", retention=0.3, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_output_mirrors_the_input_and_holds_tokens_plan_and_positions(meta_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    reports = list(run(meta_folder, out, job()))
    assert [(r.video, r.status) for r in reports] == [("a/two.mkv", "done"), ("one.mp4", "done")]
    assert set(contents(out)) == {f"{r.video}{s}" for r in reports for s in (".json", ".safetensors")}
    for report in reports:
        file = read_tokens(report.out or "")
        meta = make_meta(seed=int(report.video.startswith("a/")))
        video = compress_video(meta, Both(), encoder=SpectralEncoder())
        assert torch.equal(file.tokens, video.tokens)
        assert torch.equal(file.plan.dense(), video.compression.plan.dense())
        assert file.patches is not None
        assert video.patches is not None
        assert torch.equal(file.patches.keep, video.patches.plan.keep)
        assert torch.equal(file.positions, file.plan.keep)
        assert file.frame.bincount(minlength=6).tolist() == list(report.budgets)
        assert file.frame_seconds.tolist() == [0.08 * i for i in range(6)]
        assert file.grid == (14, 14)
        assert (report.frames, report.tokens_in, report.tokens_out) == (6, 1176, len(file.tokens))
        assert report.tokens_out == round(0.3 * 1176)
        assert sum(report.granted) == round(0.3 * 1176)
        assert max(report.granted) == report.granted[2]
        assert report.merges["patches_in"] == 6 * 729
        assert report.merges["patches_encoded"] < 6 * 729
        assert {"load", "density", "encode", "compress", "save"} == set(report.seconds)


def test_run_repeats_to_the_bit(meta_folder: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        list(run(meta_folder, tmp_path / name, job()))
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    tokens = [name for name in first if name.endswith(".safetensors")]
    assert len(tokens) == 2
    assert all(first[name] == second[name] for name in tokens)
    assert first[tokens[0]] != first[tokens[1]]


def touched(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_second_run_leaves_everything_as_it_is(meta_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    first = list(run(meta_folder, out, job()))
    before = touched(out)
    second = list(run(meta_folder, out, job()))
    assert [r.status for r in second] == ["kept", "kept"]
    assert touched(out) == before
    assert [json.loads(replace(r, status="done").to_json()) for r in second] == [json.loads(r.to_json()) for r in first]
    list(run(meta_folder, out, job(overwrite=True)))
    assert all(touched(out)[name] > time for name, time in before.items())


def _other_option(folder: Path, out: Path) -> Job:
    return Job(method=Both(tau_tem=0.8), name="both", retention=0.3)


def _other_map(folder: Path, out: Path) -> Job:
    return job(map="texture")


def _other_input(folder: Path, out: Path) -> Job:
    make_meta(seed=7).save(folder / "one.mp4.npz")
    return job()


def _lost_tokens(folder: Path, out: Path) -> Job:
    (out / "one.mp4.safetensors").unlink()
    return job()


def _cut_tokens(folder: Path, out: Path) -> Job:
    (out / "one.mp4.safetensors").write_bytes(b"short")
    return job()


def _broken_report(folder: Path, out: Path) -> Job:
    (out / "one.mp4.json").write_text("{")
    return job()


def _false_figures(folder: Path, out: Path) -> Job:
    record = json.loads((out / "one.mp4.json").read_text())
    record["report"]["budgets"] = ["many"] * 6
    (out / "one.mp4.json").write_text(json.dumps(record))
    return job()


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (_other_option, 2),
        (_other_map, 2),
        (_other_input, 1),
        (_lost_tokens, 1),
        (_cut_tokens, 1),
        (_broken_report, 1),
        (_false_figures, 1),
    ],
)
def test_only_what_is_missing_or_stale_is_done_again(
    change: Callable[[Path, Path], Job], redone: int, meta_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    list(run(meta_folder, out, job()))
    pictures = [out / "one.mp4.png", out / "a" / "two.mkv.png"]
    for picture in pictures:
        picture.write_bytes(b"tokens of the first run")
    again = list(run(meta_folder, out, change(meta_folder, out)))
    assert [picture.exists() for picture in pictures] == [False, redone == 1]
    assert sorted(r.status for r in again) == ["done"] * redone + ["kept"] * (2 - redone)
    assert read_tokens(out / "one.mp4.safetensors").tokens.shape[1] == SpectralEncoder().width


def test_bad_inputs_fail_alone_and_leave_nothing_behind(meta_folder: Path, tmp_path: Path) -> None:
    (meta_folder / "garbage.npz").write_bytes(b"PK\x03\x04 not a zip")
    (meta_folder / "cut.npz").write_bytes((meta_folder / "one.mp4.npz").read_bytes()[:20_000])
    (meta_folder / "empty.npz").touch()
    os.mkfifo(meta_folder / "pipe.npz")
    make_meta(pixels=False).save(meta_folder / "blind.npz")
    out = tmp_path / "tokens"
    reports = {r.video: r for r in run(meta_folder, out, job())}
    failed = {name for name, report in reports.items() if report.status == "failed"}
    assert failed == {"garbage", "cut", "empty", "blind", "pipe"}
    assert "internal error" not in "".join(report.message for report in reports.values())
    assert "codecmeta extract PATH/clip.mp4 --out META --pixels 384" in reports["blind"].message
    assert {name.split(".")[0] for name in contents(out)} == {"one", "a/two"}


def test_fault_of_a_method_is_reported_and_does_not_stop_the_run(meta_folder: Path, tmp_path: Path) -> None:
    class Faulty:
        def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
            raise RuntimeError("out of luck")

    reports = list(run(meta_folder, tmp_path / "out", Job(method=Faulty(), name="faulty", retention=1.0)))
    assert [r.status for r in reports] == ["failed", "failed"]
    assert all("internal error" in r.message and "out of luck" in r.message for r in reports)


def test_infinite_constant_is_recorded(meta_folder: Path, tmp_path: Path) -> None:
    hard = Job(method=InfoMerge(lam=float("inf")), name="infomerge", retention=0.1)
    assert [r.status for r in run(meta_folder, tmp_path / "out", hard)] == ["done", "done"]
    assert [r.status for r in run(meta_folder, tmp_path / "out", hard)] == ["kept", "kept"]
    record = json.loads((tmp_path / "out" / "one.mp4.json").read_text())
    assert record["options"]["fields"]["lam"] == "inf"
    soft = replace(hard, method=InfoMerge(lam=12.0))
    assert [r.status for r in run(meta_folder, tmp_path / "out", soft)] == ["done", "done"]


def test_everything_kept_is_a_plan_too(meta_folder: Path, tmp_path: Path) -> None:
    whole = Job(method=InfoMerge(retention=1.0), name="infomerge", retention=1.0)
    for report in run(meta_folder, tmp_path / "out", whole):
        assert report.tokens_out == report.tokens_in == 1176
        assert torch.equal(read_tokens(report.out or "").plan.keep, torch.arange(1176))


def test_unwritable_output_is_a_failure_of_that_video(meta_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    out.mkdir()
    (out / "a").write_text("a file where a folder has to be")
    reports = {r.video: r for r in run(meta_folder, out, job())}
    assert reports["a/two.mkv"].status == "failed"
    assert reports["one.mp4"].status == "done"


def test_report_line_is_ascii_json_whatever_the_name(tmp_path: Path) -> None:
    folder, out = tmp_path / "meta", tmp_path / "out"
    folder.mkdir()
    name = os.fsdecode(b"b\xffd \n[red] \xc3\xa4.mp4")
    make_meta().save(folder / f"{name}.npz")
    (report,) = run(folder, out, job())
    assert report.status == "done"
    line = report.to_json()
    assert line.isascii()
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["video"] == name
    keys = {"video", "method", "retention", "frames", "tokens_in", "tokens_out", "budgets", "seconds", "out"}
    assert keys <= set(parsed)
    assert [r.status for r in run(folder, out, job())] == ["kept"]


def test_name_too_long_for_a_file_becomes_its_digest() -> None:
    short, long = output_paths("out", "a/" + "x" * 243), output_paths("out", "a/" + "x" * 244)
    assert short["tokens"].name == "x" * 243 + ".safetensors"
    assert len(long["tokens"].name) == 64 + len(".safetensors")
    assert long["tokens"] != output_paths("out", "a/" + "y" * 244)["tokens"]


def test_nothing_to_do_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        find_metas(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no \.npz"):
        find_metas(tmp_path)


def test_single_file_is_an_input_too(meta_folder: Path, tmp_path: Path) -> None:
    (report,) = run(meta_folder / "a" / "two.mkv.npz", tmp_path / "out", job())
    assert (report.video, report.status) == ("two.mkv", "done")


def test_method_without_the_stage_of_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="between the encoder and the language model"):
        Job(method=RPM(), name="rpm", retention=1.0)


def test_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_whole(target, b"before")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(target, b"after")
    assert contents(tmp_path) == {"file": b"before"}


def test_foreign_file_is_not_a_token_file(tmp_path: Path) -> None:
    for content in (b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"x" * 100):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(CompressError, match="not a token file"):
            read_tokens(tmp_path / "file")


# One video in memory.


def test_rpm_is_skipped_where_no_map_is_wanted_and_that_is_said() -> None:
    skipped = compress_video(make_meta(), Both(), encoder=SpectralEncoder(), map="none")
    assert skipped.patches is None
    assert skipped.sources["rpm"] == "skipped"
    assert skipped.sources["density"] == "texture"
    assert any("RPM skipped" in note for note in skipped.notes)
    used = compress_video(make_meta(), Both(), encoder=SpectralEncoder())
    assert used.patches is not None
    assert used.sources["rpm"] == "texture"
    assert used.notes == ()


def test_density_covers_the_patches_and_not_the_unused_rim() -> None:
    meta = make_meta(maps=("carried",))
    assert meta.energy_carried is not None
    energy = np.zeros_like(meta.energy_carried)
    energy[:, -1, :] = 1.0
    flagged = replace(meta, energy_carried=energy, range_carried=np.tile(np.array([0, 1], np.float32), (6, 1)))
    density = measure_density(flagged, "carried", GRID, covered=COVERED)
    patch = 14 * 48 / 384
    assert density.shape == (6, 27, 27)
    top_of_last_block, bottom_of_patches = 44.0, 27 * patch
    expected = (bottom_of_patches - top_of_last_block) / patch
    assert density[:, 26].min() == pytest.approx(min(expected, 1.0), abs=1e-5)
    assert density[:, :24].max() == 0


def test_texture_density_follows_the_frames() -> None:
    meta = make_meta()
    assert meta.frames is not None
    frames = np.full_like(meta.frames, 90)
    frames[:, 16:32, 24:40] = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3))
    density = measure_density(replace(meta, frames=frames), "texture", GRID, covered=COVERED)
    assert density[:, 10:17, 11:16].mean() > 0.05
    assert density[:, 3:8].max() < 1e-3  # the very first block of a picture has nothing to be predicted from


def test_merged_patches_share_the_mean_of_their_region() -> None:
    density = np.ones((2, 27, 27), np.float32)
    density[0, 3:5, 3:6] = 0
    patches = RPM(tau=0.5).before_encoder(density)
    features = torch.randn(2, 729, 4, generator=torch.Generator().manual_seed(0))
    merged = merge_patches(features, patches).reshape(2, 27, 27, 4)
    grid = features.reshape(2, 27, 27, 4)
    region = grid[0, 3:5, 3:6].reshape(-1, 4).mean(0)
    torch.testing.assert_close(merged[0, 3:5, 3:6], region.expand(2, 3, 4))
    outside = torch.ones(2, 27, 27, dtype=torch.bool)
    outside[0, 3:5, 3:6] = False
    assert torch.equal(merged[outside], grid[outside])
    assert not torch.allclose(merged[0, 3, 3], grid[0, 3, 3], atol=1e-3)
