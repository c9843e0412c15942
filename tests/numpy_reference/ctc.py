"""Connectionist temporal classification, by the forward-backward recursions of its paper.

Graves, Fernandez, Gomez and Schmidhuber, 2006.
"""

from collections.abc import Callable

import numpy as np

from .activations import log_softmax
from .float64 import Array, in_float64


@in_float64
def ctc_loss(
    logits: Array, logit_paddings: Array, labels: Array, label_paddings: Array, blank_id: int = 0
) -> tuple[Array, Callable[[Array], tuple[Array | None, ...]]]:
    """-log p(labels | frames), each example by itself; its gradient is softmax - occupancy.

    The occupancy of a class at a frame is the probability, given the labels, that the frame emits
    it: the sum of alpha_t(s) beta_t(s) / p over the states s of that class, where alpha_t(s) is
    the probability of the frames up to t ending in s and beta_t(s) that of the frames after t.
    """
    losses, gradient = np.zeros(len(logits)), np.zeros(logits.shape)
    for b in range(len(logits)):
        frames = np.flatnonzero(logit_paddings[b] == 0)
        spelled = labels[b][label_paddings[b] == 0]
        losses[b], gradient[b, frames] = _example(logits[b, frames], spelled, blank_id)
    return losses, lambda dy: (dy[:, None, None] * gradient, None, None, None)


def _example(logits: Array, labels: Array, blank_id: int) -> tuple[float, Array]:
    log_p, _ = log_softmax(logits, -1)
    states = [blank_id]
    for label in labels:
        states += [label, blank_id]
    frames, last = len(log_p), len(states) - 1

    def before(s: int) -> list[int]:
        """The states from which a frame goes to state s."""
        skips = s >= 2 and states[s] != blank_id and states[s] != states[s - 2]
        return [r for r in (s, s - 1, s - 2 if skips else -1) if r >= 0]

    alpha = np.full((frames, last + 1), -np.inf)
    beta = np.full((frames, last + 1), -np.inf)
    if frames == 0:
        return (0.0 if last == 0 else np.inf), logits
    for s in range(min(last, 1) + 1):
        alpha[0, s] = log_p[0, states[s]]
    for s in range(max(last - 1, 0), last + 1):
        beta[-1, s] = 0
    for t in range(1, frames):
        for s in range(last + 1):
            alpha[t, s] = _log_sum(alpha[t - 1, r] for r in before(s)) + log_p[t, states[s]]
    for t in reversed(range(frames - 1)):
        for r in range(last + 1):
            beta[t, r] = _log_sum(
                beta[t + 1, s] + log_p[t + 1, states[s]] for s in range(last + 1) if r in before(s)
            )
    log_total = _log_sum(alpha[-1, s] for s in range(max(last - 1, 0), last + 1))
    if np.isneginf(log_total):
        return np.inf, np.zeros(logits.shape)
    gradient = np.exp(log_p)
    for t in range(frames):
        for s, c in enumerate(states):
            gradient[t, c] -= np.exp(alpha[t, s] + beta[t, s] - log_total)
    return -log_total, gradient


def _log_sum(terms) -> float:
    total = -np.inf
    for term in terms:
        total = np.logaddexp(total, term)
    return total
