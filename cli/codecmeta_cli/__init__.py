"""Command lines `codecmeta` and `compress`: parse, call, print."""
