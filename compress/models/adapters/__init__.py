"""Backbones, as the session sees them: one adapter per family."""
