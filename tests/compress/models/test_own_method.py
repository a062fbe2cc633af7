"""What a session says of methods and videos that are not what they should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.attach import Attachable
from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.metom import BTM
from compress.models.inputs.prompt import prepare
from compress.plan import MergePlan
from compress.stage import Compression, Signals
from tests.compress.models.material import TOKENIZER, generate, inputs_of, sharp_model, video_meta


class Own(Attachable):
    """Returns what it was given."""

    def __init__(self, returned: Any = None, signals: tuple[str, ...] = ()) -> None:
        self.returned = returned
        self.signals = signals

    def before_llm(self, tokens: torch.Tensor, signals: Signals) -> Compression:
        returned: Compression = self.returned
        return returned


def test_a_signal_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown signals 'packetsize' of Own; choose from packet_size, density"):
        Own(signals=("density", "packetsize")).attach(sharp_model("qwen2-vl-tiny"))


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (MergePlan.identity(3), "before_llm of Own returned MergePlan; return a compress.stage.Compression"),
        (None, "before_llm of Own returned NoneType"),
        (
            Compression(method="own", plan=MergePlan.identity(3), frames=1, nominal=3),
            "the plan of Own is over 3 tokens; this video has 36",
        ),
    ],
)
def test_what_a_method_returns_is_checked(returned: Any, says: str) -> None:
    model = sharp_model("llava-onevision-tiny")
    with Own(returned).attach(model), pytest.raises(ConfigError, match=says):
        generate(model, inputs_of(model, video_meta()), steps=1)


@pytest.mark.parametrize("meta", ["clip.npz", ["clip.npz"], {"frames": 1}])
def test_metadata_is_no_path(meta: Any) -> None:
    with pytest.raises(ConfigError, match=r"is no metadata; give codecmeta\.load\(path\)"):
        BTM().attach(sharp_model("llava-onevision-tiny"), meta)


def test_a_map_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown map 'motion'; choose from auto, none"):
        InfoMerge().attach(sharp_model("llava-onevision-tiny"), video_meta(), map="motion")


def test_a_video_is_no_list() -> None:
    with pytest.raises(ConfigError, match="a video is list; give its metadata"):
        prepare(sharp_model("llava-onevision-tiny"), [1, 2], "What?", tokenizer=TOKENIZER)
