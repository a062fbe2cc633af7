"""Transfers between host and device: decisions are taken on the host, and every wait for the device is visible here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Move a tensor to ``device``, without waiting where the target is an accelerator.

    A move to the host waits: otherwise the tensor could be read before it has arrived.
    """
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


def on_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy a host array to a tensor on ``device``, without waiting for it."""
    return moved(torch.from_numpy(np.ascontiguousarray(array)), device)


def on_device_together(*arrays: NDArray[np.generic], device: torch.device) -> list[Tensor]:
    """Copy host arrays of one dtype to tensors on ``device``, in one transfer."""
    if device.type == "cpu":
        return [on_device(array, device) for array in arrays]
    flat = on_device(np.concatenate([array.ravel() for array in arrays]), device)
    parts = torch.split(flat, [array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def on_host(*tensors: Tensor) -> list[NDArray[np.float64]]:
    """Copy several tensors to the host in float64, with one synchronisation in all; int64 must lie below 2^53."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.detach().double().numpy() for tensor in tensors]
    return unpacked(packed(*tensors).cpu(), layout_of(*tensors))


Layout = tuple[tuple[tuple[int, ...], torch.dtype], ...]
"""Shapes and dtypes of tensors that are packed."""


def layout_of(*tensors: Tensor) -> Layout:
    """Return how `packed` lays the tensors out; NumPy knows no bfloat16, which becomes float32."""
    return tuple(
        (tuple(tensor.shape), torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype) for tensor in tensors
    )


def packed(*tensors: Tensor) -> Tensor:
    """Pack tensors of any dtypes into one of bytes, which one transfer moves."""
    parts = [tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach() for tensor in tensors]
    flat = [part.reshape(-1).view(torch.uint8) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def unpacked(bytes_on_host: Tensor, layout: Layout) -> list[NDArray[np.float64]]:
    """Return the tensors that were `packed`, in float64."""
    found, start, content = [], 0, bytes_on_host.numpy()
    for shape, dtype in layout:
        stop = start + math.prod(shape) * dtype.itemsize
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        found.append(content[start:stop].view(kind).astype(np.float64).reshape(shape))
        start = stop
    return found


def concatenated(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Concatenate the parts into one array, also for no parts."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
