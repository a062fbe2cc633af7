"""Frame specifications."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecmeta.errors import SamplingError
from codecmeta.record.sampling import choose_frames, parse_frames

SECONDS = np.arange(100) / 25.0
KEY = np.arange(100) % 30 == 0


def choose(spec: str, seconds: np.ndarray = SECONDS) -> list[int]:
    return choose_frames(parse_frames(spec), seconds, KEY[: seconds.size]).tolist()


def test_uniform_takes_the_middles_of_equal_parts() -> None:
    assert choose("uniform:4") == [12, 37, 62, 87]
    assert choose("uniform:1") == [50]
    assert choose("uniform:100") == list(range(100))
    assert choose("uniform:500") == list(range(100))


@given(st.integers(1, 300), st.integers(1, 100))
def test_uniform_is_rising_and_complete(frames: int, wanted: int) -> None:
    chosen = choose_frames(f"uniform:{wanted}", np.arange(frames) / 25.0, np.ones(frames, bool))
    assert chosen.size == min(wanted, frames)
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < frames


def test_fps_takes_the_frame_on_screen() -> None:
    assert choose("fps:1") == [0, 25, 50, 75]
    assert choose("fps:0.5") == [0, 50]
    assert choose("fps:25") == list(range(100))
    # a slide that stands for three seconds is taken once
    assert choose("fps:1", np.array([0.0, 0.4, 3.5, 4.0])) == [0, 1, 2 + 1]


def test_keyframes_all_and_indices() -> None:
    assert choose("keyframes") == [0, 30, 60, 90]
    assert choose("all") == list(range(100))
    assert choose("80,0,40,40") == [0, 40, 80]
    assert parse_frames([5, 1]) == (1, 5)


@pytest.mark.parametrize(
    "spec", ["", "uniform", "uniform:0", "uniform:-3", "fps:0", "fps:x", "every", "1,,2", "1.5", "-4"]
)
def test_wrong_specifications_say_what_is_allowed(spec: str) -> None:
    with pytest.raises(SamplingError, match=r"choose from|must be|selects no frame"):
        parse_frames(spec)


def test_index_outside_the_video() -> None:
    with pytest.raises(SamplingError, match=r"frames 0\.\.99"):
        choose("100")
    with pytest.raises(SamplingError, match="negative"):
        parse_frames([-1])
