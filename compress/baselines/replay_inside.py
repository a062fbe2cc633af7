"""Replay of recorded attention through methods inside the language model, and at decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ConfigError, ShapeError
from compress.stage import AtDecoding, Cut, InnerTokens, cuts_of

Arrays = Mapping[str, NDArray[Any]]


def replay_inside(name: str, method: Any, given: Arrays) -> dict[str, Any]:
    """Run a method inside the language model on recorded inputs.

    Args:
        name: of the method.
        method: itself.
        given: ``A``, attention that the n visual tokens receive: (n,), (layers or heads, n), the mean of which counts,
            or whole maps (heads, S, S) or (1, heads, S, S), with ``start`` also (S, S), of which the rows that the
            method reads count; for a method of several cuts (cuts, n), of the tokens that entered, so that entries of
            those that have left do not count; at decoding (steps, n). ``X`` (n, D), the residual stream, or (S, D),
            (1, S, D). ``start`` and ``length``, where the visual tokens lie among S columns. ``grid``, rows and
            columns of a frame. ``text`` (Q, D), the residual stream of the text after the video.

    Returns:
        ``keep`` int64, visual tokens that stay, from 0; ``values`` float32 (V', D). At decoding ``steps``, bool
        (steps, n), and ``values`` where ``X`` is given.

    Raises:
        ConfigError: an array that the method needs is missing.
        ShapeError: arrays do not fit together.
    """
    if "A" not in given and (isinstance(method, AtDecoding) or any(cut.scored for cut in _cuts(method))):
        raise ConfigError(f"{name} needs A, the attention that visual tokens receive")
    where = slice(None)
    if "start" in given and "length" in given:
        start = int(given["start"])
        where = slice(start, start + int(given["length"]))
    hidden = _visual(_tensor(given["X"]), where) if "X" in given else None
    if isinstance(method, AtDecoding):
        return _replay_steps(method, _tensor(given["A"])[..., where], hidden)
    assert hidden is not None  # the caller's condition
    cuts = _cuts(method)
    several = len(cuts)
    attention = _tensor(given["A"]) if "A" in given else hidden.new_zeros(len(hidden))
    if attention.dim() == 2 and "start" in given and attention.shape[0] == attention.shape[1]:
        attention = attention[None]
    scores = _received(attention, where, cuts[0]) if "A" in given else attention
    if several > 1 and scores.dim() == 1:
        scores = scores.expand(several, -1)
    left = torch.arange(len(hidden))
    place = _places(given, len(hidden))
    for cut in range(several):
        mine = (scores[cut] if several > 1 else scores)[..., left]
        if not hasattr(method, "cuts"):
            plan = method.inside_llm(mine, hidden).plan
        else:
            shown = InnerTokens(
                cut=cut,
                entered=scores.shape[-1],
                place=None if place is None else place[left],
                grids=() if place is None else ((int(given["grid"][0]), int(given["grid"][1])),),
                text=_tensor(given["text"]) if "text" in given else None,
            )
            plan = method.inside_llm(mine, hidden, shown).plan
        left, hidden = left[plan.keep], plan.apply(hidden)
    return {"keep": left.numpy(), "values": hidden.numpy()}


def _cuts(method: Any) -> tuple[Cut, ...]:
    """Return the cuts of a method, by a decoder of 32 layers where the model decides."""
    found = cuts_of(method)
    return (cuts_of(method.at_depth(32)) if found is None else found) or ()


def _replay_steps(method: AtDecoding, scores: Tensor, hidden: Tensor | None) -> dict[str, Any]:
    """Choose step by step."""
    before = chosen = None
    steps = []
    for step in scores if scores.dim() == 2 else scores[None]:
        chosen = method.at_decoding(step, before, chosen)
        before = step
        steps.append(chosen)
    keep = steps[-1].nonzero().squeeze(1)
    found = {"keep": keep.numpy(), "steps": torch.stack(steps).numpy()}
    return found if hidden is None else {**found, "values": hidden[keep].numpy()}


def _received(attention: Tensor, where: slice, cut: Cut) -> Tensor:
    """Reduce recorded attention to that of the visual tokens."""
    if attention.dim() == 4:
        attention = attention[0]
    if attention.dim() == 3:
        rows = attention[:, -1:] if cut.query == "last" else attention
        attention = rows.mean(dim=(0, 1)) if cut.reduce == "mean" else rows.amax(dim=(0, 1))
    if attention.dim() not in (1, 2):
        raise ShapeError(f"A has shape {tuple(attention.shape)}; allowed are (n,), (heads, n), (heads, S, S)")
    return attention[..., where]


def _visual(hidden: Tensor, where: slice) -> Tensor:
    if hidden.dim() == 3 and len(hidden) == 1:
        hidden = hidden[0]
    if hidden.dim() != 2:
        raise ShapeError(f"X has shape {tuple(hidden.shape)}; allowed are (n, D), (S, D) and (1, S, D)")
    return hidden[where]


def _places(given: Arrays, count: int) -> Tensor | None:
    """Return video, frame, row and column of each token; None without a grid that divides them."""
    if "grid" not in given:
        return None
    rows, cols = int(given["grid"][0]), int(given["grid"][1])
    token = torch.arange(count)
    if count % (rows * cols):
        raise ShapeError(f"X holds {count} tokens, which frames of {rows} x {cols} do not divide")
    place = token % (rows * cols)
    return torch.stack((torch.zeros_like(token), token // (rows * cols), place // cols, place % cols), dim=1)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
