"""Greedy picks from a matrix of pairs: in a loop, or in one kernel where a device has one.

Every pick depends on the one before, so that a loop launches several kernels per pick, and time on an accelerator is
that of launching them. There one Triton kernel makes all picks (`compress.ops.greedy_kernel`). Each form in which it is
compiled is compared with the loop at its first use; where one fails or differs, that is warned of once and the loop is
taken.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable
from functools import partial
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from compress.ops.pairwise import Pairwise

Combine = Literal["sum", "least"]
"""How the values of a token with those that were picked make its score: their sum in float64, or the least."""

Kernel = Callable[[Tensor, Tensor, int, Combine, bool], Tensor]
"""Takes what `pick_greedily` takes with the rows as a matrix; returns the picks."""

LARGEST = 8192
"""Tokens whose scores a kernel holds."""


def pick_greedily(
    pairs: Pairwise,
    count: int,
    *,
    combine: Combine,
    repeat: bool = False,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Pick tokens one by one: first that of largest `Pairwise.nearest`, then always that of largest score.

    Args:
        pairs: values of V tokens with each other.
        count: at least 1, at most V.
        combine: how values make a score.
        repeat: leave picked tokens among the candidates.
        change: what is done with values before they count, a function of each value for itself, which returns a new
            tensor.

    Returns:
        int64 (count,), in the order in which they were picked; ties go to the lower index.
    """
    matrix = pairs.matrix
    kernel = None if matrix is None or len(matrix) > LARGEST else _kernel_for(matrix.device.type)
    if kernel is None or matrix is None:

        def row(token: Tensor) -> Tensor:
            values = pairs.row(token)
            return values if change is None else change(values)

        return _pick_in_loop(row, pairs.nearest, count, combine, repeat)
    values = matrix if change is None else change(matrix)
    slow = partial(_pick_in_loop, lambda token: values.index_select(0, token)[0], pairs.nearest, count, combine, repeat)
    # sizes of one power of two share a form, see `greedy_kernel.pick`
    form = (matrix.device, combine, repeat, (len(matrix) - 1).bit_length())
    return _check(form, matrix.device.type, partial(kernel, values, pairs.nearest, count, combine, repeat), slow)


def _pick_in_loop(
    row: Callable[[Tensor], Tensor], nearest: Tensor, count: int, combine: Combine, repeat: bool
) -> Tensor:
    picked = torch.empty(count, dtype=torch.int64, device=nearest.device)
    picked[0] = nearest.argmax()
    score = torch.zeros_like(nearest, dtype=torch.float64) if combine == "sum" else torch.full_like(nearest, torch.inf)
    for i in range(1, count):
        last = picked[i - 1 : i]
        if combine == "sum":
            score += row(last)
        else:
            torch.minimum(score, row(last), out=score)
        if not repeat:
            score.index_fill_(0, last, -torch.inf)
        picked[i] = score.argmax()
    return picked


def _launch(values: Tensor, nearest: Tensor, count: int, combine: Combine, repeat: bool) -> Tensor:
    from compress.ops.greedy_kernel import pick

    return pick(values, nearest, count, combine=combine, repeat=repeat)


KERNELS: dict[str, Kernel] = {"cuda": _launch} if find_spec("triton") is not None else {}
"""By type of device."""

_lock = threading.Lock()
_checked: set[Hashable] = set()
"""Forms of kernels that were compared."""

_refused: set[str] = set()
"""Types of devices whose kernel failed or differed."""


def _kernel_for(device: str) -> Kernel | None:
    return None if device in _refused else KERNELS.get(device)


def _check(form: Hashable, device: str, fast: Callable[[], Tensor], slow: Callable[[], Tensor]) -> Tensor:
    """Return the picks of a kernel, or of the loop where it fails or, at the first use of a form, differs."""
    try:
        picked = fast()
    except Exception as error:  # Triton and the compilers under it raise errors of many types
        why = f"cannot be run: {type(error).__name__}: {error}"
    else:
        with _lock:
            if form in _checked:
                return picked
        expected = slow()
        if torch.equal(picked, expected):
            with _lock:
                _checked.add(form)
            return expected
        why = "differs from the loop that it replaces"
    with _lock:
        _refused.add(device)
    warnings.warn(f"the kernel of greedy picks {why}; the loop is slower", RuntimeWarning, stacklevel=4)
    return slow()
