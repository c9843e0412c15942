"""The combinations of hyperparameters that a sweep runs through."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.layer import child_key
from jaxnn._training.data.transfer import device_dtype

Values = Sequence[float] | np.ndarray | jax.Array | Callable[[Any, Any], jax.Array]


def combinations(
    key: jax.Array, grid: Mapping[str, Values], samples: int | None
) -> dict[str, np.ndarray]:
    """A column for each hyperparameter, a row for each combination: all, or so many drawn."""
    if not isinstance(grid, Mapping) or not all(isinstance(name, str) for name in grid):
        raise TypeError(f"sweep: grid is {grid!r}, expected a dict of numbers by name")
    if not grid:
        raise ValueError("sweep: grid is empty, expected numbers for one name at least")
    if samples is not None:
        return {name: _drawn(key, name, values, samples) for name, values in grid.items()}
    columns = [_numbers(name, values) for name, values in grid.items()]
    every = np.meshgrid(*columns, indexing="ij")
    return {name: column.ravel() for name, column in zip(grid, every, strict=True)}


def _drawn(key: jax.Array, name: str, values: Any, samples: int) -> np.ndarray:
    own = child_key(key, f"grid/{name}")
    if not callable(values):
        numbers = _numbers(name, values)
        return np.take(numbers, jax.random.randint(own, (samples,), 0, len(numbers)))
    drawn = values(own, (samples,))
    column = _as_numbers(f"what the function grid[{name!r}] returned", drawn)
    if column.shape != (samples,):
        raise ValueError(
            f"sweep: what the function grid[{name!r}] returned has shape {column.shape}, "
            f"expected ({samples},)"
        )
    return column


def _numbers(name: str, values: Any) -> np.ndarray:
    if callable(values):
        raise ValueError(f"sweep: grid[{name!r}] is a function, which needs samples=")
    column = _as_numbers(f"grid[{name!r}]", values)
    if column.ndim != 1 or len(column) == 0:
        raise ValueError(
            f"sweep: grid[{name!r}] has shape {column.shape}, expected a sequence of numbers"
        )
    return column


def _as_numbers(what: str, values: Any) -> np.ndarray:
    """Real numbers in the dtype that they have on the device; integers stay integers."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # of different lengths
        raise ValueError(f"sweep: {what} is {values!r}, expected a sequence of numbers") from error
    kinds = (np.bool_, np.integer, np.floating)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise TypeError(f"sweep: {what} is {values!r}, expected real numbers")
    numbers = array.astype(device_dtype(array.dtype))
    if array.dtype.kind in "iu" and not np.array_equal(numbers, array):
        raise ValueError(
            f"sweep: {what} is {values!r}, expected integers that {numbers.dtype} can hold"
        )
    if np.isnan(numbers).any():
        raise ValueError(f"sweep: {what} is {values!r}, expected numbers")
    return numbers
