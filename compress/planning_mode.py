"""Conditions of planning: the same whatever the caller's autocast, default device and grad mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Final, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Planned = TypeVar("Planned")

_HOST: Final = "cpu"
_CASTING: Final = ("cpu", "cuda")


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in the dtypes of the operands: no autocast, and new tensors on the host unless a device is named."""
    with ExitStack() as stack:
        for kind in _CASTING:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != _HOST:
            stack.enter_context(torch.device(_HOST))
        yield


@contextmanager
def planning() -> Iterator[None]:
    """Enter `full_precision` without gradients; results may be used anywhere, also where gradients are kept."""
    with torch.inference_mode(False), torch.no_grad(), full_precision():
        yield


def planned(method: Callable[Arguments, Planned]) -> Callable[Arguments, Planned]:
    """Let a stage of a method always run in `planning`."""

    @wraps(method)
    def plan(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Planned:
        with planning():
            return method(*args, **kwargs)

    return plan
