"""Transfers between host and device: decisions are taken on the host, and every wait for the device is visible here."""

from __future__ import annotations

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
    """Copy several tensors to the host in float64, with one synchronisation in all."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.detach().double().numpy() for tensor in tensors]
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors]).cpu().double().numpy()
    parts = np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tuple(tensor.shape)) for part, tensor in zip(parts, tensors, strict=True)]


def concatenated(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Concatenate the parts into one array, also for no parts."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
