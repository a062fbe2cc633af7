"""Architectures that are served, and the classes of vLLM's models that they extend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from compress.errors import ConfigError

PREFIX: Final = "Compress"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models.

    Attributes:
        architecture: of the checkpoint, as its config.json names it.
        target: ``module:class`` of ours.
        sampling: loader of vLLM that chooses frames as the family's processor does.
        differences: how results of this family differ from `attach`, one sentence each.
    """

    architecture: str
    target: str
    sampling: str
    differences: tuple[str, ...] = ()

    @property
    def served(self) -> str:
        """Name of the architecture that vLLM is to be given."""
        return PREFIX + self.architecture


FAMILIES: Final[Mapping[str, Family]] = {
    family.architecture: family
    for family in (
        Family(
            architecture="Qwen2_5_VLForConditionalGeneration",
            target="compress.serving.vllm.qwen2_5_vl:CompressQwen2_5_VLForConditionalGeneration",
            sampling="qwen2_vl",
        ),
        Family(
            architecture="Qwen3VLForConditionalGeneration",
            target="compress.serving.vllm.qwen3_vl:CompressQwen3VLForConditionalGeneration",
            sampling="qwen3_vl",
        ),
        Family(
            architecture="Qwen2VLForConditionalGeneration",
            target="compress.serving.vllm.qwen2_vl:CompressQwen2VLForConditionalGeneration",
            sampling="qwen2_vl",
        ),
        Family(
            architecture="LlavaOnevisionForConditionalGeneration",
            target="compress.serving.vllm.llava_onevision:CompressLlavaOnevisionForConditionalGeneration",
            sampling="opencv",
            differences=(
                "positions: one number per token, counted on without gaps, as by attach with positions=contiguous; on "
                "the project's own clips that cost InfoMerge 24 points of accuracy (docs/accuracy-lab.md)",
            ),
        ),
    )
}
"""Families by the architecture of their checkpoints."""

SAMPLINGS: Final = tuple(dict.fromkeys(family.sampling for family in FAMILIES.values()))
"""Loaders of vLLM whose choice of frames ``codecmeta`` can follow; ``opencv`` takes them at equal distances."""


def find(architecture: str) -> Family:
    """Return the family of a checkpoint's architecture.

    Raises:
        ConfigError: it is not served.
    """
    if architecture not in FAMILIES:
        raise ConfigError(f"{architecture} cannot be served compressed; served are {', '.join(FAMILIES)}")
    return FAMILIES[architecture]
