"""Settings of a served method, from the text that vLLM is given; no vLLM is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compress.baselines import DyCoke
from compress.compressor import Pipeline
from compress.cover import Cover
from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.methods import METHODS, build
from compress.metom import BTM, RPM
from compress.serving.vllm.families import FAMILIES, find
from compress.serving.vllm.settings import ServedMethod
from compress.stage import Signals

SERVED = {
    *("btm", "infomerge", "cover", "random", "stride", "pool", "frames", "smaller", "evs", "dycoke", "vidcom2"),
    *("divprune", "fastvid", "holitom", "visionzip", "prunevid", "unified-sttc", "tome-video", "sttm", "flashvid"),
}


def test_the_method_is_the_one_that_attach_takes() -> None:
    assert ServedMethod.parse({"method": "infomerge"}, 0.9).compressor == InfoMerge(retention=0.1)
    assert ServedMethod.parse({"method": "cover", "settings": {"reach_time": 2}}, 0.85).compressor == Cover(
        retention=0.15, reach_time=2.0
    )
    assert ServedMethod.parse({"method": "btm", "rpm": {"target_keep": 0.6}}, 0.7).compressor == Pipeline(
        RPM(target_keep=0.6), BTM(retention=0.3)
    )
    served = ServedMethod.parse({"method": "btm", "settings": {"window": None, "m_min": 3}}, 0.7)
    assert served.compressor == BTM(retention=0.3, m_min=3)


@pytest.mark.parametrize("retention", [0.05, 0.1, 0.15, 0.3, 1 / 3, 0.57])
def test_what_is_written_is_read_again(retention: float) -> None:
    served = ServedMethod(method="infomerge", retention=retention, settings={"tau": "1.5"}, map="none")
    again = ServedMethod.parse(served.overrides(), served.pruning_rate)
    assert again.retention == pytest.approx(retention, abs=1e-9)
    assert (again.method, again.settings, again.map, again.saliency) == ("infomerge", {"tau": "1.5"}, "none", "auto")


@pytest.mark.parametrize(
    ("given", "rate", "message"),
    [
        (None, 0.9, "give an object with a method"),
        ({"name": "infomerge"}, 0.9, "give an object with a method"),
        ({"method": "infomerge", "tau": 1}, 0.9, "fields of the method go into settings"),
        ({"method": "infomerge"}, None, "--video-pruning-rate is missing or 0"),
        ({"method": "infomerge"}, 0.0, "--video-pruning-rate is missing or 0"),
        ({"method": "infomege"}, 0.9, "unknown method 'infomege'; choose from"),
        ({"method": "infomerge", "settings": {"tua": 1}}, 0.9, "no field 'tua'"),
        ({"method": "infomerge", "settings": [1]}, 0.9, "settings is"),
        ({"method": "infomerge", "settings": []}, 0.9, "settings is"),
        ({"method": "infomerge", "map": "x"}, 0.9, "unknown map 'x'"),
        ({"method": "infomerge", "saliency": "head"}, 0.9, "choose from auto, none"),
        ({"method": "infomerge", "rpm": {"x": 1}}, 0.9, "no field 'x'"),
        ({"method": "infomerge", "rpm": True}, 0.9, "rpm is True; give an object"),
        ({"method": "matm"}, 0.5, "one length for all layers"),
        ({"method": "metom"}, 0.5, "one length for all layers"),
        ({"method": "fastv"}, 0.5, "one length for all layers"),
        ({"method": "rpm"}, 0.5, "vision encoder"),
        ({"method": "tome"}, 0.5, "vision encoder"),
        ({"method": "earlytom"}, 0.5, "vision encoder"),
        ({"method": "dycoke-decoding"}, 0.5, "at every decoding step"),
        ({"method": "btm", "settings": {"refill": False}}, 0.5, "without refill"),
        ({"method": "infomerge", "settings": {"budget": "paper"}}, 0.5, "budget=exact"),
        ({"method": "dycoke", "settings": {"fidelity": "reference"}}, 0.5, "released code"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(given: Any, rate: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServedMethod.parse(given, rate)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("frames", "rate"), [(7, 0.9), (12, 0.85), (5, 0.61)])
def test_the_count_is_known_before_a_token_is_seen(name: str, frames: int, rate: float) -> None:
    if name not in SERVED:
        with pytest.raises(ConfigError, match="cannot be served"):
            ServedMethod.parse({"method": name}, rate)
        return
    served = ServedMethod.parse({"method": name}, rate)
    generator = torch.Generator().manual_seed(frames)
    tokens = torch.randn(frames, 42, 24, generator=generator)
    tokens[1::3] = tokens[:-1:3][: len(tokens[1::3])] + 1e-3 * tokens[1::3]
    density = torch.rand(frames, 42, generator=generator)
    for signals in (
        Signals(grid=(6, 7), density=density if name == "btm" else None),
        Signals(
            grid=(6, 7),
            saliency=torch.rand(frames, 42, generator=generator),
            packet_size=np.arange(1, frames + 1) ** 2,
            density=density,
        ),
    ):
        assert served.compressor.before_llm(tokens, signals).achieved == served.count(frames, 42)


def test_settings_differ_in_the_key_of_caches() -> None:
    served = [
        ServedMethod(method="infomerge", retention=0.1),
        ServedMethod(method="infomerge", retention=0.2),
        ServedMethod(method="infomerge", retention=0.1, settings={"tau": "2"}),
        ServedMethod(method="infomerge", retention=0.1, saliency="none"),
        ServedMethod(method="infomerge", retention=0.1, map="innovation"),
        ServedMethod(method="cover", retention=0.1),
        ServedMethod(method="cover", retention=0.1, rpm={}),
    ]
    assert len({one.key for one in served}) == len(served)
    assert served[0].key == ServedMethod.parse({"method": "infomerge", "settings": {"c": 8}}, 0.9).key


def test_families() -> None:
    assert find("Qwen3VLForConditionalGeneration").served == "CompressQwen3VLForConditionalGeneration"
    assert all(one.target.endswith(f":{one.served}") for one in FAMILIES.values())
    with pytest.raises(ConfigError, match="cannot be served compressed"):
        find("LlamaForCausalLM")


def test_released_code_is_not_served() -> None:
    assert DyCoke(fidelity="reference").fidelity == "reference"
    assert build("dycoke").fidelity == "fixed"
