"""Code that is about the machine rather than the codec: compilation, caches, vector code."""
