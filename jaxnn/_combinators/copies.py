"""Many layers of one kind: on top of one another, or side by side as an ensemble."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._combinators.rematerialization import has_checkpoint, is_kept
from jaxnn._core.arrays import check_count, check_key, floating
from jaxnn._core.children import record_copies, recorded_copies, wrap
from jaxnn._core.construction import constructor
from jaxnn._core.decoding import is_decoded
from jaxnn._core.keywords import accepted, split_static
from jaxnn._core.layer import Layer, LayerLike, abstract, as_layer
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree
from jaxnn._core.watching import Crossing, Seen, see_each


@constructor
def stack(layer: LayerLike, depth: int) -> Layer:
    """The same layer `depth` times over, each time with its own parameters: `y = f_n(...(f_1(x)))`.

    The parameters of all are one tree with a leading axis, and `jax.lax.scan` runs over it: what
    is compiled is one layer, however deep the stack.

    Args:
        layer: a layer whose output has the shape and dtype of its input (integers become floats
            before the first). Further keywords that its `apply` declares (as `mask`) are passed on
            to every one.
        depth: the number of layers.

    Returns:
        A `Layer` whose params and state are those of `layer`, each leaf with a leading axis of
        size `depth`. Layer `i` draws from `jax.random.fold_in(key, i)`.

    Raises:
        TypeError: `depth` is not an integer.
        ValueError: `depth` is less than 1; the output is not like the input; params are of another
            depth.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> block = nn.residual(nn.serial(nn.layer_norm(), nn.dense(8), nn.relu))
        >>> model = nn.stack(block, 24)
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 8)))
        >>> params["layer"][1]["kernel"].shape
        (24, 8, 8)
        >>> model.apply(params, state, jnp.ones((2, 8)))[0].shape
        (2, 8)
    """
    layer = as_layer(layer, "stack: layer")
    check_count("stack", "depth", depth)

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        x = abstract(jax.eval_shape(_floating, abstract(x)))
        params, state = init_copies("stack", layer, depth, key, x, extra)
        arrays, static = split_static(accepted(layer.apply, extra))

        def first(params: PyTree, state: PyTree, x: PyTree, arrays: dict[str, Any]) -> PyTree:
            params, state = jax.tree.map(lambda leaf: leaf[0], (params, state))
            return layer.apply(params, state, x, **arrays, **static)[0]

        y = jax.eval_shape(first, params, state, x, arrays)
        if abstract(y) != x:
            raise ValueError(
                f"stack: {layer!r} makes {_text(y)} of {_text(x)}, expected an output of the shape "
                "and dtype of its input"
            )
        return params, _apart(state, depth) if is_decoded() and jax.tree.leaves(state) else state

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        check_copies("stack", depth, params)
        keys = copy_keys("stack", key, depth)
        if is_decoded():  # a scan would copy all weights and caches for every element
            return apply_each(params, state, _floating(x), keys, train, extra)

        crossing = Crossing()

        def step(x: PyTree, one: tuple[PyTree, PyTree, PyTree, Seen]) -> tuple[PyTree, PyTree]:
            params, state, key, added = one
            with crossing.inside(added) as seen:
                y, state = layer.apply(params, state, x, key=key, train=train, **extra)
                y = see_each(layer, y)
            return y, (state, seen)

        x, layers = _floating(x), (params, state, keys, crossing.added)
        y, (new_state, seen) = jax.lax.scan(_rematerialized(step, x, layers), x, layers, depth)
        crossing.report(seen)
        return y, new_state

    def apply_each(
        params: PyTree, state: PyTree, x: PyTree, keys: Any, train: bool, extra: dict[str, Any]
    ) -> tuple[PyTree, PyTree]:
        has_state = bool(jax.tree.leaves(state))
        states = state if has_state else depth * (state,)
        new_states = []
        for own, own_state, key in zip(
            _apart(params, depth), states, _apart(keys, depth), strict=True
        ):
            x, new_state = layer.apply(own, own_state, x, key=key, train=train, **extra)
            new_states.append(new_state)
        return x, tuple(new_states) if has_state else state

    return wrap(layer, apply, init)


def _apart(tree: PyTree, depth: int) -> tuple[PyTree, ...]:
    """What belongs to each layer, of leaves with a leading axis."""
    leaves, structure = jax.tree.flatten(tree)
    return tuple(jax.tree.unflatten(structure, [leaf[i] for leaf in leaves]) for i in range(depth))


def _rematerialized(step: Callable[..., Any], x: PyTree, layers: PyTree) -> Callable[..., Any]:
    """`step` of a scan that recomputes in the backward pass what is cheap to compute."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), layers)
    step = jax.jit(step)  # traced here, and not again by the scan
    if has_checkpoint(step.trace(x, one).jaxpr.jaxpr):
        return step
    return jax.checkpoint(step, policy=is_kept, prevent_cse=False)


