"""Sweeps: many training runs side by side, in one compiled program."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._arrays import PyTree, check_count, check_key
from jaxnn.layer import child_key
from jaxnn.training.data import device_array
from jaxnn.training.interrupts import interruptible
from jaxnn.training.memory import available_bytes, needed_bytes
from jaxnn.training.progress import counter

MOST_OF_MEMORY = 0.5  # of what is free: the program's own estimate is no bound

Train = Callable[..., tuple[PyTree, PyTree, dict[str, Any]]]
Values = Sequence[float] | np.ndarray | jax.Array | Callable[..., jax.Array]


class SweepResult(NamedTuple):
    """What `sweep` returns. All arrays are NumPy's, and axis 0 is for the runs, in their order.

    `table` has a column for each hyperparameter, the number of the "seed", and the last value of
    each metric (before NaN, if a run was stopped); printing the result prints it. `keys` are those
    the runs were made with: `train(keys[i], data, hyperparams, validation)` repeats one.
    """

    table: dict[str, np.ndarray]
    params: PyTree
    state: PyTree
    history: dict[str, np.ndarray]
    keys: jax.Array

    def best(self, metric: str | None = None, mode: str = "min") -> int:
        """The row of the best run: by "val_loss", else "loss", unless said; NaN is never best."""
        name = metric or ("val_loss" if "val_loss" in self.table else "loss")
        if name not in self.table:
            raise ValueError(
                f"SweepResult.best: metric is {name!r}, expected one of {list(self.table)}"
            )
        if mode not in ("min", "max"):
            raise ValueError(f"SweepResult.best: mode is {mode!r}, expected 'min' or 'max'")
        values = self.table[name].astype(float)
        if np.isnan(values).all():
            raise ValueError(f"SweepResult.best: all values of {name!r} are NaN")
        return int(np.nanargmin(values if mode == "min" else -values))

    def run(self, row: int) -> tuple[PyTree, PyTree, dict[str, np.ndarray]]:
        """The params, the state and the history of one run."""
        every = self.params, self.state, self.history
        one: tuple[PyTree, PyTree, dict[str, np.ndarray]] = jax.tree.map(lambda a: a[row], every)
        return one

    def __str__(self) -> str:
        """The table, a line for each run."""
        columns = [[name, *(f"{v:.4g}" for v in values)] for name, values in self.table.items()]
        widths = [max(map(len, column)) for column in columns]
        lines = (
            "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
            for row in zip(*columns, strict=True)
        )
        return "\n".join(lines)


def log_uniform(low: float, high: float) -> Callable[..., jax.Array]:
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
    progress: bool | str | None = None,
) -> SweepResult:
    """Train for many hyperparameters and seeds side by side: a grid or a random search.

    The runs are vmapped: while they are small, many cost about what one costs. How many go side
    by side changes their numbers by rounding only.

    Args:
        train: `train(key, data, hyperparams, validation) -> (params, state, history)`, what
            `training_run` returns or any pure function; `hyperparams` is a dict of scalars, traced.
        key: a typed PRNG key. Runs with the same seed have the same key, whatever their
            hyperparameters: the same initial values and order, so that they can be compared.
        grid: for each hyperparameter the numbers to try, in all combinations. With `samples`, each
            may also be a function `(key, shape) -> numbers`, as `log_uniform` or `jax.random`'s.
        data: a data set for `train`.
        validation: a validation set for `train`.
        samples: the number of combinations to draw at random; None for all of the grid.
        seeds: how many times to run each combination.
        lanes: how many runs to do at once; None for as many as half of the free memory allows.
        progress: as in `fit`.

    Returns:
        A `SweepResult`. After Ctrl-C, of the runs that were finished.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: `grid` has no names, or no numbers for one; `samples`, `seeds` or `lanes` is
            less than 1.

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
    columns = _combinations(key, grid, samples)
    combinations = len(next(iter(columns.values())))
    which, seed = (a.ravel() for a in np.mgrid[:combinations, :seeds])
    hyperparams = {name: values[which] for name, values in columns.items()}
    keys = jax.vmap(jax.random.fold_in, (None, 0))(child_key(key, "runs"), jnp.arange(seeds))
    key_data, key_impl = np.asarray(jax.random.key_data(keys))[seed], jax.random.key_impl(keys)

    def group(rows: np.ndarray) -> tuple[jax.Array, PyTree, dict[str, jax.Array], PyTree]:
        own_keys = jax.random.wrap_key_data(key_data[rows], impl=key_impl)
        own = {name: values[rows] for name, values in hyperparams.items()}
        return own_keys, data, own, validation

    data, validation = jax.tree.map(device_array, (data, validation))

    side_by_side = jax.jit(jax.vmap(train, in_axes=(0, None, 0, None)))
    program, size = _compiled(side_by_side, group, len(seed), lanes)
    done: list[Any] = []
    tell = counter("sweep", progress, len(seed), "runs")
    with interruptible() as interrupt:
        for first in range(0, len(seed), size):
            rows = np.minimum(np.arange(first, first + size), len(seed) - 1)
            new = min(size, len(seed) - first)
            done.append(jax.tree.map(lambda a, new=new: np.asarray(a)[:new], program(*group(rows))))
            tell(first + new)
            if interrupt.is_set():
                break
    tell(None)
    params, state, history = jax.tree.map(lambda *parts: np.concatenate(parts), *done)
    runs = len(next(iter(history.values())))
    table = {name: np.asarray(values)[:runs] for name, values in hyperparams.items()}
    last = {name: _last(values) for name, values in history.items() if values.ndim == 2}
    run_keys, *_ = group(np.arange(runs))
    return SweepResult(table | {"seed": seed[:runs]} | last, params, state, history, run_keys)


