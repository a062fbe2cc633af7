"""A compressor attached to a model: shortening, caches and records of a prompt."""
