"""What happens in some steps, as JAX's profiler sees it."""

from os import PathLike, fspath

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count
from jaxnn.callbacks._callbacks import Callback, Event


@checked
def profile(directory: str | PathLike[str], *, start: int = 10, stop: int = 20) -> Callback:
    """Write a trace of the steps from `start` to before `stop`, by `jax.profiler`.

    It shows what the device and the host do when, by the paths of the layers: open the directory
    in XProf or TensorBoard with its plugin (`pip install xprof`). Steps are counted from 0; the
    first one, which waits for the compiler, is in no trace.

    Args:
        directory: where the trace goes.
        start: the number of the first step, at least 1.
        stop: the number of the step before which the trace ends, more than `start`. It ends
            earlier where the run does.

    Returns:
        A `Callback`, for one call of `nn.fit`.

    Raises:
        RuntimeError: in training, another trace is being written.
        ValueError: not `1 <= start < stop`.

    Example:
        >>> import jaxnn as nn
        >>> callback = nn.callbacks.profile("traces", start=100, stop=110)
        >>> callback.at_steps
        (100, 110)
    """
    check_count("profile", "start", start)
    if stop <= start:
        raise ValueError(f"profile: stop is {stop}, expected more than start, {start}")
    is_on = False

    def on_step_chunk(event: Event) -> None:
        nonlocal is_on
        if is_on and event.step >= stop:
            end(event)
        elif not is_on and start <= event.step < stop:
            jax.profiler.start_trace(fspath(directory))
            is_on = True

    def end(event: Event) -> None:
        nonlocal is_on
        if is_on:
            is_on = False
            jax.profiler.stop_trace()

    return Callback(on_step_chunk=on_step_chunk, on_end=end, at_steps=(start, stop))
