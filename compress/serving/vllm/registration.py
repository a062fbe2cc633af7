"""Registration of the architectures with vLLM, and what must be mended of it before a model runs."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

from vllm import ModelRegistry

from compress.serving.vllm.families import FAMILIES, Family
from compress.serving.vllm.loader import register_loader
from compress.serving.vllm.version import SUPPORTED, installed_version
from compress.serving.vllm.video_options import complete_options

LOG = logging.getLogger("vllm.compress")
"""Below vLLM's own logger, whose handlers show it."""

V2_RUNNER: Final = "VLLM_USE_V2_MODEL_RUNNER"
"""Setting by which vLLM chooses between its model runners; its own choice on a GPU is the newer one."""


def register_all() -> None:
    """Register loader and architectures; with another version than the supported one, these say so when chosen."""
    for family in FAMILIES.values():
        ModelRegistry.register_model(family.served, family.target)
    if installed_version() != SUPPORTED:
        LOG.info("compress serves with vLLM %s only; its architectures will refuse this version", SUPPORTED)
        return
    register_loader()
    _let_cpu_runner_prune()
    _hide_llvmlite()
    _configure()


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


def _hide_llvmlite() -> None:
    """Hide llvmlite, which numba loads, from vLLM's CPU worker while it starts.

    It looks at all attributes of all modules, and takes for a dictionary whatever an object has as ``__dict__``. That
    of llvmlite's library is a function.
    """
    from vllm.triton_utils import dispatcher

    plain = dispatcher._rebind_kernels
    if getattr(plain, "hides_llvmlite", False):
        return

    def rebind(overrides: Any) -> None:
        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "llvmlite"}
        try:
            plain(overrides)
        finally:
            sys.modules.update(hidden)

    vars(rebind)["hides_llvmlite"] = True
    dispatcher._rebind_kernels = rebind


def _configure() -> None:
    """Let vLLM configure the architectures when one of them is chosen."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    for family in FAMILIES.values():
        MODELS_CONFIG_MAP[family.served] = _configuration(family)


def _configuration(family: Family) -> Any:
    """Return the class by which vLLM configures a family."""
    from vllm.model_executor.models.config import VerifyAndUpdateConfig

    class Served(VerifyAndUpdateConfig):
        """Configuration of a family."""

        @staticmethod
        def verify_and_update_model_config(model_config: Any) -> None:
            """Choose the model runner, how videos of requests are read, and positions that are the model's matter."""
            _choose_runner()
            if (multimodal := model_config.multimodal_config) is not None:
                options = multimodal.media_io_kwargs.setdefault("video", {})
                LOG.info("compress: %s", complete_options(options, family.sampling))
            if family.positions_on_one_axis:
                _ask_for_positions(model_config.hf_config.text_config)

    return Served


def _choose_runner() -> None:
    """Choose the model runner that keeps the positions which a model gave it, unless one is chosen."""
    if V2_RUNNER not in os.environ:
        LOG.info("compress: %s=0, the model runner in which shortened videos were tried", V2_RUNNER)
        os.environ[V2_RUNNER] = "0"


def _ask_for_positions(text: Any) -> None:
    """Give the rotary embedding a section for each of three axes, without which vLLM asks no model for positions."""
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    section = size // 2 // 3
    sections = [size // 2 - 2 * section, section, section]
    text.rope_parameters = {**text.rope_parameters, "mrope_section": sections}
