"""Plug-in of vLLM: methods before the language model run inside its engine, on the classes that `attach` runs.

    vllm serve MODEL --video-pruning-rate 0.9 --hf-overrides \
        '{"architectures": ["CompressQwen3VLForConditionalGeneration"], "compress": {"method": "infomerge"}}'

vLLM calls `register` in each of its processes (entry point ``compress`` of ``vllm.general_plugins``). It registers the
architectures of `families` and, for videos of requests, the loader ``codecmeta``.

**Settings.** The key ``compress`` of ``--hf-overrides`` holds ``method``, ``settings`` (fields of the method), ``map``,
``saliency`` and ``rpm`` (fields of RPM, which merges patches before the encoder of Qwen2-VL), see
`settings.ServedMethod.parse`. The retention is 1 less ``--video-pruning-rate``.

**Architectures.** ``Compress`` before the name of the model's own, see `families.FAMILIES`.

**Codec metadata.** A video is ``(frames, metadata)``. The key ``codec`` of its metadata holds its record without
frames, ``{"record": uint8 (n,)}``, and with it is part of vLLM's key of the video. `codec.describe_video` writes the
whole metadata of a `codecmeta.VideoMeta`. The front end reads packet sizes and density on the model's grid from it
(`codec.CodecSignals`), which travel to the worker with the pixels. A video without the key is served with the signals
that its frames give.

Modules: `settings`, `families`, `codec` and `version` import no vLLM; the others do.
"""

from __future__ import annotations


def register() -> None:
    """Register architectures with vLLM; one that is chosen with another version than the supported one refuses."""
    from compress.serving.vllm.registration import register_all

    register_all()
