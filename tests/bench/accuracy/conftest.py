"""The clip and the model of the benchmark's own tests."""

from tests.compress.accuracy.conftest import cache, clip, examinee, memory, model, one_thread, sheet

__all__ = ["cache", "clip", "examinee", "memory", "model", "one_thread", "sheet"]
