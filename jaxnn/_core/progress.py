"""How functions show that they advance: a bar in a terminal or a notebook, lines elsewhere."""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 1.0


def counter(
    function: str, progress: bool | str | None, total: int | None, unit: str, delay: float = 0.0
) -> Callable[[int | None, str], None]:
    """What shows that so many of `total`, if that is known, are done, with a note; None ends it.

    Nothing is shown before `delay` seconds, nor more than one line in them.
    """
    form = form_of(function, progress)
    if form == "bar":
        shown = tqdm(function)(
            total=total, desc=function, unit=f" {unit}", dynamic_ncols=True, delay=delay
        )

        def show_progress(done: int | None, note: str = "") -> None:
            if done is None:
                shown.close()
            else:
                shown.set_postfix_str(note, refresh=False)
                shown.update(done - shown.n)

        return if_it_can(show_progress)

    last_line = time.perf_counter()

    def show_line(done: int | None, note: str = "") -> None:
        nonlocal last_line
        if form != "lines" or done is None or time.perf_counter() - last_line < delay:
            return
        last_line = time.perf_counter()
        of_all = "" if total is None else f" of {total}"
        print_line(f"{function}: {done}{of_all} {unit}  {note}".rstrip())

    return if_it_can(show_line)


def counted(
    function: str, progress: bool | str | None, pieces: Iterable[T], total: int | None, unit: str
) -> Iterator[T]:
    """The pieces one by one; what takes longer than a second shows how many are done."""
    show = counter(function, progress, total, unit, SECONDS_BETWEEN_LINES)
    try:
        for done, piece in enumerate(pieces, 1):
            yield piece
            show(done, "")
    finally:
        show(None, "")


def form_of(
    function: str, progress: bool | str | None, forms: tuple[str, ...] = ("bar", "lines")
) -> str | None:
    """One of the forms, or None for nothing."""
    if progress not in (None, True, False, *forms):
        *most, last = map(repr, forms)
        raise ValueError(
            f"{function}: progress is {progress!r}, expected True, False, None, "
            f"{', '.join(most)} or {last}"
        )
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        return None
    seen_live = _is_terminal(sys.stderr) or in_notebook()
    if progress is False or (progress is None and not seen_live):
        return None
    if isinstance(progress, str):
        return progress
    return "bar" if seen_live and importlib.util.find_spec("tqdm") is not None else "lines"


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this, whose page has widgets and no terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def if_it_can(show: Callable[..., None]) -> Callable[..., None]:
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


def print_line(line: str, file: Any = None) -> None:
    """A line on a stream, or on standard error; nothing where that is closed or None."""
    file = sys.stderr if file is None else file
    if file is not None and not getattr(file, "closed", False):
        print(line, file=file, flush=True)


def tqdm(function: str) -> Any:
    """The class of bars that fits a terminal or a notebook."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            f"{function}: progress='bar' needs tqdm (in the extra `progress`): pip install tqdm"
        ) from error
    return tqdm
