"""Sweeps: many training runs side by side, in one compiled program."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.layer import child_key
from jaxnn._core.programs import compiled
from jaxnn._core.progress import counter
from jaxnn._core.sharding import Sharding, check_sharding
from jaxnn._core.types import PyTree
from jaxnn._training.data.transfer import batch_to_device
from jaxnn._training.host.interrupts import interruptible
from jaxnn._training.sweeps.grids import Values, combinations
from jaxnn._training.sweeps.lanes import Block, grid_of, largest_block, on_devices, side_by_side

Train = Callable[[Any, Any, Any, Any], tuple[PyTree, PyTree, Mapping[str, Any]]]


class SweepResult(NamedTuple):
    """What `sweep` returns. All arrays are NumPy's, and axis 0 is for the runs, in their order.

    `table` has a column for each hyperparameter, the number of the "seed", and each metric in the
    last epoch that was trained; metrics with several values are in `history` alone. Printing the
    result prints the table. `keys` are those the runs were made with: `train(keys[i], data,
    hyperparams, validation)` repeats one.
    """

    table: dict[str, np.ndarray]
    params: PyTree
    state: PyTree
    history: dict[str, np.ndarray]
    keys: jax.Array

    def best(
        self,
        metric: str | None = None,
        mode: Literal["min", "max"] = "min",
        *,
        epoch: Literal["last", "best"] = "last",
    ) -> int:
        """The row of the best run: by "val_loss", else "loss", unless said; NaN is never best.

        Runs are compared as they are in the last epoch, or with `epoch="best"` each in the best of
        its epochs, from which the params are after early stopping on that metric.
        """
        name = metric or _usual(self.table) or "val_loss"
        _check_choice(self.table, "best", name, mode)
        if epoch not in ("last", "best"):
            raise ValueError(f"SweepResult.best: epoch is {epoch!r}, expected 'last' or 'best'")
        sign = 1.0 if mode == "min" else -1.0
        values = sign * self.table[name].astype(float)
        if epoch == "best" and name in self.history:
            values = np.fmin.reduce(np.atleast_2d(sign * self.history[name].astype(float).T))
        if np.isnan(values).all():
            raise ValueError(f"SweepResult.best: all values of {name!r} are NaN")
        return int(np.nanargmin(values))

    def run(self, row: int) -> tuple[PyTree, PyTree, dict[str, np.ndarray]]:
        """The params, the state and the history of one run."""
        every = self.params, self.state, self.history
        one: tuple[PyTree, PyTree, dict[str, np.ndarray]] = jax.tree.map(lambda a: a[row], every)
        return one

    def summary(
        self,
        metric: str | None = None,
        mode: Literal["min", "max"] = "min",
        rows: int | None = None,
    ) -> str:
        """The table as text, the best run first, as many rows as wanted; "run" is the row."""
        runs = np.arange(len(self.table["seed"]))
        name = metric or _usual(self.table)
        if name is not None:
            _check_choice(self.table, "summary", name, mode)
            values = self.table[name].astype(float)
            runs = np.argsort(values if mode == "min" else -values, kind="stable")
        shown = {"run": runs} | {name: column[runs] for name, column in self.table.items()}
        columns = [[name, *map(_text, values[:rows])] for name, values in shown.items()]
        widths = [max(map(len, column)) for column in columns]
        lines = (
            "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
            for row in zip(*columns, strict=True)
        )
        return "\n".join(lines)

    def __str__(self) -> str:
        """The table, a line for each run, the best first."""
        return self.summary()


def _usual(table: Mapping[str, Any]) -> str | None:
    """The metric that runs are compared by unless another is named."""
    return next((name for name in ("val_loss", "loss") if name in table), None)


def _check_choice(table: Mapping[str, Any], method: str, metric: str, mode: str) -> None:
    if metric not in table:
        raise ValueError(
            f"SweepResult.{method}: metric is {metric!r}, expected one of {list(table)}"
        )
    if mode not in ("min", "max"):
        raise ValueError(f"SweepResult.{method}: mode is {mode!r}, expected 'min' or 'max'")


def _text(value: Any) -> str:
    return f"{value:.4g}" if jnp.issubdtype(value.dtype, np.floating) else str(value)


@checked
def log_uniform(low: float, high: float) -> Callable[[jax.Array, tuple[int, ...]], jax.Array]:
    """Numbers whose logarithm is uniform, for `sweep`.

    Args:
        low: the smallest, more than 0.
        high: the largest, more than `low`.

    Returns:
        A function `(key, shape) -> array`, as those of `jax.random`.

    Raises:
        ValueError: not `0 < low < high`.

    Example:
        >>> import jax, jaxnn as nn
        >>> rates = nn.log_uniform(1e-4, 1e-1)(jax.random.key(0), (1000,))
        >>> bool(rates.min() >= 1e-4), bool(rates.max() <= 1e-1), bool((rates < 1e-2).mean() > 0.6)
        (True, True, True)
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"log_uniform: low is {low} and high {high}, expected 0 < low < high")

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        exponents = jax.random.uniform(key, shape, minval=math.log(low), maxval=math.log(high))
        return jnp.clip(jnp.exp(exponents), low, high)

    return draw


