"""What the history can have besides losses and metrics: rates, norms, outputs of layers."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.paths import check_globs, leaf_paths
from jaxnn._core.types import PyTree
from jaxnn._training.outputs import STATISTICS
from jaxnn.optimizers._clipping import global_norm
from jaxnn.optimizers._rates import learning_rates

NORMS = ("gradient_norm", "update_norm", "param_norm", "update_ratio")
RECORDS = ("learning_rate", *NORMS)

Record = tuple[str, ...]


def check_record(function: str, record: Sequence[str]) -> Record:
    """The names as a tuple, which can be compared."""
    if isinstance(record, str) or not all(map(_is_known, record)):
        raise ValueError(
            f"{function}: record is {record!r}, expected a sequence of names among {RECORDS}, or "
            f"of one of {(*NORMS, *STATISTICS)} with a glob on paths, as 'gradient_norm/*'"
        )
    return tuple(record)


def _is_known(name: Any) -> bool:
    if name in RECORDS:
        return True
    kind, _, glob = name.partition("/") if isinstance(name, str) else ("", "", "")
    return bool(glob) and kind in (*NORMS, *STATISTICS)


def recorded(
    record: Record,
    optimizer: Any,
    params: PyTree,
    grads: PyTree,
    updates: PyTree,
    before: PyTree,
    after: PyTree,
) -> dict[str, jax.Array]:
    """What is recorded of the update that took the optimizer's state from `before` to `after`."""
    values = {}
    if "learning_rate" in record:
        rates = learning_rates(optimizer, before, after)
        if not rates:
            raise ValueError(
                "record: the learning rate of this optimizer is not known; wrap it in "
                "nn.optimizers.inject_hyperparams, which makes any known"
            )
        for group, rate in rates.items():
            values[f"learning_rate/{group}" if group else "learning_rate"] = rate
    paths = leaf_paths(params)
    leaves = [jax.tree.leaves(tree) for tree in (grads, updates, params)]
    of_leaf = dict(zip(paths, zip(*leaves, strict=True), strict=True))
    for name in record:
        kind, _, glob = name.partition("/")
        if kind not in NORMS:
            continue
        if not glob:
            values[name] = _norm(kind, grads, updates, params)
            continue
        check_globs(f"record: {kind}", [glob], paths)
        for path in fnmatch.filter(paths, glob):
            values[f"{kind}/{path}"] = _norm(kind, *of_leaf[path])
    return values


def _norm(kind: str, grads: PyTree, updates: PyTree, params: PyTree) -> jax.Array:
    if kind == "gradient_norm":
        return global_norm(grads)
    if kind == "param_norm":
        return global_norm(params)
    change = global_norm(updates)
    if kind == "update_norm":
        return change
    length = global_norm(params)
    is_zero = length == 0
    return jnp.where(is_zero, 0, change / jnp.where(is_zero, 1, length))
