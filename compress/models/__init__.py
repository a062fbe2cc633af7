"""Compressors on Hugging Face Video-LLMs: one adapter per backbone, and the session that attaches a compressor."""

from compress.models.adapters.adapter import ADAPTERS, Adapter, adapt
from compress.models.session.session import Session
from compress.models.session.videos import VideoResult

__all__ = ["ADAPTERS", "Adapter", "Session", "VideoResult", "adapt"]
