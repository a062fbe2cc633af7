"""Comparisons with a model: divergence is 0 where all tokens stay, and not for another video's tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import codecmeta

pytest.importorskip("transformers")

from compress.accuracy.extremes import Everything
from compress.baselines import UniformStride
from compress.comparison import Asked, Cell, Job, choose_methods, compare
from compress.comparison.cell import ANOTHER, EVERYTHING
from compress.comparison.divergence import kl_divergence
from compress.comparison.interview import PromptInterview
from compress.errors import ConfigError
from compress.methods import METHODS
from compress.models.inputs.prompt import prepare
from compress.models.opening import open_model

METHODS_SHOWN = ("metom", "rpm", "tome", "earlytom", "matm", "pyramiddrop", "infomerge", "stride")


def cells_of(
    meta: Path, asked: Asked, methods: str, *retentions: float
) -> dict[tuple[str | None, str | None, float], Cell]:
    names, _ = choose_methods(methods, asked=True)
    job = Job(methods=names, retentions=retentions, asked=asked, repeats=1)
    return {
        (cell.video, cell.method, cell.retention or 0.0): cell for video in compare(meta, job) for cell in video.cells
    }


@pytest.mark.parametrize("backbone", ["llava-onevision-tiny", "qwen2.5-vl-tiny"])
def test_all_tokens_say_the_same_and_another_video_does_not(backbone: str, data: Path, tmp_path: Path) -> None:
    codecmeta.extract(data / "cut_h264.mkv", frames="uniform:4", pixels=64).save(tmp_path / "cut.npz")
    codecmeta.extract(data / "still_h264.mp4", frames="uniform:4", pixels=64).save(tmp_path / "still.npz")
    torch.manual_seed(0)
    model, tokenizer = open_model(random_config=backbone)
    asked = Asked(model=model, tokenizer=tokenizer, name=backbone, prompt="What moves?")
    cells = cells_of(tmp_path, asked, ",".join(METHODS_SHOWN), 1.0, 0.3)
    for video in ("cut", "still"):
        assert cells[video, EVERYTHING, 1.0].kl == (0.0,)
        assert cells[video, ANOTHER, 1.0].kl[0] > 1e-9
        for name in METHODS_SHOWN:
            whole, part = cells[video, name, 1.0], cells[video, name, 0.3]
            assert (whole.status, part.status) == ("done", "done"), (whole.message, part.message)
            assert (whole.kl, whole.agreement, whole.tokens_inner) == ((0.0,), 1.0, whole.tokens_in)
            assert (whole.assignment_error, whole.macs) == (0, whole.macs_full)
            assert part.kl[0] > 0
            assert part.assignment_error is not None and part.assignment_error > 0
    inner, outer = cells["cut", "matm", 0.3], cells["cut", "stride", 0.3]
    assert (inner.tokens_out, inner.tokens_inner) == (inner.tokens_in, outer.tokens_out)
    assert inner.macs is not None and outer.macs is not None and inner.macs_full is not None
    assert outer.macs < inner.macs < inner.macs_full
    assert (cells["cut", "rpm", 0.3].patches or 1) < 1
    # the divergence is that of the distributions that `generate` draws from
    record = codecmeta.load(tmp_path / "cut.npz")
    inputs = prepare(model, record, "What moves?", tokenizer=tokenizer)
    options = {"max_new_tokens": 1, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    plain = model.generate(**inputs, **options).logits[0].float().numpy()
    with UniformStride(retention=0.3).attach(model, record):
        shortened = model.generate(**inputs, **options).logits[0].float().numpy()
    assert outer.kl[0] == pytest.approx(float(kl_divergence(plain, shortened)[0]), rel=1e-2, abs=1e-10)
    interview = PromptInterview(model, tokenizer, "What moves?", record, "auto")
    assert (interview.ask(Everything()) == interview.plain).all()


def test_the_demo_model_is_asked_the_questions_of_its_clips_only(data: Path, tmp_path: Path) -> None:
    codecmeta.extract(data / "sprites" / "sprites_11.mp4", frames="uniform:16").save(tmp_path / "sprites_11.mp4.npz")
    codecmeta.extract(data / "cut_h264.mkv", frames="uniform:4").save(tmp_path / "cut.npz")
    model, tokenizer = open_model(checkpoint="demo")
    cells = cells_of(
        tmp_path, Asked(model=model, tokenizer=tokenizer, name="demo", prompt=None), "metom,matm,infomerge", 1.0, 0.05
    )
    refused = cells["cut", None, 0.0]
    assert refused.status == "failed" and "not a clip of the benchmark" in refused.message
    clip = "sprites_11.mp4"
    assert cells[clip, EVERYTHING, 1.0].kl == (0.0,) * 16
    # the other video is one that the model may not be asked about, but whose tokens serve as the control
    assert (cells[clip, ANOTHER, 1.0].kl_summary["kl_median"] or 0) > 0.1
    for name in ("metom", "matm", "infomerge"):
        assert cells[clip, name, 1.0].kl == (0.0,) * 16
        assert cells[clip, name, 1.0].agreement == 1
        assert len(cells[clip, name, 0.05].kl) == 16 and max(cells[clip, name, 0.05].kl) > 1e-4
    one = Asked(model=model, tokenizer=tokenizer, name="demo", prompt="which  digit was shown ?")
    found = cells_of(tmp_path / f"{clip}.npz", one, "stride", 0.1)
    assert len(found[clip, "stride", 0.1].kl) == 1
    assert (found[clip, ANOTHER, 1.0].status, "second video" in found[clip, ANOTHER, 1.0].message) == ("omitted", True)
    wrong = Asked(model=model, tokenizer=tokenizer, name="demo", prompt="what colour is the elephant ?")
    (cell,) = cells_of(tmp_path / f"{clip}.npz", wrong, "stride", 0.1).values()
    assert "is not a question about" in cell.message


def test_a_method_that_only_decodes_otherwise_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    entry = replace(METHODS["matm"], name="later", stages=("at_decoding",))
    monkeypatch.setattr("compress.methods.METHODS", {**METHODS, "later": entry})
    with pytest.raises(ConfigError, match="after the first word"):
        choose_methods("later", asked=True)
