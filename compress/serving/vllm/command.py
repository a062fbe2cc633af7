"""Command line of a server that compresses, for a checkpoint and a method, and how its results differ from `attach`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compress.errors import ConfigError, on_one_line
from compress.serving.vllm.families import Family, check_patch_merging, find
from compress.serving.vllm.settings import KEY, ServedMethod
from compress.serving.vllm.video_options import LOADER, SAMPLINGS, check_options

_WRITTEN: Final = ("--video-pruning-rate", "--video-pruning-method", "--hf-overrides", "--media-io-kwargs")
"""Options of vLLM that the command line holds already."""


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """Command line of ``vllm serve``.

    Attributes:
        arguments: after the name of the program.
        family: of the checkpoint.
        served: the method.
        differences: how results differ from `attach` with the defaults of the package, one sentence each.
    """

    arguments: tuple[str, ...]
    family: Family
    served: ServedMethod
    differences: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(("vllm", *self.arguments))


def write_command(
    model: str,
    served: ServedMethod,
    *,
    fps: float | None = None,
    max_frames: int | None = None,
    more: Sequence[str] = (),
) -> ServeCommand:
    """Write the command line that serves a checkpoint with a method.

    Args:
        model: name of a Hugging Face repository, or a folder.
        served: the method; its retention must be below 1.
        fps: frames that are taken of each second of a video; None for what the model's family takes.
        max_frames: most frames of a video, likewise.
        more: further options of ``vllm serve``.

    Raises:
        ConfigError: the checkpoint cannot be read or served, nothing would be compressed, or an option is given twice.
    """
    if served.retention >= 1:
        raise ConfigError("retention 1 keeps all tokens; give less than 1, or start vLLM without compress")
    for name, value in (("fps", fps), ("max-frames", max_frames)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}; allowed are numbers above 0")
    if given := sorted({option_name(one) for one in more}.intersection(_WRITTEN)):
        raise ConfigError(
            f"{', '.join(given)} cannot be given: compress writes it; set the method by --method, --retention and "
            "--set, and frames by --fps and --max-frames"
        )
    family = find(_architecture(model))
    if served.rpm is not None:
        check_patch_merging(family)
    loader: dict[str, Any] = {"video_backend": LOADER, "sampling": family.sampling}
    if fps is not None:
        loader["fps"] = fps
    if max_frames is not None:
        loader["max_frames" if "max_frames" in SAMPLINGS[family.sampling].options else "num_frames"] = max_frames
    check_options({name: value for name, value in loader.items() if name != "video_backend"})
    overrides = {"architectures": [family.served], KEY: served.overrides()}
    return ServeCommand(
        arguments=(
            "serve",
            model,
            "--video-pruning-rate",
            str(served.pruning_rate),
            "--hf-overrides",
            json.dumps(overrides),
            "--media-io-kwargs",
            json.dumps({"video": loader}),
            *more,
        ),
        family=family,
        served=served,
        differences=_differences(family, served, limited=fps is not None or max_frames is not None),
    )


def option_name(word: str) -> str:
    """Return the option that a word of a command line names, as vLLM reads it: ``--a_b.c=d`` sets a field of --a-b."""
    return word.partition("=")[0].partition(".")[0].replace("_", "-")


def _differences(family: Family, served: ServedMethod, *, limited: bool) -> tuple[str, ...]:
    rule = "by --fps and --max-frames" if limited else SAMPLINGS[family.sampling].frames
    found = [
        f"frames: those that the model's own processor takes ({rule}), in their own size; attach takes those of a "
        "record, by default 32 of the whole video with a short side of 384"
    ]
    if served.saliency == "none":
        found.append("saliency: distance to the frame's mean token (saliency none), not attention in the encoder")
    return (*found, *family.differences)


def _architecture(model: str) -> str:
    """Return the architecture that a checkpoint's config.json names.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        place = _config_file(model)
        named = json.loads(place.read_text()).get("architectures")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{model!r} has no config.json that can be read: {on_one_line(error)}") from error
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise ConfigError(f"config.json of {model!r} names no architecture (architectures: {named!r})")
    return named[0]


def _config_file(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model, "config.json")
    from transformers.utils import cached_file

    found = cached_file(model, "config.json")
    if found is None:
        raise OSError("it has no config.json")
    return Path(found)
