"""Models for lmms-eval, through its entry point, and its command line. Nothing heavy is imported before use."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from compress.errors import ConfigError
from compress.methods import build

MODELS: Final = ("compress_llava_onevision", "compress_llava_video", "compress_qwen2_vl")
"""Names for ``lmms_eval --model``; all take the same arguments, and the checkpoint says which backbone it is."""

TASKS: Final = {
    "videomme": "videomme",
    "mlvu": "mlvu_dev",
    "longvideobench": "longvideobench_val_v",
    "egoschema": "egoschema_subset",
    "nextqa": "nextqa_mc_test",
    "mvbench": "mvbench",
}
"""Benchmark -> lmms-eval's task. EgoSchema's full set is scored only by a server; its public subset replaces it."""

CLASS: Final = "compress.integrations.lmms_eval_model.CompressedModel"


def manifests() -> list[Any]:
    """Return the payload of the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=name, chat_class_path=CLASS) for name in MODELS]


def write_command(
    *,
    model: str,
    backbone: str,
    method: str,
    retention: float | None,
    settings: Mapping[str, str],
    frames: int,
    tasks: Sequence[str],
    device: str,
    out: str,
    limit: int | None,
) -> list[str]:
    """Write the command by which lmms-eval evaluates a model with a method.

    Args:
        model: checkpoint, name or folder.
        backbone: which of `MODELS` to run under, without its prefix.
        method: see `compress.methods`.
        retention: retained fraction; None for the method's own.
        settings: fields of the method as text.
        frames: sampled frames per video.
        tasks: of `TASKS`.
        device: where to compute.
        out: folder for the logs.
        limit: samples per benchmark; None for all.

    Raises:
        ConfigError: one of them is unknown or not allowed.
    """
    name = f"compress_{backbone}"
    if not model or "," in model:
        raise ConfigError(f"--model is {model!r}; give a name or folder, without a comma: lmms-eval splits there")
    if name not in MODELS:
        known = ", ".join(one.removeprefix("compress_") for one in MODELS)
        raise ConfigError(f"unknown backbone {backbone!r}; choose from {known}")
    if unknown := [repr(task) for task in tasks if task not in TASKS]:
        raise ConfigError(f"unknown benchmarks {', '.join(unknown)}; choose from {', '.join(TASKS)}")
    build(method, retention=retention, settings=settings)
    fields = {"pretrained": model, "method": method}
    fields |= {} if retention is None else {"retention": str(retention)}
    fields |= {"frames": str(frames), "device": device}
    # lmms-eval splits its arguments at commas, so that lists are written with a plus.
    fields |= {field: value.replace(",", "+") for field, value in settings.items()}
    command = [sys.executable, "-m", "lmms_eval", "--model", name]
    command += ["--model_args", ",".join(f"{field}={value}" for field, value in fields.items())]
    command += ["--tasks", ",".join(TASKS[task] for task in tasks), "--batch_size", "1"]
    # At any other verbosity lmms-eval reports an exception and leaves with 0.
    command += ["--output_path", out, "--log_samples", "--verbosity", "DEBUG"]
    return command + ([] if limit is None else ["--limit", str(limit)])