@constructor
def ensemble(layer: LayerLike, members: int) -> Layer:
    """The same layer `members` times side by side, each with its own parameters, on the same input.

    `y[i] = layer(x)` with the parameters of member `i`: the members are vmapped, and cost about
    what one costs while they are small. The output has an axis more, which a loss of it must take.
    To train copies of a model each as it would be alone, on its own loss, gradient and order of the
    examples, give `members=` to `fit`: its result has the params of an `ensemble`.

    Args:
        layer: a layer or a plain function of arrays. Further keywords that its `apply` declares
            (as `mask`) are passed on to every member.
        members: the number of members.

    Returns:
        A `Layer` whose params, state and output are those of `layer`, each leaf with a leading axis
        of size `members`. Member `i` draws from `jax.random.fold_in(key, i)`.

    Raises:
        TypeError: `members` is not an integer.
        ValueError: `members` is less than 1; params are of another number of members.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.ensemble(nn.serial(nn.dense(16), nn.tanh, nn.dense(1)), 5)
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> y, state = model.apply(params, state, jnp.ones((8, 3)))
        >>> y.shape, y.mean(axis=0).shape, y.std(axis=0).shape
        ((5, 8, 1), (8, 1), (8, 1))
    """
    layer = as_layer(layer, "ensemble: layer")
    check_count("ensemble", "members", members)

    def init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        return init_copies("ensemble", layer, members, key, x, extra)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        check_copies("ensemble", members, params)
        check_copies("ensemble", members, state, "state")

        crossing = Crossing()

        def member(params: PyTree, state: PyTree, key: Any, added: Seen) -> PyTree:
            with crossing.inside(added) as seen:
                y, new_state = layer.apply(params, state, x, key=key, train=train, **extra)
            return y, new_state, seen

        keys = copy_keys("ensemble", key, members)
        of_members = params, state, keys, crossing.added
        y, new_state, seen = jax.vmap(member, axis_size=members)(*of_members)
        crossing.report(seen)
        return y, new_state

    return wrap(layer, apply, init)


def copy_keys(combinator: str, key: jax.Array | None, n: int) -> Any:
    """A key for each copy, None for None: it depends on the copy's number alone."""
    if key is None:
        return None
    check_key(combinator, key)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))


def init_copies(
    combinator: str, layer: Layer, n: int, key: jax.Array, x: PyTree, extra: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    """The params and states of `n` copies of a layer, each leaf with a leading axis."""
    check_key(combinator, key)
    x = abstract(x)
    keys = copy_keys(combinator, key, n)
    inner: list[int] = []

    def one(key: jax.Array) -> tuple[PyTree, PyTree]:
        with recorded_copies() as copied:
            params, state = layer.init(key, x, **extra)
        inner[:] = map(copied.axes, jax.tree.leaves(params))
        return params, state

    params, state = jax.vmap(one)(keys)
    record_copies(params, inner)
    return params, state


def check_copies(function: str, n: int, params: PyTree, name: str = "params") -> None:
    """Raise unless every leaf has a leading axis of size `n`."""
    for leaf, path in zip(jax.tree.leaves(params), leaf_paths(params), strict=True):
        if np.shape(leaf)[:1] != (n,):
            raise ValueError(
                f"{function}: {name}['{path}'] has shape {np.shape(leaf)}, expected a leading "
                f"axis of size {n}"
            )


def _floating(x: PyTree) -> PyTree:
    return jax.tree.map(floating, x)


def _text(tree: PyTree) -> str:
    leaves = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(abstract(tree))]
    return ", ".join(leaves)