@checked
def sweep(
    train: Train,
    key: jax.Array,
    grid: Mapping[str, Values],
    data: PyTree,
    *,
    validation: PyTree = None,
    samples: int | None = None,
    seeds: int = 1,
    lanes: int | None = None,
    progress: bool | Literal["bar", "lines"] | None = None,
    sharding: Sharding | None = None,
) -> SweepResult:
    """Train for many hyperparameters and seeds side by side: a grid or a random search.

    The runs are vmapped: while they are small, many cost less than one by one. How many go side
    by side changes their numbers by rounding only. A second sweep with the same `train` and as
    many runs compiles nothing.

    Args:
        train: `train(key, data, hyperparams, validation) -> (params, state, history)`, what
            `training_run` returns or any pure function; `hyperparams` is a dict of scalars, traced.
        key: a typed PRNG key. Runs with the same seed have the same key, whatever their
            hyperparameters: the same initial values and order, so that they can be compared.
        grid: for each hyperparameter the numbers to try, in all combinations. With `samples`, each
            may also be a function `(key, shape) -> numbers`, as `log_uniform` or `jax.random`'s.
        data: a data set for `train`, any pytree of arrays.
        validation: a validation set for `train`, as `data`.
        samples: the number of combinations to draw at random, each independently of the others;
            None for all of the grid.
        seeds: how many times to run each combination.
        lanes: how many runs to do at once, at most; None for as many as half of the free memory
            allows. Progress is shown, and Ctrl-C is heard, between one group and the next.
        progress: as in `fit`.
        sharding: `nn.sharding(...)`: each device of its mesh has runs of its own.

    Returns:
        A `SweepResult`. After Ctrl-C, of the runs that were finished.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: `grid` has no names, or no numbers for one, or a function and no `samples`, or
            the name of a metric; `samples`, `seeds` or `lanes` is less than 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 64)[:, None]
        >>> train = nn.training_run(nn.serial(nn.dense(8), nn.tanh, nn.dense(1)), epochs=200,
        ...     loss=nn.losses.squared_error, optimizer=lambda h: nn.optimizers.adam(h["rate"]))
        >>> rates = {"rate": [1e-6, 1e-2]}
        >>> result = nn.sweep(train, jax.random.key(0), rates, (x, x ** 2), seeds=3)
        >>> result.table["seed"].tolist(), result.history["loss"].shape
        ([0, 1, 2, 0, 1, 2], (6, 200))
        >>> bool(result.table["rate"][result.best()] > 1e-3)
        True
    """
    check_key("sweep", key)
    for name, count in (("samples", samples), ("seeds", seeds), ("lanes", lanes)):
        if count is not None:
            check_count("sweep", name, count)
    check_sharding("sweep", sharding)
    columns = combinations(key, grid, samples)
    n = len(next(iter(columns.values())))
    data = batch_to_device("sweep: data", data)
    validation = batch_to_device("sweep: validation", validation)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(child_key(key, "runs"), jnp.arange(seeds))
    placed: Callable[[PyTree], Any] = _same if sharding is None else sharding.put
    data, validation = placed((data, validation))
    rows, row_length = grid_of(sharding, n, seeds)

    def arguments(block: Block, first: int, first_seed: int) -> Any:
        """Those of a block; what is beyond the last combination or seed repeats it."""
        which = np.minimum(first + np.arange(block.combinations), n - 1)
        seed = np.minimum(first_seed + np.arange(block.seeds), seeds - 1)
        own = {name: column[which] for name, column in columns.items()}
        return placed(keys[seed]), data, placed(own), validation

    def of_all(block: Block) -> Block:
        """What all devices take together, each a block."""
        return Block(block.combinations * rows, block.seeds * row_length)

    def program_for(block: Block) -> Any:
        program = compiled(side_by_side, train)
        if sharding is not None:
            program = compiled(on_devices, train, sharding, (rows, row_length))
        return program.lower(*arguments(of_all(block), 0, 0)).compile()

    block, program = largest_block(
        program_for,
        math.ceil(n / rows),
        math.ceil(seeds / row_length),
        None if lanes is None else max(lanes // (rows * row_length), 1),
    )
    block = of_all(block)
    show_progress = counter("sweep", progress, n * seeds, "runs")
    done: list[Any] = []
    finished, best = 0, math.nan
    with interruptible(at_termination=None) as interrupt:
        try:
            for first, first_seed in itertools.product(
                range(0, n, block.combinations), range(0, seeds, block.seeds)
            ):
                new = min(block.combinations, n - first), min(block.seeds, seeds - first_seed)
                results = _on_host(program(*arguments(block, first, first_seed)), *new)
                last = _last_values(results[0], results[2])
                done.append((*results, last))
                finished += new[0] * new[1]
                metric = _usual(last)
                if metric is not None:
                    best = float(np.fmin.reduce(last[metric].astype(float), initial=best))
                show_progress(finished, "" if metric is None else f"best {metric} {best:.4g}")
                if interrupt.is_set:
                    break
        finally:
            show_progress(None, "")
    params, state, history, last = jax.tree.map(lambda *parts: np.concatenate(parts), *done)
    which, seed = (indices.ravel()[:finished] for indices in np.mgrid[:n, :seeds])
    table = {name: column[which] for name, column in columns.items()}
    return SweepResult(table | {"seed": seed} | last, params, state, history, keys[seed])


def _same(tree: PyTree) -> PyTree:
    return tree


def _on_host(results: PyTree, combinations: int, seeds: int) -> PyTree:
    """The first so many of a block, with one axis for the runs instead of two."""

    def of_runs(leaf: jax.Array) -> np.ndarray:
        wanted = np.asarray(leaf)[:combinations, :seeds]
        return wanted.reshape(combinations * seeds, *leaf.shape[2:])

    return jax.tree.map(of_runs, results)


def _last_values(params: PyTree, history: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics of each run in the last epoch that was trained: a stopped run has NaN after it.

    A run with params that are not finite was not stopped but is lost, and its NaN are its own.
    """
    runs = len(next(iter(jax.tree.leaves((history, params))), ()))
    lost = np.zeros(runs, bool)
    for leaf in jax.tree.leaves(params):
        lost |= ~np.isfinite(leaf).reshape(runs, -1).all(axis=1)
    values = {name: column for name, column in history.items() if column.ndim == 1}
    rows = {
        name: rows
        for name, rows in history.items()
        if rows.ndim == 2 and rows.size and name != "epochs"
    }
    for name, metric in rows.items():
        alike = (other for other in rows.values() if other.shape == metric.shape)
        trained = np.logical_or.reduce([~np.isnan(other) for other in alike])
        trained[lost | ~trained.any(axis=1)] = True
        last = metric.shape[1] - 1 - np.argmax(trained[:, ::-1], axis=1)
        values[name] = metric[np.arange(runs), last]
    return {name: values[name] for name in history if name in values}
