"""Attachment of a compressor to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from codecmeta import VideoMeta
    from compress.density import MapChoice
    from compress.models.session.session import Saliency, Session
    from compress.ops.saliency import PoolingHead


class Attachable:
    """A compressor that can be attached to a Hugging Face Video-LLM."""

    def attach(
        self,
        model: nn.Module,
        meta: VideoMeta | Sequence[VideoMeta] | None = None,
        *,
        map: MapChoice = "auto",
        saliency: Saliency = "auto",
        pooling_head: PoolingHead | None = None,
    ) -> Session:
        """Compress the videos that a model sees inside a `with` block; leaving it restores the model.

        Args:
            model: a supported ``...ForConditionalGeneration`` (see docs/models.md).
            meta: metadata of the videos of a batch or a conversation, row by row and in their order; None for methods
                that need none.
            map: where the density of patches comes from.
            saliency: source of the tokens' saliency; auto is the pooling head where given, else attention, and
                nothing for methods that do not ask for it.
            pooling_head: SigLIP's attention pooling, which checkpoints of Video-LLMs lack.

        Raises:
            ConfigError: the model, its version or a combination of options is not supported.
        """
        from compress.models.session.session import Session

        return Session(self, model, meta, map=map, saliency=saliency, pooling_head=pooling_head)
