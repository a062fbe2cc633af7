"""Tensor primitives that methods share."""
