"""Tokens that a run writes are those that the language model is given when a question is asked about the video."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from compress.baselines import EarlyTom, RandomTokens, ToMe
from compress.compressor import Pipeline
from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, RPM, MeToM
from compress.models import answer as answer_module
from compress.models.answer import Question, answer_videos
from compress.models.inputs.prompt import prepare
from compress.models.opening import open_model
from compress.models.shortener import ModelShortener
from compress.runner import Job, run
from compress.token_file import TokenFile, read_tokens
from tests.compress.models.material import BACKBONES, TOKENIZER, sharp_model, video_meta
from tests.compress.models.oracle import record_prompt, token_layout

METHODS: dict[str, Any] = {
    "metom": MeToM(retention=0.4, target_keep=0.7, layers=(1, 2)),
    "infomerge": InfoMerge(retention=0.3),
    "tome": Pipeline(ToMe(retention=0.5), RandomTokens(retention=0.5)),
    "earlytom": EarlyTom(retention=0.4, T=-1.0, prune_layers=(0,)),
    "literal": MeToM.literal(retention=0.4, target_keep=0.7, layers=(1, 2)),
}


def write_run(folder: Path, backbone: str, method: Any, *, name: str = "tokens") -> TokenFile:
    """Write the token file of one video."""
    job = Job(method=method, name="method", retention=0.4, shortener=ModelShortener(random_config=backbone))
    (report,) = run(folder / "square.npz", folder / name, job)
    assert report.status == "done", report.message
    assert report.out is not None
    file = read_tokens(report.out)
    assert sum(report.budgets) == report.tokens_out == len(file.tokens)
    return file


def ask_and_capture(
    folder: Path, backbone: str, method: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, dict[str, Tensor]]:
    """Ask a model; return it and the arguments of its language model for the prompt, captured after all hooks."""
    model, tokenizer = open_model(checkpoint=None, random_config=backbone, device="cpu")
    decoder, seen = model.model.language_model, {}
    plain = decoder.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not seen:
            seen.update(kwargs)
        return plain(*args, **kwargs)

    monkeypatch.setattr(decoder, "forward", forward)
    question = Question(
        text="What moves?", model=model, tokenizer=tokenizer, compressor=method, method="m", retention=0.4, new_tokens=1
    )
    (answer,) = answer_videos(folder / "square.npz", question)
    assert answer.status == "done", answer.message
    monkeypatch.undo()
    return model, seen


def visual_columns(model: Any, ids: Tensor, keep: Tensor) -> tuple[Tensor, int]:
    """Columns of a shortened prompt that hold the kept visual tokens, and its length, from the whole prompt alone."""
    places, newlines = token_layout(model, ids)
    kept = [places[index] for index in keep.tolist()]
    ends = {newlines[index] for index in keep.tolist()}
    left = set(places) - set(kept) | (set(newlines) - ends - {-1})
    columns = [column for column in range(len(ids)) if column not in left]
    rank = {column: number for number, column in enumerate(columns)}
    return torch.tensor([rank[column] for column in kept]), len(columns)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_run_writes_what_the_language_model_is_given(
    backbone: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = video_meta()
    meta.save(tmp_path / "square.npz")
    file = write_run(tmp_path, backbone, METHODS[name])
    model, given = ask_and_capture(tmp_path, backbone, METHODS[name], monkeypatch)
    inputs = prepare(model, meta, "What moves?", tokenizer=TOKENIZER)
    columns, length = visual_columns(model, inputs["input_ids"][0], file.plan.keep)
    assert given["inputs_embeds"].shape[1] == length < inputs["input_ids"].shape[1]
    assert torch.equal(file.tokens, given["inputs_embeds"][0, columns].float())
    # controls: the columns one further, and the tokens of another video, are others
    assert not torch.equal(file.tokens, given["inputs_embeds"][0, columns + 1].float())
    video_meta(1).save(tmp_path / "square.npz")
    other = write_run(tmp_path, backbone, METHODS[name], name="other")
    assert file.tokens.shape != other.tokens.shape or not torch.equal(file.tokens, other.tokens)

    plain = record_prompt(model, inputs)["position_ids"]
    first = token_layout(model, inputs["input_ids"][0])[0][0]
    three = plain.dim() == 3
    start = plain[..., 0, first] if three else plain[0, first]
    taken = given["position_ids"][..., 0, columns] if three else given["position_ids"][0, columns]
    expected = (taken - start[:, None])[-3:] if three else taken - start
    assert torch.equal(file.positions, expected)
    assert (file.positions[..., 1:] > file.positions[..., :-1]).any()


@pytest.mark.parametrize("backbone", ["llava-video-tiny", "qwen3-vl-tiny"])
def test_a_method_that_merges_patches_only(backbone: str, tmp_path: Path) -> None:
    """All tokens leave, of merged patches; the control is the plain encoder."""
    video_meta().save(tmp_path / "square.npz")
    merged = write_run(tmp_path, backbone, Pipeline(RPM(target_keep=0.5)), name="merged")
    whole = write_run(tmp_path, backbone, Pipeline(RPM(target_keep=1.0)), name="whole")
    assert merged.plan.count_out == merged.plan.count_in == whole.plan.count_out
    assert merged.patches is not None and merged.patches.count_out < merged.patches.count_in
    assert merged.tokens.shape == whole.tokens.shape
    assert not torch.equal(merged.tokens, whole.tokens)


def test_frames_of_a_temporal_patch_have_their_mean_time(tmp_path: Path) -> None:
    meta = video_meta()
    meta.save(tmp_path / "square.npz")
    one = write_run(tmp_path, "llava-onevision-tiny", METHODS["infomerge"], name="a")
    two = write_run(tmp_path, "qwen2-vl-tiny", METHODS["infomerge"], name="b")
    assert one.frame_seconds.tolist() == meta.frame_seconds.tolist()
    assert two.frame_seconds.tolist() == meta.frame_seconds.reshape(-1, 2).mean(axis=1).tolist()
    assert int(two.frame.max()) < len(two.frame_seconds)


def test_a_second_run_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video_meta().save(tmp_path / "square.npz")
    write_run(tmp_path, "qwen2-vl-tiny", METHODS["infomerge"])

    def load(**_: Any) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr("compress.models.shortener.open_model", load)
    statuses = []
    for backbone, method in (
        ("qwen2-vl-tiny", "infomerge"),
        ("qwen2-vl-tiny", "metom"),
        ("qwen3-vl-tiny", "infomerge"),
    ):
        shortener = ModelShortener(random_config=backbone)
        job = Job(method=METHODS[method], name="method", retention=0.4, shortener=shortener)
        statuses += [report.status for report in run(tmp_path / "square.npz", tmp_path / "tokens", job)]
    assert statuses == ["kept", "failed", "failed"]


def test_what_cannot_go_together_is_refused(tmp_path: Path) -> None:
    for options, message in (
        ({}, "either --model"),
        ({"checkpoint": "a", "random_config": "b"}, "either --model"),
        ({"random_config": "qwen2-vl-tiny", "device": "nowhere"}, "nowhere"),
    ):
        with pytest.raises(ConfigError, match=message):
            Job(method=InfoMerge(), name="infomerge", retention=0.1, shortener=ModelShortener(**options))
    shortener = ModelShortener(random_config="qwen2-vl-tiny")
    with pytest.raises(ConfigError, match="tome merges inside a vision encoder, and the embedded one has no blocks"):
        Job(method=ToMe(), name="tome", retention=0.5)
    with pytest.raises(ConfigError, match="matm has no stage before the language model"):
        Job(method=MATM(), name="matm", retention=0.5, shortener=shortener)
    video_meta().save(tmp_path / "square.npz")
    deep = Job(method=MeToM(layers=(7, 8, 9)), name="metom", retention=0.3, shortener=shortener)
    with pytest.raises(ConfigError, match="4 decoder layers"):
        list(run(tmp_path / "square.npz", tmp_path / "out", deep))


def test_encoding_leaves_no_trace() -> None:
    """Inside the block the model answers after it as before it; outside, encoding is refused."""
    model, meta = sharp_model("qwen2-vl-tiny"), video_meta()
    inputs = prepare(model, meta, "What moves?", tokenizer=TOKENIZER)
    with RandomTokens(retention=0.5).attach(model, meta) as session:
        before = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        found = session.encode(meta, tokenizer=TOKENIZER)
        assert len(found.tokens) == found.result.tokens_out == round(0.5 * found.result.tokens_in)
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), before)
    with pytest.raises(ConfigError, match="inside its `with` block"):
        session.encode(meta, tokenizer=TOKENIZER)


def test_the_next_video_is_read_while_the_model_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        video_meta().save(tmp_path / f"{name}.npz")
    model, tokenizer = open_model(checkpoint=None, random_config=BACKBONES[0], device="cpu")
    read = {name: threading.Event() for name in ("a", "b", "c")}
    prepare = answer_module.prepare

    def noted(model: Any, meta: Any, *args: Any, **options: Any) -> Any:
        inputs = prepare(model, meta, *args, **options)
        next(event for event in read.values() if not event.is_set()).set()
        return inputs

    generate, waited = type(model).generate, []

    def slow(self: Any, **options: Any) -> Any:
        # "b" is read although the model still works on "a"; nothing that the model does lets it.
        if not waited:
            waited.append(read["b"].wait(timeout=60))
        return generate(self, **options)

    monkeypatch.setattr(answer_module, "prepare", noted)
    monkeypatch.setattr(type(model), "generate", slow)
    question = Question(
        text="What moves?",
        model=model,
        tokenizer=tokenizer,
        compressor=BTM(),
        method="btm",
        retention=0.3,
        new_tokens=1,
    )
    answers = list(answer_videos(tmp_path, question))
    assert waited == [True]
    assert [(one.video, one.status) for one in answers] == [("a", "done"), ("b", "done"), ("c", "done")]
    assert len({one.answer for one in answers}) == 1  # the same video thrice
