"""Projections: the nearest point of a set, for parameters that have to lie in one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    check_range,
    hyperparameter,
    refuse_complex,
    widen,
)
from jaxnn._core.construction import constructor
from jaxnn._core.paths import broadcast_prefix, same_structure
from jaxnn._core.types import Arrays, PyTree, Scalar
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._base import Optimizer, stateless_transformation
from jaxnn.optimizers._clipping import global_norm
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scaled


@constructor
def project_params(projection: Callable[[PyTree], PyTree]) -> Optimizer:
    """Projected descent: `u = projection(w + g) - w`, so that the parameters stay in a set.

    The last of a chain. `masked` restricts it to some of the leaves, which the projection then sees
    alone.

    Args:
        projection: a function of a tree of arrays that returns one of the same structure, as
            `projection_simplex`, or `functools.partial(projection_l2_ball, scale=3.0)`.

    Returns:
        An `Optimizer` without state, whose `update` requires the params.

    Raises:
        ValueError: `update` is called without params; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> O = nn.optimizers
        >>> optimizer = O.chain(O.sgd(1.0), O.project_params(O.projection_simplex))
        >>> w = jnp.array([0.5, 0.5])
        >>> updates, _ = optimizer.update(jnp.array([1.0, -1.0]), optimizer.init(w), w)
        >>> w + updates
        Array([0., 1.], dtype=float32)
    """

    def function(updates: PyTree, params: PyTree) -> PyTree:
        check.params("project_params", params)
        moved = leafwise("project_params", lambda g, w: (w + g,), updates, given=(params,))[0]
        projected = projection(moved)
        same_structure("project_params", projected=projected, updates=updates)

        def rule(g: jax.Array, p: jax.Array, w: jax.Array) -> tuple[jax.Array]:
            return (p - w,)

        return leafwise("project_params", rule, updates, given=(projected, params))[0]

    return stateless_transformation(function)


@checked
def projection_non_negative(tree: Arrays) -> PyTree:
    """Project onto the numbers of at least 0: `max(x, 0)`.

    Args:
        tree: a tree of real arrays.

    Returns:
        A tree of the same structure, shapes and dtypes.

    Raises:
        TypeError: a leaf is complex.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.projection_non_negative({"w": jnp.array([-1.0, 2.0])})
        {'w': Array([0., 2.], dtype=float32)}
    """
    return projection_box(tree, 0.0, jnp.inf)


@checked
def projection_box(tree: Arrays, lower: Arrays, upper: Arrays) -> PyTree:
    """Project onto a box: `min(max(x, lower), upper)`.

    Args:
        tree: a tree of real arrays.
        lower: the least values: a number, or a tree in which a number stands for a subtree or an
            array for a leaf; not above `upper`.
        upper: the largest values, as `lower`; may be infinite.

    Returns:
        A tree of the same structure, shapes and dtypes.

    Raises:
        TypeError: a leaf is complex.
        ValueError: `lower` or `upper` does not fit the tree.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.projection_box({"w": jnp.array([-1.0, 0.5, 2.0])}, 0.0, {"w": 1.0})
        {'w': Array([0. , 0.5, 1. ], dtype=float32)}
    """
    low, high = (
        broadcast_prefix(limit, tree, f"projection_box: {name}")
        for name, limit in (("lower", lower), ("upper", upper))
    )

    def one(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        refuse_complex("projection_box", "tree", x)
        x = jnp.asarray(x)
        for name, limit in (("lower", low), ("upper", high)):
            if jnp.shape(limit) not in ((), x.shape):
                raise ValueError(
                    f"projection_box: {name} has shape {jnp.shape(limit)}, expected a number or "
                    f"the shape {x.shape}"
                )
        return jnp.clip(x, hyperparameter(low, x.dtype), hyperparameter(high, x.dtype))

    return jax.tree.map(one, tree, low, high)


@checked
def projection_simplex(tree: Arrays, scale: Scalar = 1.0) -> PyTree:
    """Project onto a simplex: all leaves as one vector, at least 0, with the sum `scale`.

    `max(x - τ, 0)`, with τ such that the sum is right.

    Paper: Duchi et al., Efficient Projections onto the l1-Ball for Learning in High Dimensions,
    2008.

    Args:
        tree: a tree of real arrays.
        scale: the sum of the result, more than 0; may be traced.

    Returns:
        A tree of the same structure, shapes and dtypes.

    Raises:
        TypeError: a leaf is complex.
        ValueError: `scale` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.projection_simplex(jnp.array([0.5, 1.0, -1.0]))
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """
    check_range("projection_simplex", "scale", scale, LEAST_POSITIVE)
    shift = _simplex_shift(_as_vector("projection_simplex", tree), scale)
    return _each(tree, lambda x: jnp.maximum(x - shift.astype(x.dtype), 0))


@checked
def projection_l1_ball(tree: Arrays, scale: Scalar = 1.0) -> PyTree:
    """Project onto an l1 ball: all leaves as one vector, whose sum of `|x|` is at most `scale`.

    `sign(x) max(|x| - τ, 0)`, which makes small numbers 0.

    Args:
        tree: a tree of real arrays.
        scale: the radius of the ball, more than 0; may be traced.

    Returns:
        A tree of the same structure, shapes and dtypes.

    Raises:
        TypeError: a leaf is complex.
        ValueError: `scale` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.projection_l1_ball(jnp.array([0.5, 1.0, -2.0]))
        Array([ 0.,  0., -1.], dtype=float32)
    """
    check_range("projection_l1_ball", "scale", scale, LEAST_POSITIVE)
    sizes = jnp.abs(_as_vector("projection_l1_ball", tree))
    is_inside = jnp.sum(sizes) <= hyperparameter(scale, sizes.dtype)
    shift = jnp.where(is_inside, 0, _simplex_shift(sizes, scale))
    return _each(tree, lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - shift.astype(x.dtype), 0))


@checked
def projection_l2_ball(tree: Arrays, scale: Scalar = 1.0) -> PyTree:
    """Project onto an l2 ball: all leaves as one vector, whose norm is at most `scale`.

    `x min(1, scale / ‖x‖)`.

    Args:
        tree: a tree of arrays.
        scale: the radius of the ball, more than 0; may be traced.

    Returns:
        A tree of the same structure, shapes and dtypes.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.projection_l2_ball({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
        {'a': Array([0.6], dtype=float32), 'b': Array([0.8], dtype=float32)}
    """
    check_range("projection_l2_ball", "scale", scale, LEAST_POSITIVE)
    norm = global_norm(tree)
    return scaled(tree, moments.at_most(norm, hyperparameter(scale, norm.dtype)))


@checked
def projection_linf_ball(tree: Arrays, scale: Scalar = 1.0) -> PyTree:
    """Project onto an l-infinity ball: `min(max(x, -scale), scale)`.

    Args:
        tree: a tree of real arrays.
        scale: the radius of the ball, more than 0; may be traced.

    Returns:
        A tree of the same structure, shapes and dtypes.

    Raises:
        TypeError: a leaf is complex.
        ValueError: `scale` is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.projection_linf_ball(jnp.array([0.5, -2.0]))
        Array([ 0.5, -1. ], dtype=float32)
    """
    check_range("projection_linf_ball", "scale", scale, LEAST_POSITIVE)
    return projection_box(tree, -scale, scale)


def _as_vector(function: str, tree: PyTree) -> jax.Array:
    """All leaves as one vector, float32 or wider."""
    dtype = precision.widest_real_dtype(tree)
    for leaf in jax.tree.leaves(tree):
        refuse_complex(function, "tree", leaf)
    leaves = [jnp.asarray(leaf).astype(dtype).reshape(-1) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate([jnp.zeros((0,), dtype), *leaves])


def _each(tree: PyTree, function: Callable[[jax.Array], jax.Array]) -> PyTree:
    """A function of each leaf in float32 or wider, in the dtype of the leaf."""
    return jax.tree.map(lambda x: function(widen(x)).astype(jnp.result_type(x)), tree)


def _simplex_shift(x: jax.Array, scale: Scalar) -> jax.Array:
    """What to subtract from a vector so that what is positive then has the sum `scale`."""
    if x.size == 0:
        return jnp.zeros((), x.dtype)
    largest = jnp.sort(x, descending=True)
    excess = jnp.cumsum(largest) - hyperparameter(scale, x.dtype)
    number = jnp.arange(1, x.size + 1, dtype=x.dtype)
    last = jnp.sum(largest * number > excess) - 1
    return excess[last] / number[last]
