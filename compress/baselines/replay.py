"""Replay of recorded inputs: arrays by the names of the papers' notation, in and out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.baselines.baseline import Baseline, Published
from compress.baselines.replay_inside import replay_inside
from compress.baselines.tome import ToMe
from compress.encoder_merging import EncoderState
from compress.errors import ConfigError, ShapeError
from compress.methods import find
from compress.planning_mode import planning
from compress.stage import Signals

INPUTS: Mapping[str, tuple[str, ...]] = {
    "X": ("tokens", "features", "video_features", "image_features", "H"),
    "A": ("saliency", "attention", "attn", "cls_attention", "attn_weights", "frame_attn_weights"),
    "g": ("frame_features", "global_features", "frame_global_features"),
    "keys": ("metric",),
    "c": ("packet_size",),
    "grid": (),
    "size": ("sizes",),
    "noise": (),
    "text": ("text_states",),
    "start": ("image_token_start_index", "image_index", "sys_length"),
    "length": ("image_token_length", "image_tokens"),
}
"""Names of the inputs and others that are understood."""

_OF_SIGNAL = {"saliency": "A", "frame_features": "g"}


def replay(name: str, arrays: Mapping[str, NDArray[Any]], **fields: Any) -> dict[str, Any]:
    """Run a method on recorded inputs.

    A method with released code runs as that code does, ``fidelity="reference"``, unless the fields say otherwise.

    Args:
        name: of the method, see `compress.methods.METHODS`, with hyphens or underscores.
        arrays: ``X`` float (T, N, D) or (T, rows, cols, D), the tokens, or (V, D) for those of one frame or of as many
            frames as ``A`` has;
            ``A`` (T, N), (T, heads, N) or (T, heads, n, n), attention; ``g`` (T, Dg), global features of frames;
            ``keys`` (T, N, Dk); ``noise``, the uniform numbers that the released code draws, in order, flattened
            (missing: zeros); ``c`` (T,), packet sizes; ``grid`` (2,), rows and columns. For ``tome``, one block:
            ``keys`` (missing: the tokens) and ``size`` (T, N), patches of each token. For methods inside the language
            model and at decoding see `compress.baselines.replay_inside.replay_inside`.
        fields: of the method; ``r`` stands for ``retention``.

    Returns:
        ``keep`` int64 (V',), flat indices in the order in which the tokens leave; ``values`` float32 (V', D);
        ``ignored``, names of arrays that the method does not read. At decoding ``keep`` is what the last step
        reads, and ``steps``, bool (steps, n), what each does.

    Raises:
        ConfigError: the method or a field does not exist, an array that the method needs is missing, or the released
            code fails on these inputs.
        ShapeError: arrays do not fit together.
    """
    name = name.replace("_", "-")
    entry = find(name)
    given = {one: array for key, array in arrays.items() if (one := _canonical(key)) is not None}
    kind = entry.load()
    if "r" in fields and not hasattr(kind, "r"):
        fields["retention"] = fields.pop("r")
    method = _build(kind, fields)
    if "X" not in given and not hasattr(method, "at_decoding"):
        raise ConfigError(f"{name} needs X, the tokens; given are {', '.join(arrays) or 'no arrays'}")
    read = {"X", "grid"}
    if isinstance(method, ToMe):
        found = _replay_block(method, given)
        read |= {"keys", "size"}
    elif not isinstance(method, Baseline):
        found = replay_inside(name, method, given)
        read |= {"A", "start", "length", "text"}
    else:
        tokens = _frames(given)
        signals = Signals(
            saliency=_attention(given.get("A"), class_token=getattr(method, "form", None) == "clip"),
            frame_features=_tensor(given.get("g")),
            keys=_tensor(given.get("keys")),
            packet_size=given.get("c"),
            grid=_grid(given),
        )
        for signal in method.reads:
            if signal in _OF_SIGNAL and _OF_SIGNAL[signal] not in given:
                raise ConfigError(f"{name} needs {_OF_SIGNAL[signal]}, its {signal}; given are {', '.join(arrays)}")
        read |= {_OF_SIGNAL.get(signal, signal) for signal in method.reads} | {"noise"}
        if "packet_size" in method.signals:
            read.add("c")
        if isinstance(method, Published) and method.fidelity == "reference":
            with planning():
                rows = method.released(tokens, signals, _tensor(given.get("noise")))
                keep, values = rows.keep, rows.values(tokens.flatten(0, 1))
        else:
            plan = method.before_llm(tokens, signals).plan
            keep, values = plan.keep, plan.apply(tokens.flatten(0, 1))
        found = {"keep": keep.numpy(), "values": values.numpy()}
    ignored = tuple(key for key in arrays if _canonical(key) not in read)
    return {**found, "ignored": ignored}


def _canonical(key: str) -> str | None:
    """Return the name of an input that an array stands for."""
    return next((name for name, others in INPUTS.items() if key == name or key in others), None)


def _build(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    known = {one.name for one in dataclasses.fields(kind) if one.init}
    if unknown := [name for name in fields if name not in known]:
        raise ConfigError(f"{kind.__name__} has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}")
    if "fidelity" in known:
        fields = {"fidelity": "reference", **fields}
    return kind(**fields)


def _tensor(array: NDArray[Any] | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _attention(array: NDArray[Any] | None, *, class_token: bool) -> Tensor | None:
    """Reduce attention to (T, N): of (T, heads, N) the sum; of (T, heads, n, n) the class token's or the mean."""
    attention = _tensor(array)
    if attention is None or attention.dim() == 2:
        return attention
    if attention.dim() == 4:
        attention = attention[:, :, 0, 1:] if class_token else attention.mean(dim=2)
    if attention.dim() != 3:
        raise ShapeError(f"A has shape {tuple(attention.shape)}; allowed are (T, N), (T, heads, N), (T, heads, n, n)")
    return attention.sum(dim=1) if class_token else attention.mean(dim=1)


