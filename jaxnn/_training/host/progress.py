"""How `fit` shows that it advances."""

from datetime import timedelta
from typing import Any, TextIO

from jaxnn._core.progress import (
    SECONDS_BETWEEN_LINES,
    form_of,
    if_it_can,
    in_notebook,
    print_line,
    tqdm,
)
from jaxnn.callbacks import Callback, Event

SECONDS_REMEMBERED = 30.0  # by a rate: what is older counts less than half


def progress_callback(progress: bool | str | None, steps: int | None) -> Callback | None:
    """The callback for `fit`'s argument `progress`, in a run of so many steps, if that is known."""
    form = form_of("fit", progress, ("bar", "lines", "epochs"))
    if form is None:
        return None
    return {"lines": lines, "epochs": epoch_lines}[form]() if form != "bar" else bar(steps)


class Pace:
    """How fast steps have been lately, without what was compiled between them."""

    def __init__(self) -> None:
        self._before: Event | None = None
        self._seconds = self._steps = self._examples = 0.0

    def tick(self, event: Event) -> None:
        """Training has advanced to `event`."""
        if self._before is not None:
            before = self._before
            compiling = event.seconds_compiling - before.seconds_compiling
            seconds = max(event.seconds - before.seconds - compiling, 0.0)
            kept = 0.5 ** (seconds / SECONDS_REMEMBERED)
            self._seconds = kept * self._seconds + seconds
            self._steps = kept * self._steps + event.step - before.step
            self._examples = kept * self._examples + event.examples - before.examples
        self._before = event

    def texts(self, event: Event) -> list[str]:
        """The time left and the throughput; before they are known, how long compiling took."""
        if not self._steps or not self._seconds:
            return [f"compiled in {event.seconds_compiling:.1f} s"]
        throughput = f"{self._examples / self._seconds:,.0f} examples/s"
        if event.steps is None or event.step >= event.steps:
            return [throughput]
        left = round((event.steps - event.step) * self._seconds / self._steps)
        return [f"{timedelta(seconds=left)} left".removeprefix("0:"), throughput]


def _metrics(event: Event) -> list[str]:
    """The loss and the metrics, those that are one number and not of one layer."""
    shown = {"loss": event.running_loss} | {
        name: value
        for name, value in event.metrics.items()
        if isinstance(value, float) and name != "loss" and "/" not in name
    }
    return [f"{name} {value:.4g}" for name, value in shown.items()]


def bar(steps: int | None, file: TextIO | None = None) -> Callback:
    """A progress bar by tqdm, and rows below for the metrics that have no place beside it."""
    make = tqdm("fit")
    width = "" if in_notebook() else ":20"  # a widget finds its own
    done = "{n_fmt} steps" if steps is None else f"|{{bar{width}}}|"
    form = f"{{desc}} {done} {{elapsed}}{{postfix}}"
    rows = [make(total=steps, desc="compiling", bar_format=form, file=file, dynamic_ncols=True)]
    pace = Pace()

    def on_step_chunk(event: Event) -> None:
        pace.tick(event)
        shown = rows[0]
        name = f"epoch {min(event.epoch + 1, event.epochs)}/{event.epochs}"
        columns = shown.format_dict["ncols"]
        texts = [*pace.texts(event), *_metrics(event)]
        beside, *below = _in_rows(texts, columns, len(f"{name} |{20 * ' '}| 00:00:00, "))
        shown.set_description_str(name, refresh=False)
        shown.set_postfix_str(beside, refresh=False)
        while len(rows) <= len(below):
            rows.append(make(total=0, bar_format="{desc}", file=file, dynamic_ncols=True))
        is_drawn = shown.update(event.step - shown.n)
        for row, text in zip(rows[1:], below + [""] * len(rows), strict=False):
            row.set_description_str(text, refresh=is_drawn)

    def on_end(event: Event) -> None:
        for row in rows:
            row.close()

    return Callback(on_step_chunk=if_it_can(on_step_chunk), on_end=if_it_can(on_end))


def _in_rows(texts: list[str], columns: Any, taken: int) -> list[str]:
    """The texts side by side, in rows of so many columns, of the first of which some are taken."""
    if not isinstance(columns, int):
        return ["  ".join(texts)]
    rows = [""]
    for text in texts:
        longer = f"{rows[-1]}  {text}" if rows[-1] else text
        if len(longer) + (taken if len(rows) == 1 else 0) <= columns:
            rows[-1] = longer
        else:
            rows.append(text)
    return rows


def _line(event: Event, pace: Pace) -> str:
    steps = "" if event.steps is None else f"/{event.steps}"
    where = f"epoch {event.epoch}/{event.epochs}", f"step {event.step}{steps}"
    return "  ".join([*where, *_metrics(event), *pace.texts(event)])


def lines(file: TextIO | None = None, seconds_between: float = SECONDS_BETWEEN_LINES) -> Callback:
    """A line for the latest state now and then, and one at the end.

    Between two lines are at least `seconds_between`, and a tenth of the time so far: a long run
    does not fill a log.
    """
    last_line = -seconds_between
    last_step = 0
    pace = Pace()

    def show(event: Event) -> None:
        nonlocal last_line, last_step
        last_line, last_step = event.seconds, event.step
        print_line(_line(event, pace), file)

    def on_step_chunk(event: Event) -> None:
        pace.tick(event)
        if event.seconds - last_line >= max(seconds_between, 0.1 * event.seconds):
            show(event)

    def on_end(event: Event) -> None:
        if event.step != last_step:
            show(event)

    return Callback(on_step_chunk=if_it_can(on_step_chunk), on_end=if_it_can(on_end))


def epoch_lines(file: TextIO | None = None) -> Callback:
    """A line for each epoch."""
    pace = Pace()

    def on_epoch(event: Event) -> None:
        print_line(_line(event, pace), file)

    return Callback(on_epoch=if_it_can(on_epoch), on_step_chunk=pace.tick)
