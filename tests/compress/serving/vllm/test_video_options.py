"""Options of the loader ``codecmeta``: completed where a server is given none, refused where nothing reads them."""

from __future__ import annotations

from typing import Any

import pytest

from compress.errors import ConfigError
from compress.serving.vllm.families import FAMILIES
from compress.serving.vllm.video_options import NO_NUM_FRAMES, SAMPLINGS, check_options, complete_options


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.architecture)
def test_a_family_has_a_rule_that_needs_no_options(family: Any) -> None:
    given: dict[str, Any] = {}
    said = complete_options(given, family.sampling)
    assert given == {"video_backend": "codecmeta", "sampling": family.sampling}
    assert said == f"videos are read by the loader codecmeta, frames chosen by the rule {family.sampling}"


def test_what_is_given_stays_and_is_said() -> None:
    given = {"video_backend": "codecmeta", "sampling": "opencv", "num_frames": 8}
    assert "frames chosen by the rule opencv, not by qwen2_vl" in complete_options(given, "qwen2_vl")
    assert given["num_frames"] == 8
    given = {"video_backend": "torchcodec", "device": "cuda"}
    assert "read by the loader torchcodec, without codec metadata" in complete_options(given, "qwen2_vl")
    assert given == {"video_backend": "torchcodec", "device": "cuda"}


@pytest.mark.parametrize("number", NO_NUM_FRAMES)
def test_a_number_of_frames_that_nobody_asked_for_is_no_fault(number: int) -> None:
    for sampling in SAMPLINGS:
        check_options({"sampling": sampling, "num_frames": number})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "sampling None; name the rule that chooses frames, one of qwen2_vl, qwen3_vl, opencv"),
        ({"sampling": ["opencv"]}, "name the rule"),
        ({"sampling": "qwen3_vl", "num_frames": 16}, "reads no 'num_frames'"),
        ({"sampling": "qwen3_vl", "temporal_patch_size": 2}, "reads no 'temporal_patch_size'"),
        ({"sampling": "opencv", "max_frames": 16}, "reads no 'max_frames'"),
        ({"sampling": "opencv", "max_duration": 300, "frame_recovery": True}, "no 'max_duration', 'frame_recovery'"),
        ({"sampling": "qwen2_vl", "max_frames": 1000}, "max_frames is 1000; allowed are numbers above 0, at most 768"),
        ({"sampling": "qwen2_vl", "fps": 60}, "fps is 60; allowed are numbers above 0, at most 30"),
        ({"sampling": "qwen2_vl", "fps": -1}, "fps is -1"),
        ({"sampling": "opencv", "fps": "2"}, "fps is '2'; allowed are numbers above 0"),
        ({"sampling": "opencv", "num_frames": 0}, "num_frames is 0"),
        ({"sampling": "opencv", "pixels": 0}, "pixels is 0"),
    ],
)
def test_what_the_rule_does_not_read_or_allow_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_options(given)
