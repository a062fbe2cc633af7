"""Time, tokens, operations and memory of models, per stage."""