def _grid(given: Mapping[str, NDArray[Any]]) -> tuple[int, int] | None:
    """Return rows and columns of the tokens of a frame, as given or as X has them."""
    sides = given["grid"] if "grid" in given else given["X"].shape[1:3] if given["X"].ndim == 4 else None
    return None if sides is None else (int(sides[0]), int(sides[1]))


def _frames(given: Mapping[str, NDArray[Any]]) -> Tensor:
    """Return the tokens as (T, N, D)."""
    tokens = _tensor(given["X"])
    assert tokens is not None  # checked before
    if tokens.dim() == 3:
        return tokens
    if tokens.dim() == 4:
        return tokens.flatten(1, 2)
    if tokens.dim() != 2:
        raise ShapeError(f"X has shape {tuple(tokens.shape)}; allowed are (T, N, D), (T, rows, cols, D) and (V, D)")
    frames = next((len(given[name]) for name in ("A", "g", "c") if name in given), 1)
    if len(tokens) % frames:
        raise ShapeError(f"X holds {len(tokens)} tokens, which {frames} frames do not divide")
    return tokens.view(frames, -1, tokens.shape[1])


def _replay_block(method: ToMe, given: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Merge in one block of an encoder; the tokens stand for keys that are not given."""
    tokens, keys, size = _frames(given), _tensor(given.get("keys")), _tensor(given.get("size"))
    frames, count, _ = tokens.shape
    state = EncoderState(
        block=0,
        depth=1,
        hidden=tokens,
        keys=tokens if keys is None else keys.reshape(frames, count, -1),
        size=tokens.new_ones((frames, count)) if size is None else size.reshape(frames, count),
        frames=frames,
        patches=count,
    )
    merge = method.inside_encoder(state)
    flat = tokens.flatten(0, 1)
    if merge is None:
        return {"keep": np.arange(len(flat)), "values": flat.numpy()}
    return {"keep": merge.keep.numpy(), "values": merge.apply(flat).numpy()}
