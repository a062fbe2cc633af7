"""CUDA graphs of functions whose shapes repeat: recorded once per shape, then one launch instead of hundreds.

A recorded function must be a function of its tensors only: no decision of the host, no copy from it, no wait. The first
call of a shape runs as always, the second records, and the first two replays are compared with that run, bit for bit.
A shape that cannot be recorded, or whose replay differs, is warned of once and runs as always.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.ops.transfer import Layout, layout_of, on_host, packed, unpacked

Function = Callable[..., tuple[Tensor, ...]]

CHECKED_REPLAYS = 2
"""Replays that are compared with an ordinary run: one of the tensors that were recorded, and one of others."""

SHAPES = 8
"""Shapes that are remembered; the one used longest ago makes room. Each holds its tensors and what they become."""

SWITCH = "COMPRESS_CUDA_GRAPHS"
"""Environment variable that turns recording off where it is 0."""


class Replay(Protocol):
    """A recorded function: takes tensors of the recorded shapes and returns what it returned, in the same memory."""

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the result for these tensors; the next call overwrites it."""
        ...


class Recorder(Protocol):
    """What can record on a kind of device."""

    def stream(self, device: torch.device) -> Hashable:
        """Return an identifier of the queue of work, or None where nothing can be recorded now."""
        ...

    def record(self, function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Replay:
        """Record the function of copies of the tensors."""
        ...


class CudaRecorder:
    """CUDA graphs of PyTorch."""

    def stream(self, device: torch.device) -> Hashable:
        """See `Recorder.stream`; within another recording nothing is recorded."""
        if os.environ.get(SWITCH) == "0" or torch.cuda.is_current_stream_capturing():
            return None
        return torch.cuda.current_stream(device).cuda_stream

    def record(self, function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Replay:
        """See `Recorder.record`."""
        device = tensors[0].device
        with torch.cuda.device(device):
            held = [tensor.clone() for tensor in tensors]
            aside: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):  # libraries set themselves up outside the recording
                function(*held)
            torch.cuda.current_stream(device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = function(*held)

        def replay(tensors: Sequence[Tensor]) -> Tensor:
            for kept, tensor in zip(held, tensors, strict=True):
                kept.copy_(tensor)
            graph.replay()
            return result

        return replay


RECORDERS: dict[str, Recorder] = {"cuda": CudaRecorder()}
"""By type of device."""


@dataclass
class _Shape:
    """What is known of a function and its shapes."""

    calls: int = 0
    checked: int = 0
    replay: Replay | None = None
    layout: Layout = ()
    refused: bool = False


_shapes: OrderedDict[Hashable, _Shape] = OrderedDict()
_lock = threading.Lock()


def recordable(device: torch.device) -> bool:
    """Whether functions can be recorded on this kind of device."""
    return device.type in RECORDERS


def release_graphs() -> None:
    """Forget all recorded functions, and free the memory that they hold."""
    with _lock:
        _shapes.clear()


def fetch(function: Function, tensors: Sequence[Tensor], **options: Hashable) -> list[NDArray[np.float64]]:
    """Call a function of tensors and copy what it returns to the host, with one wait.

    Args:
        function: of the tensors and, by name, the options; called again for each recording, so it must be one object.
        tensors: on one device.
        options: anything hashable that does not change between calls.

    Returns:
        What `on_host` gives for the tensors that the function returns.
    """
    device = tensors[0].device
    recorder = RECORDERS.get(device.type)
    queue = None if recorder is None else recorder.stream(device)

    def run() -> list[NDArray[np.float64]]:
        return on_host(*function(*tensors, **options))

    if recorder is None or queue is None:
        return run()
    key = (
        function,
        tuple(sorted(options.items())),
        tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in tensors),
        queue,
        # settings that choose between kernels
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
    )
    with _lock:
        shape = _shapes.setdefault(key, _Shape())
        _shapes.move_to_end(key)
        while len(_shapes) > SHAPES:
            _shapes.popitem(last=False)
        shape.calls += 1
        ordinary = shape.calls == 1 or shape.refused
    if ordinary:
        return run()
    with _lock:  # the memory of a recording belongs to one call at a time
        if shape.refused:
            return run()
        try:
            if shape.replay is None:
                shape.replay = _record(shape, recorder, function, tensors, options)
            found = unpacked(shape.replay(tensors).cpu(), shape.layout)
        except RuntimeError as error:
            return _refuse(shape, f"{function.__name__} cannot be recorded: {error}", run)
        if shape.checked < CHECKED_REPLAYS:
            expected = run()
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, expected, strict=True)):
                return _refuse(shape, f"{function.__name__} differs when it is replayed", lambda: expected)
            shape.checked += 1
        return found


def _record(
    shape: _Shape, recorder: Recorder, function: Function, tensors: Sequence[Tensor], options: dict[str, Hashable]
) -> Replay:
    """Record the function together with the packing of what it returns."""

    def packing(*held: Tensor) -> Tensor:
        results = function(*held, **options)
        shape.layout = layout_of(*results)
        return packed(*results)

    return recorder.record(packing, tensors)


def _refuse(shape: _Shape, why: str, otherwise: Callable[[], list[NDArray[np.float64]]]) -> list[NDArray[np.float64]]:
    """Note that a shape is not to be recorded again, say so, and return what the ordinary run gives."""
    shape.refused, shape.replay = True, None
    warnings.warn(f"{why}; its kernels are launched one by one, which is slower", RuntimeWarning, stacklevel=4)
    return otherwise()
