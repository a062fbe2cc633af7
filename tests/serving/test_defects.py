"""What vLLM's own pruning gets wrong, next to what the plug-in does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

from vllm.multimodal.video_prune.evs import compute_mrope_for_media, recompute_mrope_positions

from compress.serving.vllm.prompt_positions import PlacedItem, append_positions, lay_out, split_positions
from compress.serving.vllm.qwen import grid_positions
from tests.serving.engine import Job, Question, difference, fail, run
from tests.serving.test_equality import EQUAL, OTHER, compare


def test_a_second_request_from_the_prefix_cache(checkpoint: Callable[[str], str], question: Question) -> None:
    """vLLM sees no plan of a video that is cached, and leaves the text after it where it lies in the whole prompt."""
    cached = {"enable_prefix_caching": True, "block_size": 32}
    twice = ((0,), (0,))
    # its own pruning goes by the same flag, but never gives less than a frame
    stock = Job(checkpoint=checkpoint("qwen2.5-vl"), questions=(question,), stock=0.5, options=cached, rounds=twice)
    ours = Job(checkpoint=checkpoint("qwen2.5-vl"), questions=(question,), method="evs", retention=0.5)
    expected, (theirs, served) = run(ours)[0], run(stock, replace(ours, options=cached, rounds=twice))
    first, second = (answers[0] for answers in theirs.answers)
    assert np.abs(first.logprobs[0] - second.logprobs[0]).max() > OTHER
    assert compare(expected, served) < EQUAL


def test_a_mark_in_front_of_the_video(checkpoint: Callable[[str], str], question: Question) -> None:
    """vLLM takes the last mark that it has seen for that of the video."""
    marked = replace(question, opening="<|vision_start|>")
    job = Job(checkpoint=checkpoint("qwen3-vl"), questions=(marked,), method="evs", retention=0.5)
    expected, served = run(job)[0], run(replace(job, options={}))[0]
    assert compare(expected, served) < EQUAL
    stock = Job(checkpoint=job.checkpoint, questions=(marked,), stock=0.5, options={"max_num_batched_tokens": 16})
    try:
        theirs = run(stock)[0].answers[0][0]
    except RuntimeError as error:
        assert "recompute_mrope_positions" in str(error) or "size of tensor" in str(error)
    else:
        assert difference(theirs, expected.answers[0][0]) > 1000 * EQUAL


def test_positions_in_bfloat16() -> None:
    """vLLM writes a position into one column of the embeddings' dtype, which rounds it."""
    grid = (400, 4, 4)
    own = compute_mrope_for_media(torch.tensor(grid), 2)
    embeddings = torch.zeros(len(own), 8, dtype=torch.bfloat16)
    theirs = torch.cat((embeddings, own.to(torch.bfloat16)), dim=1)[:, -4:].long()
    assert not torch.equal(theirs[:, 0], own[:, 0])
    positions = grid_positions(grid, 2)
    assert torch.equal(positions, own[:, :3].T)
    _, found = split_positions(append_positions(embeddings, positions))
    assert torch.equal(found, positions)


def test_text_after_a_long_video() -> None:
    """vLLM continues at the width of the grid, though positions in time reach further, as it does without pruning."""
    start, video, text, frames = 4, 7, 20, 12
    ids = torch.tensor([text, text, start] + [video] * 10 + [5, text, text])
    positions = torch.arange(len(ids)).expand(3, -1).clone()
    own = compute_mrope_for_media(torch.tensor([frames, 4, 6]), 2)[-10:]
    theirs, _ = recompute_mrope_positions(ids, [own.T], positions, 0, start, 6, video)
    last = int(theirs[:, 3:13].max())
    assert int(theirs[0, 13]) <= last, "text lies within the video"
    extent = int(grid_positions((frames, 4, 6), 2).amax()) + 1
    ours, _ = lay_out(len(ids), [PlacedItem(offset=3, length=10, extent=extent)])
    assert ours[:, 13].tolist() == [3 + extent] * 3
    assert last < 3 + extent


def test_a_model_that_cannot_be_served_says_why(checkpoint: Callable[[str], str], question: Question) -> None:
    job = Job(
        checkpoint=checkpoint("qwen2.5-vl"),
        questions=(question,),
        method="infomerge",
        overrides={"method": "matm"},
        options={},
    )
    assert "one length for all layers" in fail(job)
