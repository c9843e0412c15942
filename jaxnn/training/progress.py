"""How `fit` shows that it advances: a bar in a terminal, plain lines elsewhere."""

import importlib.util
import sys
from typing import Any, TextIO

from jaxnn.callbacks import Callback, Event


def progress_callback(progress: bool | str | None) -> Callback | None:
    """The callback for `fit`'s argument `progress`."""
    if progress not in (None, True, False, "bar", "lines"):
        raise ValueError(
            f"fit: progress is {progress!r}, expected True, False, None, 'bar' or 'lines'"
        )
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        return None
    if progress == "bar":
        return bar()
    if progress == "lines" or not terminal or importlib.util.find_spec("tqdm") is None:
        return lines()
    return bar()


def _values(event: Event) -> dict[str, str]:
    """What both forms show: the loss, the validation metrics and the throughput."""
    shown = {"loss": event.running_loss}
    shown |= {name: value for name, value in event.metrics.items() if name.startswith("val_")}
    texts = {name: f"{value:.4f}" for name, value in shown.items()}
    texts["examples/s"] = f"{event.examples / max(event.seconds, 1e-9):,.0f}"
    return texts


def bar(file: TextIO | None = None) -> Callback:
    """A progress bar by tqdm."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            "fit: progress='bar' needs tqdm, which the extra brings: pip install 'jaxnn[progress]'"
        ) from error
    made: list[Any] = []

    def on_step_chunk(event: Event) -> None:
        if not made:
            made.append(tqdm(total=event.steps, unit="step", file=file, dynamic_ncols=True))
        made[0].set_description(f"epoch {min(event.epoch + 1, event.epochs)}/{event.epochs}", False)
        made[0].set_postfix(_values(event), refresh=False)
        made[0].update(event.step - made[0].n)

    def on_end(event: Event) -> None:
        if made:
            made[0].close()

    return Callback(on_step_chunk=on_step_chunk, on_end=on_end)


def lines(file: TextIO | None = None, seconds_between: float = 1.0) -> Callback:
    """A line for the latest state, at most one each `seconds_between`, and one at the end."""
    last_line = -seconds_between
    last_step = 0

    def show(event: Event) -> None:
        nonlocal last_line, last_step
        last_line, last_step = event.seconds, event.step
        values = "  ".join(f"{name} {text}" for name, text in _values(event).items())
        where = f"epoch {event.epoch}/{event.epochs}  step {event.step}/{event.steps}"
        print(f"{where}  {values}", file=file or sys.stderr, flush=True)

    def on_step_chunk(event: Event) -> None:
        if event.seconds - last_line >= seconds_between:
            show(event)

    def on_end(event: Event) -> None:
        if event.step != last_step:
            show(event)

    return Callback(on_step_chunk=on_step_chunk, on_end=on_end)
