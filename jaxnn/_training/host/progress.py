"""How `fit` shows that it advances: a bar in a terminal, plain lines elsewhere."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, TextIO

from jaxnn.callbacks import Callback, Event


def progress_callback(progress: bool | str | None, steps: int | None) -> Callback | None:
    """The callback for `fit`'s argument `progress`, in a run of so many steps, if that is known."""
    form = _form("fit", progress)
    if form is None:
        return None
    return lines() if form == "lines" else bar(steps)


def counter(
    function: str, progress: bool | str | None, total: int, unit: str
) -> Callable[[int | None, str], None]:
    """What shows that so many of `total` are done, with a note; None ends it."""
    form = _form(function, progress)
    if form == "bar":
        shown = _tqdm(function)(total=total, desc=function, unit=f" {unit}", dynamic_ncols=True)

        def show_progress(done: int | None, note: str = "") -> None:
            if done is None:
                shown.close()
            else:
                shown.set_postfix_str(note, refresh=False)
                shown.update(done - shown.n)

        return _if_it_can(show_progress)

    def print_line(done: int | None, note: str = "") -> None:
        if form == "lines" and done is not None:
            line = f"{function}: {done} of {total} {unit}  {note}".rstrip()
            _print(line)

    return _if_it_can(print_line)


def _form(function: str, progress: bool | str | None) -> str | None:
    """A bar, lines or nothing."""
    if progress not in (None, True, False, "bar", "lines"):
        raise ValueError(
            f"{function}: progress is {progress!r}, expected True, False, None, 'bar' or 'lines'"
        )
    terminal = _is_terminal(sys.stderr)
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        return None
    if progress is False or (progress is None and not terminal):
        return None
    if isinstance(progress, str):
        return progress
    return "bar" if terminal and importlib.util.find_spec("tqdm") is not None else "lines"


def _if_it_can(show: Callable[..., None]) -> Callable[..., None]:
    """What shows something, and nothing where the stream is broken or closed, or the disk full.

    No run ends because nobody can look on any more.
    """

    def show_if_it_can(*values: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            show(*values)

    return show_if_it_can


def _is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal: closed ones, None and odd objects are not."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _print(line: str, file: Any = None) -> None:
    """A line on a stream, or on standard error; nothing where that is closed or None."""
    file = sys.stderr if file is None else file
    if file is not None and not getattr(file, "closed", False):
        print(line, file=file, flush=True)


def _tqdm(function: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            f"{function}: progress='bar' needs tqdm (in the extra `progress`): pip install tqdm"
        ) from error
    return tqdm


def _values(event: Event) -> list[str]:
    """What both forms show: the loss, the validation metrics and the throughput."""
    metrics = {name: v for name, v in event.metrics.items() if isinstance(v, float)}
    shown = {"loss": event.running_loss}
    shown |= {name: value for name, value in metrics.items() if name.startswith("val_")}
    texts = [f"{name} {value:.4f}" for name, value in shown.items()]
    return [*texts, f"{event.examples / max(event.seconds, 1e-9):,.0f} examples/s"]


def bar(steps: int | None, file: TextIO | None = None) -> Callback:
    """A progress bar by tqdm."""
    form = "{desc} |{bar:20}| {elapsed}<{remaining}{postfix}"
    if steps is None:
        form = "{desc} {n_fmt} steps {elapsed}{postfix}"
    shown = _tqdm("fit")(
        total=steps, desc="compiling", bar_format=form, file=file, dynamic_ncols=True
    )

    def on_step_chunk(event: Event) -> None:
        epoch = min(event.epoch + 1, event.epochs)
        shown.set_description_str(f"epoch {epoch}/{event.epochs}", refresh=False)
        shown.set_postfix_str("  ".join(_values(event)), refresh=False)
        shown.update(event.step - shown.n)

    def on_end(event: Event) -> None:
        shown.close()

    return Callback(on_step_chunk=_if_it_can(on_step_chunk), on_end=_if_it_can(on_end))


def lines(file: TextIO | None = None, seconds_between: float = 1.0) -> Callback:
    """A line for the latest state now and then, and one at the end.

    Between two lines are at least `seconds_between`, and a tenth of the time so far: a long run
    does not fill a log.
    """
    last_line = -seconds_between
    last_step = 0

    def show(event: Event) -> None:
        nonlocal last_line, last_step
        last_line, last_step = event.seconds, event.step
        steps = "" if event.steps is None else f"/{event.steps}"
        where = f"epoch {event.epoch}/{event.epochs}", f"step {event.step}{steps}"
        _print("  ".join([*where, *_values(event)]), file)

    def on_step_chunk(event: Event) -> None:
        if event.seconds - last_line >= max(seconds_between, 0.1 * event.seconds):
            show(event)

    def on_end(event: Event) -> None:
        if event.step != last_step:
            show(event)

    return Callback(on_step_chunk=_if_it_can(on_step_chunk), on_end=_if_it_can(on_end))
