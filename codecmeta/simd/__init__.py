"""Machine-specific code: compilation, caches, vector instructions."""
