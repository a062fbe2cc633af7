"""Between host and device: decisions are taken on the host, and every wait for the device is visible here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on ``device``, without waiting for an accelerator that gets it.

    To the host it is waited for: there it could be read before it has arrived.
    """
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


def on_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A host array as a tensor on ``device``, without waiting for it."""
    return moved(torch.from_numpy(np.ascontiguousarray(array)), device)


def on_device_together(*arrays: NDArray[np.generic], device: torch.device) -> list[Tensor]:
    """Host arrays of one dtype as tensors on ``device``, for one copy in all."""
    if device.type == "cpu":
        return [on_device(array, device) for array in arrays]
    flat = on_device(np.concatenate([array.ravel() for array in arrays]), device)
    parts = torch.split(flat, [array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def on_host(*tensors: Tensor) -> list[NDArray[np.float64]]:
    """Several tensors on the host in float64, for one synchronisation in all."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.detach().double().numpy() for tensor in tensors]
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors]).cpu().double().numpy()
    parts = np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tuple(tensor.shape)) for part, tensor in zip(parts, tensors, strict=True)]


def concatenated(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The parts in one array, also for no parts."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
