"""Training: from the pure step to one compiled run to the host's loop."""

from jaxnn.training.evaluation import evaluate, predict
from jaxnn.training.fit import FitResult, fit
from jaxnn.training.run import training_run
from jaxnn.training.step import TrainState, train_state, train_step

__all__ = [
    "FitResult",
    "TrainState",
    "evaluate",
    "fit",
    "predict",
    "train_state",
    "train_step",
    "training_run",
]
