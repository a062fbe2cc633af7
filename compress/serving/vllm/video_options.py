"""Options by which the videos of requests are read: ``video`` in vLLM's ``--media-io-kwargs``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from compress.errors import ConfigError

LOADER: Final = "codecmeta"
"""Name under which vLLM knows the loader of `compress.serving.vllm.loader`."""

_COMMON: Final = ("sampling", "pixels")
_NUM_FRAMES: Final = "num_frames"
_COUNTED: Final = ("fps", _NUM_FRAMES)
NO_NUM_FRAMES: Final = (-1, 32)
"""``num_frames`` of a video for which nobody asked for a number: all of a sequence of pictures, and vLLM's default."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Rule by which a loader of vLLM chooses frames.

    Attributes:
        frames: which ones, in words.
        options: that it reads.
        most: largest values of options; vLLM would take larger ones for these.
        unset: value by which it takes all frames; None for none.
    """

    frames: str
    options: tuple[str, ...]
    most: Mapping[str, int] = field(default_factory=dict)
    unset: int | None = None


_QWEN: Final = {"fps": 30, "max_frames": 768}

SAMPLINGS: Final[Mapping[str, Sampling]] = {
    "qwen2_vl": Sampling(
        frames="2 per second, from 4 to 768, an even number",
        options=("fps", "min_frames", "max_frames", "temporal_patch_size"),
        most=_QWEN,
    ),
    "qwen3_vl": Sampling(frames="2 per second, from 4 to 768", options=("fps", "min_frames", "max_frames"), most=_QWEN),
    "opencv": Sampling(frames="32 at equal distances", options=("fps", _NUM_FRAMES), unset=-1),
}
"""Rules that the loader ``codecmeta`` can follow, by the name of vLLM's own loader."""


def complete_options(given: dict[str, Any], sampling: str) -> str:
    """Complete the options that a server was given, in place: loader and rule are the model's own unless named.

    Args:
        given: value of ``video`` in ``--media-io-kwargs``.
        sampling: rule of the model's family.

    Returns:
        How videos are read, for the log.

    Raises:
        ConfigError: see `check_options`.
    """
    loader = given.setdefault("video_backend", LOADER)
    if loader != LOADER:
        return (
            f"videos are read by the loader {loader}, without codec metadata: packet sizes and density are made from "
            f"the frames; leave video_backend out for {LOADER}"
        )
    given.setdefault("sampling", sampling)
    check_options({name: value for name, value in given.items() if name != "video_backend"})
    chosen = "" if given["sampling"] == sampling else f", not by {sampling}, which is the model's own"
    return f"videos are read by the loader {LOADER}, frames chosen by the rule {given['sampling']}{chosen}"


def check_options(given: Mapping[str, Any]) -> Sampling:
    """Check options of the loader ``codecmeta`` and return the rule that they name.

    Raises:
        ConfigError: there is no rule, or an option that it does not read or allow.
    """
    name = given.get("sampling")
    if not isinstance(name, str) or name not in SAMPLINGS:
        raise ConfigError(
            f"the loader {LOADER} has sampling {name!r}; name the rule that chooses frames, one of "
            f"{', '.join(SAMPLINGS)}"
        )
    rule = SAMPLINGS[name]
    allowed = (*_COMMON, *rule.options)
    unread = [
        option
        for option, value in given.items()
        if option not in allowed and not (option == _NUM_FRAMES and value in NO_NUM_FRAMES)
    ]
    if unread:
        raise ConfigError(
            f"the loader {LOADER} with sampling {name} reads no {', '.join(map(repr, unread))}; allowed are "
            f"{', '.join(allowed)}"
        )
    for option in ("pixels", *rule.options):
        value = given.get(option)
        if value is None or (value == rule.unset and option in _COUNTED):
            continue
        most = rule.most.get(option)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= (most or value):
            limit = "numbers above 0" if most is None else f"numbers above 0, at most {most}"
            raise ConfigError(f"{option} is {value!r}; allowed are {limit}")
    return rule
