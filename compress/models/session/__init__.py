"""A compressor attached to a model: shortening, caches and what is remembered of a prompt."""
