"""Compressors on Hugging Face Video-LLMs: one adapter per backbone, and the session that attaches a compressor."""

from compress.models.adapter import ADAPTERS, Adapter, adapt
from compress.models.session import Session
from compress.models.videos import VideoResult

__all__ = ["ADAPTERS", "Adapter", "Session", "VideoResult", "adapt"]
