"""The agreement of maps is what it says, and the benchmark of residual stand-ins runs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import read_packets
from codecmeta.container.video import open_video
from codecmeta.h264.reader import ResidualReader

BENCH = Path(__file__).resolve().parents[2] / "bench"
CELLS = (27, 27)


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module("residual_fidelity")
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture
def maps(bench: ModuleType) -> ModuleType:
    return sys.modules["fidelity_agreement"]


def _energies(seed: int, *, zeros: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.exponential(30, CELLS) * (rng.random(CELLS) >= zeros)


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.95])
def test_a_map_agrees_with_itself(maps: ModuleType, zeros: float) -> None:
    truth = _energies(0, zeros=zeros)
    assert maps.agreement(truth, truth) == pytest.approx((1, 1, 1))
    # ranks and the largest cells do not depend on the unit, the logarithm does
    rank, log, overlap = maps.agreement(truth, truth**2)
    assert (rank, overlap) == pytest.approx((1, 1))
    assert log < 0.9999


def test_equal_cells_share_their_places(maps: ModuleType) -> None:
    tied = np.random.default_rng(1).integers(0, 4, CELLS).astype(float)
    assert maps.agreement(tied, tied) == pytest.approx((1, 1, 1))
    np.testing.assert_array_equal(maps.top_membership(np.array([5.0, 2.0, 2.0, 0.0]), 2), [1, 0.5, 0.5, 0])
    # the order in which equal cells lie does not matter
    truth = _energies(2, zeros=0.5)
    few = np.where(truth > np.quantile(truth, 0.9), truth, 0)
    assert maps.agreement(truth, few).overlap == pytest.approx(
        maps.agreement(truth[::-1, ::-1], few[::-1, ::-1]).overlap
    )


def test_independent_maps_do_not_agree(maps: ModuleType) -> None:
    scores = np.array([maps.agreement(_energies(seed), _energies(1000 + seed)) for seed in range(40)])
    np.testing.assert_allclose(scores.mean(axis=0), [0, 0, maps.TOP], atol=0.02)
    assert maps.agreement(_energies(0), 1000 - _energies(0)).rank == pytest.approx(-1)


def test_few_cells_with_residual_are_all_that_is_looked_for(maps: ModuleType) -> None:
    truth = np.zeros(CELLS)
    truth[3, 4:8] = [9, 3, 7, 5]
    noise = np.random.default_rng(3).random(CELLS)
    assert maps.agreement(truth, truth + noise).overlap == 1
    assert maps.agreement(truth, noise * (truth == 0)).overlap == 0


def test_constant_maps(maps: ModuleType) -> None:
    truth = _energies(4)
    for value in (0.0, 7.1):
        constant = maps.grid_means(np.full((50, 50), value), block=1, size=(50, 50))
        rank, log, overlap = maps.agreement(truth, constant)
        assert (rank, log) == (0, 0)
        assert overlap == pytest.approx(maps.TOP, abs=0.001)
        with pytest.raises(ValueError, match="does not vary"):
            maps.agreement(constant, truth)


@pytest.mark.parametrize("size", [(54, 81), (50, 61), (176, 144)])
def test_grid_means_are_area_means(maps: ModuleType, size: tuple[int, int]) -> None:
    samples = np.random.default_rng(5).random(size)
    # every sample cut into 27 x 27 pieces makes the cells whole
    pieces = np.repeat(np.repeat(samples, 27, 0), 27, 1).reshape(27, size[0], 27, size[1])
    np.testing.assert_allclose(maps.grid_means(samples, block=1, size=size), pieces.mean(axis=(1, 3)))
    rows, cols = (-(-length // 16) for length in size)
    blocks = np.random.default_rng(6).random((rows, cols))
    spread = np.repeat(np.repeat(blocks, 16, 0), 16, 1)[: size[0], : size[1]]
    expected = maps.grid_means(spread, block=1, size=size)
    np.testing.assert_allclose(maps.grid_means(blocks, block=16, size=size), expected)
    assert not np.allclose(maps.grid_means(blocks[::-1], block=16, size=size), expected)


def test_measuring_a_clip(
    bench: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    clips = [str(data / "cut_h264.mkv"), str(data / "event_h264.mp4")]
    arguments = ["residual_fidelity.py", "--pictures", "2", "--json", str(result)]
    monkeypatch.setattr(sys, "argv", [*arguments, *clips])
    assert bench.main() == 0
    report = json.loads(result.read_text())
    found = report["clips"]["cut_h264.mkv"]
    assert {kind: row["pictures"] for kind, row in found["types"].items()} == {"I": 2, "P": 2}
    for row in report["all"].values():
        for name in bench.ESTIMATES:
            rank, log, overlap = row[name]
            assert -1 <= rank <= 1 and -1 <= log <= 1 and 0 <= overlap <= 1
    motion = found["types"]["P"]["motion, best of 4/2 + dead zone"]
    assert motion[0] > 0.9 > found["types"]["P"]["texture"][0]
    events = report["clips"]["event_h264.mp4"]
    counted = [row["pictures"] for row in events["types"].values()] + list(events["without residual"].values())
    assert sum(counted) == 6
    monkeypatch.setattr(sys, "argv", [*arguments, "--markdown"])
    capsys.readouterr()
    assert bench.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(bench.ESTIMATES)


def test_another_codec_is_refused(
    bench: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["residual_fidelity.py", str(data / "objects_vp9.webm")])
    assert bench.main() == 1
    assert "vp9" in capsys.readouterr().err


def test_an_unexpected_block_shows(bench: ModuleType, data: Path, tmp_path: Path) -> None:
    frames = [0, 3, 40]
    scenes = sys.modules["fidelity_scenes"]
    with open_video(data / "cut_h264.mkv") as video:
        packets = read_packets(video)
        timeline = scenes.order_frames(video, packets)
        reader = ResidualReader(bytes(video.stream.codec_context.extradata or b""))
        wanted = timeline.packet[frames].tolist()
        planes = [np.clip(reader.read(payload).y, -128, 127) for _, payload in read_payloads(video, packets, wanted)]
        blocks = [plane.astype(np.int64).reshape(24, 8, 32, 8) for plane in planes]
        sums, squares = (np.array([(block**power).sum((1, 3)) for block in blocks]) for power in (1, 2))
        squares[0, 0, 0] = -1
        sums[1, 5, 5] += 1
        np.savez(tmp_path / "expected.npz", frame_index=frames, y_sum=sums, y_sqsum=squares)
        counts = bench.compare_expected(video, packets, timeline, tmp_path / "expected.npz")
    assert (counts["pictures"], counts["blocks"], counts["equal"]) == (3, 3 * 24 * 32 - 1, 3 * 24 * 32 - 2)
    assert counts["shifted"] < counts["equal"]
