"""CPU levels for which machine code can be compiled, so that many machines can share it."""

from __future__ import annotations

from codecmeta.errors import UsageError

CPU_LEVELS = {
    "x86-64": "+sse2",
    "x86-64-v2": "+sse4.2",
    "x86-64-v3": "+avx2",
    "x86-64-v4": "+avx512vl",
}
"""Levels of the x86-64 psABI, and a feature that each has and the one below lacks."""


def choose_cpu(level: str) -> dict[str, str]:
    """Choose the environment in which numba compiles for a CPU level instead of for this machine.

    Processor and features are parts of the key of numba's cache, so the environment must be set before numba is
    imported, here and wherever the code is used.

    Args:
        level: one of `CPU_LEVELS`, or `native`.

    Raises:
        UsageError: the level is unknown, or this machine is below it.
    """
    if level == "native":
        return {}
    if level not in CPU_LEVELS:
        raise UsageError(f"--cpu {level!r}; choose from native, {', '.join(CPU_LEVELS)}")
    import llvmlite.binding as llvm

    feature = CPU_LEVELS[level]
    if not llvm.get_host_cpu_features().get(feature[1:], False):
        # kernels are run while they are compiled
        raise UsageError(f"--cpu {level}: this processor lacks {feature[1:]}; compile on a machine of that level")
    return {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": feature}
