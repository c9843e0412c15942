"""Callbacks: what `nn.fit` calls on the host while it trains."""

from jaxnn.callbacks._callbacks import (
    Callback,
    Event,
    csv_log,
    tensorboard_log,
)

__all__ = ["Callback", "Event", "csv_log", "tensorboard_log"]
