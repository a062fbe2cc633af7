"""Answers over one prefix, with a recorded tower, are those of `generate` on each question by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress import BTM, MATM, RPM, Cover, InfoMerge, MeToM, PatchReuse, Pipeline
from compress.accuracy.answering import Examinee, Sheet, mark
from compress.accuracy.clips import Clip
from compress.accuracy.extremes import Everything
from compress.accuracy.packing import group_by_length, pack
from compress.accuracy.questions import WORDS, Question
from compress.accuracy.tower import TowerMemory
from compress.baselines import AveragePooling
from compress.errors import ConfigError
from compress.models.inputs.prompt import prepare
from compress.ops.saliency import PoolingHead

TOLERANCE = 1e-4

COMPRESSORS = {
    "infomerge": InfoMerge(retention=0.1),
    "btm": BTM(retention=0.3),
    "rpm": RPM(target_keep=0.4),
    "matm": MATM(layers=(2, 3), merge_percent=80),
    "metom": MeToM(retention=0.15, target_keep=0.6, layers=(1, 2)),
    "pipeline": Pipeline(RPM(target_keep=0.5), InfoMerge(retention=0.2)),
    "pooling": AveragePooling(retention=0.3),
    "reuse": Cover(retention=0.15, reuse=4),
}


def generate_alone(examinee: Examinee, clip: Clip, compressor: Any) -> NDArray[np.float32]:
    """Logits of the first word of `generate`, question by question, with nothing recorded."""
    rows = []
    for question in clip.questions:
        inputs = prepare(examinee.model, clip.meta, question.text, tokenizer=examinee.tokenizer)
        with nullcontext() if compressor is None else compressor.attach(examinee.model, clip.meta):
            output = examinee.model.generate(
                **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
            )
        rows.append(output.logits[0][0].numpy())
    return np.stack(rows)


def differ(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())


def test_plain_answers_are_those_of_generate(examinee: Examinee, clip: Clip, sheet: Sheet, memory: TowerMemory) -> None:
    ours, theirs = examinee.answer_plain(sheet, memory), generate_alone(examinee, clip, None)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()
    assert differ(ours, theirs) < TOLERANCE
    # Questions matter, and by more than the tolerance.
    assert np.abs(np.diff(theirs, axis=0)).max(axis=1).min() > 10 * TOLERANCE


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressed_answers_are_those_of_generate(
    name: str, examinee: Examinee, clip: Clip, sheet: Sheet, memory: TowerMemory
) -> None:
    compressor = COMPRESSORS[name]
    ours, account = examinee.answer_compressed(sheet, memory, clip.meta, compressor)
    theirs = generate_alone(examinee, clip, compressor)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()
    assert differ(ours, theirs) < TOLERANCE
    assert differ(ours, examinee.answer_plain(sheet, memory)) > 10 * TOLERANCE
    assert account.tokens_in == 784
    assert account.macs > 0


def test_keeping_everything_changes_no_bit(examinee: Examinee, clip: Clip, sheet: Sheet, memory: TowerMemory) -> None:
    ours, account = examinee.answer_compressed(sheet, memory, clip.meta, Everything())
    assert np.array_equal(ours, examinee.answer_plain(sheet, memory))
    assert account.tokens_out == account.tokens_in == 784


def test_accounts_say_what_is_kept(examinee: Examinee, clip: Clip, sheet: Sheet, memory: TowerMemory) -> None:
    _, account = examinee.answer_compressed(sheet, memory, clip.meta, InfoMerge(retention=0.25))
    assert (account.tokens_out, account.tokens_inner, account.patches) == (196, 196.0, 1.0)
    _, half = examinee.answer_compressed(sheet, memory, clip.meta, MATM(layers=(2, 3), merge_percent=75))
    assert (half.tokens_out, half.tokens_inner) == (784, 196.0)
    assert account.macs < half.macs
    _, merged = examinee.answer_compressed(sheet, memory, clip.meta, RPM(target_keep=0.5))
    assert merged.patches == pytest.approx(0.5, abs=0.05)
    assert merged.tokens_out == 784
    assert merged.tower_macs < 0.6 * account.tower_macs
    _, reused = examinee.answer_compressed(sheet, memory, clip.meta, PatchReuse(tau=20))
    assert reused.tokens_out == 784 and reused.patches < 0.9
    assert reused.tower_macs == pytest.approx(reused.patches * account.tower_macs)  # all patches are attended to
    assert half.tower_macs == account.tower_macs == 16 * 6 * (196 * (4 * 128**2 + 2 * 128 * 384) + 2 * 196**2 * 128)


def test_the_tower_runs_once_per_plan(examinee: Examinee, clip: Clip, sheet: Sheet) -> None:
    calls = []
    hook = examinee.model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        fresh = examinee.look(clip.meta)
        for retention in (0.5, 0.1):
            examinee.answer_compressed(sheet, fresh, clip.meta, InfoMerge(retention=retention))
        assert len(calls) == 1
        for keep in (0.5, 0.5, 0.3):
            examinee.answer_compressed(sheet, fresh, clip.meta, RPM(target_keep=keep))
        assert len(calls) == 3
    finally:
        hook.remove()


def test_the_model_is_left_as_it_was(examinee: Examinee, clip: Clip, sheet: Sheet, memory: TowerMemory) -> None:
    before = set(vars(examinee.model.model))
    examinee.answer_compressed(sheet, memory, clip.meta, MeToM(retention=0.2, layers=(1, 2)))
    examinee.answer_plain(sheet, memory)
    assert set(vars(examinee.model.model)) == before


def test_questions_are_a_tree_of_words() -> None:
    packed = pack([[5, 6], [5, 8, 9], [7, 8]], device=torch.device("cpu"))
    assert packed.ids.tolist() == [5, 6, 8, 9, 7, 8]
    assert packed.depth.tolist() == [0, 1, 1, 2, 0, 1]
    assert packed.last.tolist() == [1, 3, 5]
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert packed.mask.int().tolist() == expected


def test_prefixes_of_unequal_length_are_asked_together(
    examinee: Examinee, clip: Clip, sheet: Sheet, memory: TowerMemory
) -> None:
    """Answers do not depend on what else is asked with them."""
    several = [
        InfoMerge(retention=0.1),
        BTM(retention=0.3),
        InfoMerge(retention=0.1, positions="contiguous"),
        InfoMerge(retention=0.105),
    ]
    reads = [examinee.read(sheet, memory, clip.meta, one) for one in several]
    assert sorted(map(len, group_by_length([read.prefix for read in reads if read.prefix]))) == [1, 3]
    together = examinee.ask(sheet, [read.prefix for read in reads if read.prefix])
    for one, logits in zip(several, together, strict=True):
        apart, _ = examinee.answer_compressed(sheet, memory, clip.meta, one)
        assert differ(logits, apart) < TOLERANCE
    assert differ(together[0], together[1]) > 10 * TOLERANCE
    assert differ(together[1], together[2]) > 10 * TOLERANCE


def test_marks_are_given_among_options_and_among_all_words() -> None:
    sheet = Sheet(
        video=(1,), texts=((3,), (4,)), options=((0, 1), (2, 3)), answers=(1, 2), families=("colour", "digit")
    )
    logits = np.array([[0.0, 1.0, 0.0, 5.0], [0.0, 0.0, 2.0, 1.0]], np.float32)
    right, exact = mark(sheet, logits)
    assert right.tolist() == [True, True]
    assert exact.tolist() == [False, True]


def test_answers_of_several_words_are_refused(examinee: Examinee, clip: Clip) -> None:
    question = Question(family="colour", text="what colour is the star ?", options=("red", "to the"), answer="red")
    with pytest.raises((ValueError, ConfigError), match="to"):
        examinee.write_sheet(clip.meta, [question])
    assert "red" in WORDS


def test_a_pooling_head_is_refused(examinee: Examinee, clip: Clip, memory: TowerMemory) -> None:
    from compress.accuracy.tower import with_memory

    head = PoolingHead.__new__(PoolingHead)
    session = with_memory(InfoMerge(retention=0.2).attach(examinee.model, clip.meta, pooling_head=head), memory)
    with pytest.raises(ConfigError, match="pooling head"), session:
        pass


def blind_rows(examinee: Examinee, sheet: Sheet, memories: Sequence[TowerMemory]) -> list[NDArray[np.float32]]:
    return [examinee.answer_plain(sheet, memory, blind=True) for memory in memories]


def test_blind_answers_do_not_depend_on_the_video(examinee: Examinee, sheet: Sheet, memory: TowerMemory) -> None:
    other = TowerMemory(examinee.adapter, memory.pixels.flip(-1) * 0.5)
    first, second = blind_rows(examinee, sheet, [memory, other])
    assert np.array_equal(first, second)
    assert differ(first, examinee.answer_plain(sheet, memory)) > 10 * TOLERANCE
    assert differ(examinee.answer_plain(sheet, other), examinee.answer_plain(sheet, memory)) > 10 * TOLERANCE
