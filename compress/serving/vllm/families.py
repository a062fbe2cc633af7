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
        sampling: rule that chooses frames as the family's processor does, see `video_options.SAMPLINGS`.
        differences: how results of this family differ from `attach`, one sentence each.
        own_limits: what is not supported of this family, one sentence each.
        merges_patches: whether RPM merges patches inside the engine's encoder.
        positions_on_one_axis: whether the language model's positions are those of text, which vLLM counts by itself.
    """

    architecture: str
    target: str
    sampling: str
    differences: tuple[str, ...] = ()
    own_limits: tuple[str, ...] = ()
    merges_patches: bool = False
    positions_on_one_axis: bool = False

    @property
    def served(self) -> str:
        """Name of the architecture that vLLM is to be given."""
        return PREFIX + self.architecture

    @property
    def limits(self) -> tuple[str, ...]:
        """What is not supported when this family is served, one sentence each."""
        patches = () if self.merges_patches else (_NO_PATCH_MERGING,)
        return (*self.own_limits, *patches, *_LIMITS)


_LIMITS: Final = (
    "images: not shortened",
    "engines: tensor and pipeline parallelism, LoRA, speculative decoding, a compiled vision encoder and the V2 model "
    "runner are refused at start",
)
_NO_PATCH_MERGING: Final = "rpm: no patches merge before the encoder of this family"

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
            positions_on_one_axis=True,
        ),
    )
}
"""Families by the architecture of their checkpoints."""


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
