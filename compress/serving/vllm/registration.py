"""Registration of the architectures with vLLM, and the one defect of it that must be mended before a model runs."""

from __future__ import annotations

import logging

from vllm import ModelRegistry

from compress.serving.vllm.families import FAMILIES
from compress.serving.vllm.loader import register_loader
from compress.serving.vllm.version import SUPPORTED, installed_version

LOG = logging.getLogger("vllm.compress")
"""Below vLLM's own logger, whose handlers show it."""


def register_all() -> None:
    """Register loader and architectures; with another version than the supported one, these say so when chosen."""
    for family in FAMILIES.values():
        ModelRegistry.register_model(family.served, family.target)
    if installed_version() != SUPPORTED:
        LOG.info("compress serves with vLLM %s only; its architectures will refuse this version", SUPPORTED)
        return
    register_loader()
    _let_cpu_runner_prune()


def _let_cpu_runner_prune() -> None:
    """Let vLLM's CPU runner note, as its GPU runner does, that the model prunes.

    Its own ``load_model`` replaces that of its parent and leaves the flag out, so that positions which travel with
    embeddings are never taken off again and every model that prunes fails.
    """
    from vllm.model_executor.models.interfaces import supports_multimodal_pruning
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    plain = CPUModelRunner.load_model
    if getattr(plain, "notes_pruning", False):
        return

    def load_model(self: CPUModelRunner, *args: object, **options: object) -> None:
        plain(self, *args, **options)
        config = self.model_config.multimodal_config
        self.is_multimodal_pruning_enabled = (
            supports_multimodal_pruning(self.get_model())
            and config is not None
            and config.is_multimodal_pruning_enabled()
        )

    vars(load_model)["notes_pruning"] = True
    CPUModelRunner.load_model = load_model
