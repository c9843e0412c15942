"""Callbacks: what `nn.fit` calls on the host while it trains."""

from jaxnn.callbacks._callbacks import Callback, Event
from jaxnn.callbacks._files import csv_log, json_log
from jaxnn.callbacks._profiling import profile
from jaxnn.callbacks._tensorboard import tensorboard_log

__all__ = ["Callback", "Event", "csv_log", "json_log", "profile", "tensorboard_log"]
