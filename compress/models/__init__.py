"""Compressors on Hugging Face Video-LLMs: one adapter per backbone, and the session that attaches a compressor."""

from compress.models.adapter import ADAPTERS, Adapter, adapt
from compress.models.session import Session, VideoResult

__all__ = ["ADAPTERS", "Adapter", "Session", "VideoResult", "adapt"]
