"""Divergence of the answers over shortened tokens from those over all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kl_divergence(full: NDArray[np.float32], shortened: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ``KL(full || shortened)`` in nats over the whole vocabulary, float64 (questions,), at least 0.

    Args:
        full: logits of the model that sees all tokens, float32 (questions, words).
        shortened: logits of the same model over shortened tokens.
    """
    ours, theirs = _log_softmax(full), _log_softmax(shortened)
    divergence: NDArray[np.float64] = (np.exp(ours) * (ours - theirs)).sum(axis=1)
    return np.maximum(divergence, 0.0)


def agree(full: NDArray[np.float32], shortened: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return whether the likeliest first word is the same, bool (questions,)."""
    return np.asarray(full.argmax(axis=1) == shortened.argmax(axis=1))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    probabilities: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return probabilities
