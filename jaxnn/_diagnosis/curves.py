"""What the history of a run tells."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn._core.arguments import checked
from jaxnn._diagnosis.faults import FAULTS
from jaxnn._diagnosis.findings import Diagnosis, Finding, causes, finding

LEAST = 6  # epochs, to tell anything


@checked
def diagnose_history(history: Mapping[str, Any]) -> Diagnosis:
    """Name what is wrong with a run by its curves: overfitting, underfitting, a plateau, NaN.

    Args:
        history: that of a `FitResult` or of `training_run`: the "loss" of each epoch, and
            "val_loss" where there was a validation set.

    Returns:
        A `Diagnosis` without layers and rates.

    Raises:
        ValueError: there is no "loss", or not one number an epoch.

    Example:
        >>> import jaxnn as nn
        >>> history = {"loss": [1.0, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05],
        ...            "val_loss": [1.1, 0.8, 0.7, 0.75, 0.9, 1.1, 1.3]}
        >>> [(found.name, found.challenge) for found in nn.diagnose_history(history).findings]
        [('overfitting', 'overfitting and underfitting')]
    """
    loss = np.asarray(history.get("loss", ()), np.float64)
    if loss.ndim != 1 or not len(loss):
        raise ValueError(
            f"diagnose_history: history['loss'] has shape {loss.shape}, expected one number for "
            "each epoch, as of one run"
        )
    found = list(_of_loss(loss))
    if "val_loss" in history and np.all(np.isfinite(loss)):
        found += _of_both(loss, np.asarray(history["val_loss"], np.float64))
    return Diagnosis(causes(found), {}, {}, {})


def _of_loss(loss: np.ndarray) -> list[Finding]:
    if not np.all(np.isfinite(loss)):
        epoch = int(np.argmin(np.isfinite(loss)))
        return [finding("nonfinite", f"the loss is {loss[epoch]} in epoch {epoch}")]
    if len(loss) < LEAST:
        return []
    last = loss[-(len(loss) // 3) :]
    level, left = abs(last.mean()), _left(loss)
    if left is not None and left > 1 and loss[-1] > 2 * loss[0]:
        return [finding("rate_too_large", f"the loss rose from {loss[0]:.3g} to {loss[-1]:.3g}")]
    jumps = np.abs(np.diff(last)).mean() / level if level else 0.0
    trend = abs(last[-1] - last[0]) / (len(last) - 1) / level if level else 0.0
    if (
        len(last) >= LEAST
        and jumps > FAULTS["plateau"].limit
        and trend < jumps / 3
        and level > 0.05 * abs(loss[0])
    ):
        share = f"{jumps:.0%} of the loss from epoch to epoch"
        return [
            finding(
                "plateau",
                f"in the last third of the epochs the loss moves by {share}, and does not fall",
            )
        ]
    if left is not None and left > FAULTS["underfitting"].limit:
        return [
            finding(
                "underfitting",
                f"{left:.0%} of the first loss, {loss[0]:.3g}, is left after {len(loss)} epochs",
            )
        ]
    return []


def _left(loss: np.ndarray) -> float | None:
    """The share of the first loss that is left, None where it says nothing: below 0."""
    return float(loss[-3:].mean() / loss[0]) if loss[0] > 0 else None


def _of_both(loss: np.ndarray, validation: np.ndarray) -> list[Finding]:
    if len(validation) < LEAST:
        return []
    best = int(np.argmin(validation))
    last = float(validation[-3:].mean())
    lowest = float(validation[best])
    rises = last > lowest + (FAULTS["overfitting"].limit - 1) * max(abs(lowest), 1e-12)
    learns = loss[-1] < loss[best]
    if not (rises and learns and best < len(validation) - 3):
        return []
    return [
        finding(
            "overfitting",
            f"the validation loss rises from {lowest:.3g} in epoch {best} to {last:.3g}, while the "
            f"training loss falls from {loss[best]:.3g} to {loss[-1]:.3g}",
        )
    ]