def _combinations(
    key: jax.Array, grid: Mapping[str, Values], samples: int | None
) -> dict[str, jax.Array]:
    """A column for each hyperparameter, a row for each combination."""
    if not isinstance(grid, Mapping):
        raise TypeError(f"sweep: grid is {grid!r}, expected a dict of numbers by name")
    if not grid:
        raise ValueError("sweep: grid is empty, expected numbers for one name at least")
    if samples is None:
        given = {name: _numbers(name, values) for name, values in grid.items()}
        product = list(itertools.product(*(range(len(values)) for values in given.values())))
        rows = np.array(product).T
        return {n: v[row] for (n, v), row in zip(given.items(), rows, strict=True)}
    columns = {}
    for name, values in grid.items():
        own = child_key(key, f"grid/{name}")
        if callable(values):
            columns[name] = jnp.asarray(values(own, (samples,)))
        else:
            columns[name] = jax.random.choice(own, _numbers(name, values), (samples,))
    return columns


def _numbers(name: str, values: Any) -> jax.Array:
    if callable(values):
        raise ValueError(f"sweep: grid[{name!r}] is a function, which needs samples=")
    array = values if hasattr(values, "dtype") else np.asarray(values)
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise TypeError(f"sweep: grid[{name!r}] is {values!r}, expected numbers")
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            f"sweep: grid[{name!r}] has shape {array.shape}, expected a sequence of numbers"
        )
    return jnp.asarray(array)


def _compiled(
    side_by_side: Any, group: Callable[[np.ndarray], Any], runs: int, lanes: int | None
) -> tuple[Any, int]:
    """The compiled program, and for how many runs at once: as few groups as memory allows."""
    limit, groups = available_bytes(), 1 if lanes is None else math.ceil(runs / lanes)
    while True:
        size = math.ceil(runs / groups)
        traced = side_by_side.trace(*group(np.arange(size)))
        _check_names(*traced.args_info[0][2:3], *traced.out_info[2:])
        program = traced.lower().compile()
        needed = needed_bytes(program)
        if lanes is not None or size == 1 or limit is None or needed <= MOST_OF_MEMORY * limit:
            return program, size
        groups = min(max(groups + 1, math.ceil(groups * needed / (MOST_OF_MEMORY * limit))), runs)


def _check_names(hyperparams: Any, history: Any) -> None:
    """Raise unless each column of the table has a name of its own."""
    for name in ("seed", *history):
        if name in hyperparams:
            raise ValueError(f"sweep: grid has the name {name!r}, which the table needs itself")


def _last(history: np.ndarray) -> np.ndarray:
    """The last value in each row that is not NaN, or NaN."""
    is_value = ~np.isnan(history)
    last = history.shape[1] - 1 - np.argmax(is_value[:, ::-1], axis=1)
    values: np.ndarray = history[np.arange(len(history)), last]
    return values
