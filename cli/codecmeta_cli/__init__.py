"""Two command lines, `codecmeta` and `compress`: parse, call, print."""
