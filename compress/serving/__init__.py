"""Inference servers that compress runs inside."""
