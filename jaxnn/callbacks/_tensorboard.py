"""A log for TensorBoard."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import jax
import numpy as np

from jaxnn._core.arguments import checked
from jaxnn._core.paths import check_globs, is_match, leaf_paths
from jaxnn.callbacks._callbacks import Callback, Event, in_first_process


@checked
def tensorboard_log(directory: str | PathLike[str], *, histograms: Sequence[str] = ()) -> Callback:
    """Write the metrics of each epoch, and the loss between, for TensorBoard.

    Needs tensorboardX, which the extra `tensorboard` brings: `pip install tensorboardX`. The
    metrics are drawn over steps. A run that is resumed writes over what came after its checkpoint.

    Args:
        directory: where the event files go, one directory for each run.
        histograms: globs on the paths of params, as "*/kernel", of whose finite values there is a
            histogram for each epoch.

    Returns:
        A `Callback`, for one call of `nn.fit`.

    Raises:
        ImportError: the package tensorboardX is not installed.
        ValueError: in training, a glob matches no path.

    Example:
        >>> import jaxnn as nn
        >>> log = nn.callbacks.tensorboard_log("run", histograms=["*/kernel"])  # doctest: +SKIP
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "tensorboard_log needs tensorboardX (in the extra `tensorboard`): "
            "pip install tensorboardX"
        ) from error
    writer: Any = None
    last_step: int | None = None

    def opened() -> Any:
        nonlocal writer
        if writer is None:
            purge = None if last_step is None else last_step + 1
            writer = SummaryWriter(str(directory), purge_step=purge)
        return writer

    def on_step_chunk(event: Event) -> None:
        nonlocal last_step
        if histograms and last_step is None:
            check_globs("tensorboard_log: histograms", histograms, leaf_paths(event.params))
        opened().add_scalar("running_loss", event.running_loss, event.step)
        last_step = event.step

    def on_epoch(event: Event) -> None:
        for name, value in event.metrics.items():
            if isinstance(value, float):
                opened().add_scalar(name, value, event.step)
        leaves = zip(leaf_paths(event.params), jax.tree.leaves(event.params), strict=True)
        for path, leaf in leaves:
            if is_match(path, histograms):
                values = np.asarray(leaf).astype(np.float64)
                finite = values[np.isfinite(values)]
                if finite.size:
                    opened().add_histogram(f"params/{path}", finite, event.step)

    def on_end(event: Event) -> None:
        opened().close()

    def restore(saved: Any) -> None:
        nonlocal last_step
        last_step = saved

    return Callback(
        in_first_process(on_epoch),
        in_first_process(on_step_chunk),
        in_first_process(on_end),
        save=lambda: last_step,
        restore=restore,
    )
