"""Wrappers around models: PEFT, DataParallel, torch.compile; and modules whose hooks a compiled graph would skip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn

from compress.errors import ConfigError

_COMPILED: Final = (
    "compile the decoder's layers instead, which leaves hooks outside the graph:\n"
    "    for layer in model.model.language_model.layers:\n"
    "        layer.forward = torch.compile(layer.forward, dynamic=True)"
)


def unwrap(model: Any) -> Any:
    """Return the model of transformers inside its wrappers; its weights, adapters included, stay as they are.

    Raises:
        ConfigError: hooks on the model inside would not work.
    """
    while True:
        if hasattr(model, "get_base_model"):  # PEFT
            model = model.get_base_model()
        elif hasattr(model, "_orig_mod"):  # torch.compile
            raise ConfigError(
                "torch.compile(model) runs the model as one graph, which may skip a compressor's hooks; attach to the "
                f"model itself, and {_COMPILED}"
            )
        elif isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            raise ConfigError(
                f"DataParallel copies the model to {len(model.device_ids)} devices for every call; attach to its "
                "`module` and call that, or give each device a model of its own"
            )
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def input_device(model: nn.Module) -> torch.device:
    """Return the device for inputs: that of the weights or, if they are loaded on use, the one they are loaded to."""
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(f"cuda:{device}") if isinstance(device, int) else torch.device(device)
    return next(weight.device for weight in model.parameters() if weight.device.type != "meta")


def pixel_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of pixels: that of the first weight that is neither packed nor quantised."""
    return next(weight.dtype for weight in model.parameters() if weight.is_floating_point())


@contextmanager
def check_hooks(model: nn.Module) -> Iterator[None]:
    """Refuse hooks that are put inside compiled regions within the block.

    A region that was compiled before runs without hooks that were added later, and gives no warning.

    Raises:
        ConfigError: a hook lies inside a compiled region.
    """
    before = {module: _count_hooks(module) for module in model.modules()}
    yield
    for name, module in model.named_modules():
        if _is_graph(module):
            for inner, part in module.named_modules():
                outside = part is module and getattr(module, "_compiled_call_impl", None) is None
                if not outside and _count_hooks(part) != before.get(part):
                    place = ".".join(filter(None, (name, inner)))
                    raise ConfigError(f"{place} is inside a compiled graph, which may skip its hooks; {_COMPILED}")


def _is_graph(module: nn.Module) -> bool:
    """Return whether calls of a module run as a compiled graph, with what it contains."""
    forward = vars(module).get("forward")
    return (
        getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module, "_orig_mod")
        or hasattr(forward, "_torchdynamo_orig_callable")
    )


def _count_hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)
