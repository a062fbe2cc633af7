"""The same plan whatever surrounds the caller: autocast, default dtype, default device, grad mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compress.encoder_merging import EncoderState
from compress.infomerge import InfoMerge
from compress.methods import METHODS, build
from compress.metom import BTM, MATM
from compress.plan import MergePlan
from compress.planning_mode import planning
from compress.stage import Compression, InnerTokens, Signals

FRAMES, GRID, WIDTH = 6, (7, 8), 96
PER_FRAME = GRID[0] * GRID[1]
BLOCKS = 24


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "gradients": torch.enable_grad,
    "inference mode": torch.inference_mode,
}

CASES: dict[str, Any] = {
    **{name: build(name) for name in METHODS},
    # close to the threshold of pairs, so that rounding would change them
    "btm, pairs": BTM(retention=0.3, tau_tem=0.82),
    "btm, core": BTM(retention=0.3, fold="core"),
    "infomerge, exact": InfoMerge(retention=0.15, richness="exact"),
    "matm, sequential": MATM(layers=(1,), average="sequential"),
}


def material() -> tuple[torch.Tensor, Signals, torch.Tensor]:
    """Tokens of frames that are alike, every signal, and scores."""
    noise = torch.Generator().manual_seed(0)
    scene = torch.randn(1, PER_FRAME, WIDTH, generator=noise)
    tokens = scene + 0.45 * torch.randn(FRAMES, PER_FRAME, WIDTH, generator=noise)
    signals = Signals(
        density=torch.rand(FRAMES, PER_FRAME, generator=noise),
        packet_size=torch.rand(FRAMES, generator=noise).numpy(),
        saliency=torch.rand(FRAMES, PER_FRAME, generator=noise),
        frame_features=torch.randn(FRAMES, WIDTH, generator=noise),
        text=torch.randn(5, WIDTH, generator=noise),
        grid=GRID,
    )
    return tokens, signals, torch.rand(1, FRAMES * PER_FRAME, generator=noise)


def plans(method: Any, tokens: torch.Tensor, signals: Signals, scores: torch.Tensor) -> list[Any]:
    """Return what every stage of a method computes from the same input."""
    found, density = [], signals.density
    assert isinstance(density, torch.Tensor)
    if hasattr(method, "before_encoder"):
        found.append(method.before_encoder(density.view(FRAMES, *GRID)))
    if hasattr(method, "inside_encoder"):
        for block in method.merge_blocks(BLOCKS):
            state = EncoderState(
                block=block,
                depth=BLOCKS,
                hidden=tokens,
                keys=tokens[..., :8],
                size=torch.ones(FRAMES, PER_FRAME, dtype=torch.float32, device="cpu"),
                frames=FRAMES,
                patches=PER_FRAME,
            )
            if (merge := method.inside_encoder(state)) is not None:
                plan = SimpleNamespace(keep=merge.keep, col=merge.origin, weight=merge.weight)
                found.append(SimpleNamespace(plan=plan))
    if hasattr(method, "before_llm"):
        found.append(method.before_llm(tokens, signals))
    if hasattr(method, "inside_llm"):
        layers = len(method.layers) if method.layers else 1
        token = torch.arange(FRAMES * PER_FRAME, device="cpu")
        at = (token // PER_FRAME, token % PER_FRAME // GRID[1], token % GRID[1])
        place = torch.stack((torch.zeros_like(token), *at), dim=1)
        shown = InnerTokens(cut=0, entered=len(token), place=place, grids=(GRID,), text=signals.text)
        more = (shown,) if hasattr(method, "cuts") else ()
        found.append(method.inside_llm(scores.expand(layers, -1), tokens.flatten(0, 1), *more))
    if hasattr(method, "at_decoding"):
        choice = method.at_decoding(scores[0], None, None)
        assert not choice.is_inference()
        with planning():
            plan = MergePlan.selection(choice.nonzero().squeeze(1), count_in=len(choice))
        found.append(Compression(method=method.name, plan=plan, frames=0, nominal=plan.count_out))
    return found


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("name", CASES)
def test_plans_do_not_depend_on_the_caller(name: str, surrounding: str) -> None:
    given, method = material(), CASES[name]
    expected = plans(method, *given)
    if surrounding == "gradients":
        given[0].requires_grad_()
    with SURROUNDINGS[surrounding]():
        found = plans(method, *given)
    assert expected
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.plan.keep, other.plan.keep)
        assert torch.equal(one.plan.col, other.plan.col)
        assert torch.equal(one.plan.weight, other.plan.weight)
        assert not other.plan.weight.requires_grad and not other.plan.weight.is_inference()


def test_autocast_alone_would_change_similarities() -> None:
    """The control: what is not planned follows the caller."""
    tokens, _, _ = material()
    flat = tokens.flatten(0, 1)
    with torch.autocast("cpu", torch.bfloat16):
        casted = flat @ flat.T
        with planning():
            whole = flat @ flat.T
    assert casted.dtype == torch.bfloat16 and torch.equal(whole, flat @ flat.T)
