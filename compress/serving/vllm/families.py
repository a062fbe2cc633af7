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
        merges_patches: whether RPM merges patches inside the engine's encoder.
    """

    architecture: str
    target: str
    sampling: str
    differences: tuple[str, ...] = ()
    merges_patches: bool = False

    @property
    def served(self) -> str:
        """Name of the architecture that vLLM is to be given."""
        return PREFIX + self.architecture


_TEXT_AFTER: Final = (
    "positions: text after a video whose time takes more positions than its rows and columns lies after the video, as "
    "in vLLM without compression; transformers lets it begin while the video lasts"
)

FAMILIES: Final[Mapping[str, Family]] = {
    family.architecture: family
    for family in (
        Family(
            architecture="Qwen2_5_VLForConditionalGeneration",
            target="compress.serving.vllm.qwen2_5_vl:CompressQwen2_5_VLForConditionalGeneration",
            sampling="qwen2_vl",
            differences=(_TEXT_AFTER,),
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
            differences=(_TEXT_AFTER,),
            merges_patches=True,
        ),
        Family(
            architecture="LlavaOnevisionForConditionalGeneration",
            target="compress.serving.vllm.llava_onevision:CompressLlavaOnevisionForConditionalGeneration",
            sampling="opencv",
        ),
    )
}
"""Families by the architecture of their checkpoints."""

SAMPLINGS: Final = tuple(dict.fromkeys(family.sampling for family in FAMILIES.values()))
"""Loaders of vLLM whose choice of frames ``codecmeta`` can follow; ``opencv`` takes them at equal distances."""


def check_patch_merging(family: Family) -> None:
    """Check that RPM can merge patches of a family inside the engine's encoder.

    Raises:
        ConfigError: it cannot.
    """
    if not family.merges_patches:
        able = ", ".join(one.architecture for one in FAMILIES.values() if one.merges_patches)
        raise ConfigError(
            f"rpm: patches of {family.architecture} cannot merge inside the engine's encoder; leave rpm out, "
            f"or serve {able}"
        )


def find(architecture: str) -> Family:
    """Return the family of a checkpoint's architecture.

    Raises:
        ConfigError: it is not served.
    """
    if architecture not in FAMILIES:
        raise ConfigError(f"{architecture} cannot be served compressed; served are {', '.join(FAMILIES)}")
    return FAMILIES[architecture]
