"""Origin of pixels: metadata of another video than the model sees does not pass unnoticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import codecmeta
from codecmeta import VideoMeta
from compress import ConfigError, InfoMerge, MeToM, SignalError, pad_batch, prepare
from compress.models.inputs.random_weights import ByteTokenizer
from tests.compress.models.material import BACKBONES, sharp_model

METHODS = [MeToM(retention=0.4, layers=(2,)), InfoMerge(retention=0.4)]


def read(data: Path, name: str, **options: Any) -> VideoMeta:
    return codecmeta.extract(data / name, **{"frames": "uniform:4", "pixels": 48, "residual": "none", **options})


def ask(model: Any, shown: Sequence[Any], given: Sequence[VideoMeta], method: Any) -> Any:
    batch = pad_batch([prepare(model, one, "What moves?", tokenizer=ByteTokenizer()) for one in shown])
    with method.attach(model, list(given)) as session, torch.no_grad():
        model(**batch)
    return session.results


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_metadata_in_another_order_is_refused(backbone: str, method: Any, data: Path) -> None:
    model = sharp_model(backbone)
    still, event = read(data, "still_h264.mp4"), read(data, "event_h264.mp4", pixels=48)
    assert len(ask(model, [still, event], [still, event], method)) == 2
    with pytest.raises(
        SignalError, match=r"sees 'still_h264\.mp4', but metadata 0 is of 'event_h264\.mp4'.*in the order"
    ):
        ask(model, [still, event], [event, still], method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_metadata_of_another_video_warns(backbone: str, method: Any, data: Path) -> None:
    model = sharp_model(backbone)
    still = read(data, "still_h264.mp4")
    with pytest.warns(UserWarning, match=r"sees 'still_h264\.mp4', but metadata 0 is of 'event_h264\.mp4'"):
        ask(model, [still], [read(data, "event_h264.mp4")], method)
    with pytest.warns(UserWarning, match=r"is of other frames of 'still_h264\.mp4'"):
        ask(model, [still], [read(data, "still_h264.mp4", frames=[0, 1, 2, 3])], method)


def test_a_question_that_is_no_text_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="the question is None"):
        prepare(sharp_model(BACKBONES[0]), data / "still_h264.mp4", None, tokenizer=ByteTokenizer())  # type: ignore[arg-type]


def test_what_is_not_known_is_not_compared(data: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Another record of the same frames, the file itself, and frames from elsewhere."""
    model = sharp_model(BACKBONES[0])
    still = read(data, "still_h264.mp4", frames="uniform:32")
    ask(model, [still], [read(data, "still_h264.mp4", frames="uniform:32", residual="auto")], METHODS[0])
    ask(model, [data / "still_h264.mp4"], [still], METHODS[0])
    assert still.frames is not None
    ask(model, [np.array(still.frames)], [read(data, "event_h264.mp4", frames="uniform:32")], METHODS[0])
    assert not recwarn.list
