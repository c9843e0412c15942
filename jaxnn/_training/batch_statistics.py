"""The running statistics of batch normalisation, for parameters that were not trained with them."""

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_key
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._core.paths import leaf_paths, path_text
from jaxnn._core.programs import compiled
from jaxnn._core.types import Arrays, Data, PyTree
from jaxnn._training.data.arrays import arrays_on_device, batch_length, count_examples
from jaxnn._training.data.sources import as_source, is_streamed
from jaxnn._training.measuring import sums_of_batches
from jaxnn.metrics import mean
from jaxnn.metrics._accumulators import merge, summed
from jaxnn.metrics._means import MeanAccumulator


@checked
def update_batch_norm(
    model: LayerLike,
    params: Arrays,
    state: Arrays,
    x: Data,
    *,
    batch_size: int | None = None,
    key: jax.Array | None = None,
) -> PyTree:
    """The state with the running statistics that `batch_norm` has for these params over a data set.

    For params that were not trained as they are, as an average of `params_ema`, several checkpoints
    or pruned kernels: the statistics are of the activations of others. One pass over the data in
    training mode; each becomes the mean of those of the batches, by their examples.

    Source: `torch.optim.swa_utils.update_bn`; Izmailov et al., Averaging Weights Leads to Wider
    Optima and Better Generalization, https://arxiv.org/abs/1803.05407

    Args:
        model: a `Layer`.
        params: its parameters, which stay as they are.
        state: its state. What is named "mean" and "var" in it is renewed, all else stays.
        x: an array, or pytree of arrays, with the examples along axis 0; mapped files, or batches
            of `x` from an iterable, as `fit` takes them.
        batch_size: how many examples at a time, as in training; None for all at once.
        key: a typed PRNG key, for what is random in training, as dropout.

    Returns:
        A state of the same structure, shapes and dtypes.

    Raises:
        ValueError: the state has no running statistics; the leaves of `x` have different lengths;
            training needs a `key`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(nn.dense(1, use_bias=False), nn.batch_norm(decay=0.5))
        >>> x = jnp.array([[1.0], [2.0], [3.0]])
        >>> params, state = model.init(jax.random.key(0), x)
        >>> doubled = ({"kernel": jnp.array([[2.0]])}, params[1])
        >>> nn.update_batch_norm(model, doubled, state, x)["1"]
        {'mean': Array([4.], dtype=float32), 'var': Array([4.], dtype=float32)}
    """
    model = as_layer(model, "update_batch_norm: model")
    if key is not None:
        check_key("update_batch_norm", key)
    if not any(_is_statistic(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)):
        raise ValueError(
            f"update_batch_norm: state has leaves at {leaf_paths(state)[:3]}, expected 'mean' and "
            "'var' of batch_norm"
        )
    if is_streamed(x):
        source = as_source("update_batch_norm", "x", x, batch_size=batch_size, shuffle_key=None)
        sums_of = compiled(_sums, model)
        with source.batches(0) as batches:
            parts = (sums_of(params, state, key, i, batch) for i, batch in enumerate(batches))
            sums = functools.reduce(merge, parts)
    else:
        x = arrays_on_device("update_batch_norm: x", x)
        sums = compiled(_sums_of_all, model, batch_size)(params, state, key, x)
    return compiled(_renewed)(state, sums)


def _is_statistic(path: tuple[Any, ...]) -> bool:
    return path_text(path).rpartition("/")[2] in ("mean", "var")


def _is_count(path: tuple[Any, ...], statistics: Collection[str]) -> bool:
    """Whether it is the number of batches of a norm with `decay=None`."""
    owner, _, name = path_text(path).rpartition("/")
    return name == "count" and f"{owner}/mean".lstrip("/") in statistics


def _sums(
    model: Layer, params: PyTree, state: PyTree, key: jax.Array | None, number: Any, x: PyTree
) -> dict[str, MeanAccumulator]:
    """The statistics of a batch: accumulators by path.

    A running statistic is `decay old + weight new` with `weight = 1 - decay`, linear in the old
    one: it is `weight new` where the old one is 0, and its derivative is the decay. Means of all
    batches begin anew, for after many batches `1 - decay` would be lost in rounding.
    """
    paths_and_leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    old = {path_text(path): leaf for path, leaf in paths_and_leaves if _is_statistic(path)}
    others = {
        path_text(path): jnp.zeros_like(leaf) if _is_count(path, old.keys()) else leaf
        for path, leaf in paths_and_leaves
        if not _is_statistic(path)
    }
    own_key = None if key is None else jax.random.fold_in(key, number)

    def after(statistics: dict[str, jax.Array]) -> dict[str, jax.Array]:
        leaves = statistics | others
        begun = jax.tree.unflatten(structure, [leaves[path_text(p)] for p, _ in paths_and_leaves])
        _, ended = model.apply(params, begun, x, key=own_key, train=True)
        renewed = zip(paths_and_leaves, jax.tree.leaves(ended), strict=True)
        return {path_text(path): leaf for (path, _), leaf in renewed if _is_statistic(path)}

    zeros, ones = jax.tree.map(jnp.zeros_like, old), jax.tree.map(jnp.ones_like, old)
    new, decay = jax.jvp(after, (zeros,), (ones,))
    examples = batch_length(x)
    return {
        path: MeanAccumulator(summed(examples * new[path]), summed(examples * (1 - decay[path])))
        for path in new
    }


def _sums_of_all(
    model: Layer,
    batch_size: int | None,
    params: PyTree,
    state: PyTree,
    key: jax.Array | None,
    x: PyTree,
) -> dict[str, MeanAccumulator]:
    n = count_examples("update_batch_norm", "x", x)

    def sums_of(batch: PyTree) -> dict[str, MeanAccumulator]:
        x, positions = batch
        return _sums(model, params, state, key, positions[0], x)

    return sums_of_batches(sums_of, (x, jnp.arange(n)), batch_size)


def _renewed(state: PyTree, sums: dict[str, Any]) -> PyTree:
    def one(path: tuple[Any, ...], old: jax.Array) -> jax.Array:
        found = sums.get(path_text(path))
        if found is None:
            return old
        is_known = found.weight.total() > 0
        return jnp.where(is_known, mean().compute(found).astype(old.dtype), old)

    return jax.tree_util.tree_map_with_path(one, state)
