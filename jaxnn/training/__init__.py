"""Training: from the pure step to one compiled run to the host's loop."""

from jaxnn.training.best import early_stopping
from jaxnn.training.evaluation import evaluate, predict, predict_with_spread
from jaxnn.training.fit import FitResult, fit
from jaxnn.training.run import training_run
from jaxnn.training.step import TrainState, train_state, train_step

__all__ = [
    "FitResult",
    "TrainState",
    "early_stopping",
    "evaluate",
    "fit",
    "predict",
    "predict_with_spread",
    "train_state",
    "train_step",
    "training_run",
]
