"""Accuracy benchmark: a rendered world, questions about it, and the share that a compressed model answers.

`compress accuracy` runs it. Training of its model and studies of its settings are not part of the package.
"""
