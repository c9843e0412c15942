"""Layers over sequences as cells that take one step at a time."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnn._core.arrays import accumulator_dtype, is_inexact
from jaxnn._core.construction import call_of, constructor
from jaxnn._core.decoding import decoding_by_element
from jaxnn._core.layer import Cell, LayerLike, as_layer
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree


@constructor
def autoregressive(layer: LayerLike, *, features: Sequence[int] = ()) -> Cell:
    """A layer over sequences as a `Cell` that takes one step at a time.

    The carry is the state of the layer: the key/value caches of attention with `cache_length=`, and
    the positions, sums and carries of layers with `cached=True`; of a stack, a tuple of the states
    of its layers. The parameters are those of the layer, and of the same layer without caches, as
    it was trained.

    Args:
        layer: a layer from `(batch, time, *features)` to `(batch, time, ...)`, whose only state is
            that of decoding.
        features: the shape of one step's input for one sequence; `()` for integer tokens.

    Returns:
        A `Cell` for `nn.generate`, `nn.recurrent` or `jax.lax.scan`.

    Raises:
        ValueError: in `step`, self-attention has no cache, positions are not cached, or a recurrent
            layer or a convolution looks along time: they would see one element alone.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def model(**cache):
        ...     return nn.serial(nn.embedding(10, 8), nn.attention(2, is_causal=True, **cache))
        >>> x = jnp.array([[3, 1, 4]])
        >>> params, state = model().init(jax.random.key(0), x)
        >>> y, _ = model().apply(params, state, x)
        >>> cell = nn.autoregressive(model(cache_length=3))
        >>> carry = cell.initial_carry(params, (1,), jnp.float32)
        >>> for t in range(3):
        ...     carry, y_t = cell.step(params, carry, x[:, t])
        >>> bool(jnp.allclose(y_t, y[:, -1], atol=1e-6))
        True
    """
    layer = as_layer(layer, "autoregressive: layer")
    features = tuple(features)

    def one_step(x_t: PyTree) -> Any:
        """The input `(*batch, 1, *features)`, a batch of one where there is none."""
        batch_ndim = jnp.ndim(x_t) - len(features)
        x = jnp.expand_dims(x_t, batch_ndim)
        return x if batch_ndim else x[None]

    def init(key: jax.Array, x_t: PyTree) -> PyTree:
        return layer.init(key, jax.eval_shape(one_step, x_t))[0]

    def initial_carry(params: PyTree, batch_shape: Sequence[int], dtype: DTypeLike) -> PyTree:
        given = jnp.int32 if not features else dtype
        x = jax.ShapeDtypeStruct((*(batch_shape or (1,)), 1, *features), given)
        with decoding_by_element():
            _, state = layer.init(jax.random.key(0), x)

        def narrowed(path: str, leaf: jax.Array) -> jax.Array:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return leaf
            is_sum = path.rpartition("/")[2] == "sums"  # of many steps, in float32 or wider
            return leaf.astype(accumulator_dtype(dtype) if is_sum else dtype)

        leaves, structure = jax.tree.flatten(state)
        return jax.tree.unflatten(structure, map(narrowed, leaf_paths(state), leaves))

    def step(
        params: PyTree,
        carry: PyTree,
        x_t: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        batch_ndim = jnp.ndim(x_t) - len(features)
        with decoding_by_element():
            y, carry = layer.apply(params, carry, one_step(x_t), key=key, train=train)
        y_t = jax.lax.index_in_dim(y, 0, max(batch_ndim, 1), keepdims=False)
        return carry, y_t if batch_ndim else y_t[0]

    return Cell(init, initial_carry, step)


def first_carry(cell: Cell, params: PyTree, batch: tuple[int, ...]) -> PyTree:
    floats = [leaf.dtype for leaf in jax.tree.leaves(params) if is_inexact(leaf.dtype)]
    return cell.initial_carry(params, batch, floats[0] if floats else jnp.result_type(float))


def read(
    cell: Cell, params: PyTree, carry: PyTree, tokens: jax.Array, number: jax.Array | None = None
) -> PyTree:
    """The carry after tokens `(batch, time)`, or after the first `number` of `(time,)`.

    It is one pass, if a layer over sequences takes them; what follows the first ones is forgotten.
    """
    if tokens.shape[-1] == 0:
        return carry
    made_by, arguments = call_of(cell)
    if made_by == autoregressive and (number is None or _has_positions_only(carry)):
        layer = as_layer(arguments["layer"], "autoregressive: layer")
        with decoding_by_element():
            carry = layer.apply(params, carry, jnp.atleast_2d(tokens))[1]
        return carry if number is None else _moved_to(number, carry)

    def one(carry: PyTree, at: tuple[jax.Array, jax.Array]) -> tuple[PyTree, None]:
        index, token = at
        new, _ = cell.step(params, carry, token)
        if number is None:
            return new, None
        return jax.tree.map(lambda new, old: jnp.where(index < number, new, old), new, carry), None

    return jax.lax.scan(one, carry, (jnp.arange(tokens.shape[-1]), tokens.T))[0]


def _name(path: tuple[Any, ...]) -> Any:
    return getattr(path[-1], "key", None) if path else None


def _has_positions_only(state: PyTree) -> bool:
    """Whether all that a state remembers is by position, as caches, which overwrite."""
    paths = [path for path, _ in jax.tree.leaves_with_path(state)]
    counted = {path[:-1] for path in paths if _name(path) == "position"}
    return all(path[:-1] in counted for path in paths)


def _moved_to(position: jax.Array, state: PyTree) -> PyTree:
    """The state of decoding with so many elements read: those after them are overwritten."""

    def move(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return jnp.full_like(leaf, position) if _name(path) == "position" else leaf

    return jax.tree.map_with_path(move, state)
