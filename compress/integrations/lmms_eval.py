"""What lmms-eval is told through its entry point: which models there are. Nothing heavy is imported before use."""

from __future__ import annotations

from typing import Any, Final

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
"""Benchmark -> lmms-eval's task. EgoSchema's full set is scored by a server only; its public subset stands for it."""

CLASS: Final = "compress.integrations.lmms_eval_model.CompressedModel"


def manifests() -> list[Any]:
    """The payload of the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=name, chat_class_path=CLASS) for name in MODELS]
