"""Backbones: what the session needs to know of each, one adapter per family."""
