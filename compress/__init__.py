"""Compression of the visual tokens of Video-LLMs without training: MeToM, InfoMerge, and stages to compose.

from compress import MeToM

plan = MeToM(retention=0.3).before_llm(tokens, signals).plan
shorter = plan.apply(tokens.flatten(0, 1))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.attach import Attachable
    from compress.budget import count_tokens
    from compress.compressor import Pipeline
    from compress.cover import Cover
    from compress.dataset import MetaStream
    from compress.errors import CompressError, ConfigError, OutputError, ShapeError, SignalError
    from compress.infomerge import InfoMerge
    from compress.metom import BTM, MATM, RPM, MeToM
    from compress.models import Session
    from compress.models.inputs.prompt import pad_batch, prepare
    from compress.models.opening import open_model
    from compress.patch_reuse import PatchReuse
    from compress.plan import MergePlan
    from compress.stage import Compression, Signals
    from compress.token_file import read_tokens

# Names are loaded on first use: `compress --help` must not wait for torch.
_HOME = {
    "Attachable": "compress.attach",
    "BTM": "compress.metom",
    "Compression": "compress.stage",
    "CompressError": "compress.errors",
    "ConfigError": "compress.errors",
    "Cover": "compress.cover",
    "InfoMerge": "compress.infomerge",
    "MATM": "compress.metom",
    "MeToM": "compress.metom",
    "MergePlan": "compress.plan",
    "MetaStream": "compress.dataset",
    "OutputError": "compress.errors",
    "PatchReuse": "compress.patch_reuse",
    "Pipeline": "compress.compressor",
    "RPM": "compress.metom",
    "ShapeError": "compress.errors",
    "Session": "compress.models",
    "SignalError": "compress.errors",
    "Signals": "compress.stage",
    "count_tokens": "compress.budget",
    "open_model": "compress.models.opening",
    "pad_batch": "compress.models.inputs.prompt",
    "prepare": "compress.models.inputs.prompt",
    "read_tokens": "compress.token_file",
}

__all__ = [
    "BTM",
    "MATM",
    "RPM",
    "Attachable",
    "CompressError",
    "Compression",
    "ConfigError",
    "Cover",
    "InfoMerge",
    "MeToM",
    "MergePlan",
    "MetaStream",
    "OutputError",
    "PatchReuse",
    "Pipeline",
    "Session",
    "ShapeError",
    "SignalError",
    "Signals",
    "count_tokens",
    "open_model",
    "pad_batch",
    "prepare",
    "read_tokens",
]


def __getattr__(name: str) -> Any:
    import importlib

    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
