"""Recurrences that are linear in what they carry, and so need no loop over time."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import accumulator_dtype, check_shape, floating, is_symbolic, promoted
from jaxnn._core.meshes import automatic, placed_alike, placed_like


@checked
def linear_recurrence(
    a: ArrayLike,
    b: ArrayLike,
    h: ArrayLike | None = None,
    *,
    time_axis: int = 1,
    reverse: bool = False,
) -> jax.Array:
    """A diagonal linear recurrence: `h_t = a_t * h_(t-1) + b_t` for all t.

    The part of state-space models and gated linear networks (S4D, S5, LRU, Mamba, RG-LRU) that goes
    over time. On an accelerator it takes a number of parallel steps that grows with the logarithm
    of the length, on CPU a loop, which is faster there. Its gradient is the same recurrence
    backwards: nothing but `a` and all h is kept for it. Where `a_t` is 0, a sequence begins anew.

    Papers: Martin and Cundy, Parallelizing Linear Recurrent Neural Nets Over Sequence Length,
    https://arxiv.org/abs/1709.04057; Blelloch, Prefix Sums and Their Applications,
    https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf

    Args:
        a: the factors, real or complex, of a shape that broadcasts to that of `b`: `(features,)` if
            they are the same at all times.
        b: the inputs, real or complex, shape `(batch, time, ...)`.
        h: what is carried before the first step, the shape of `b` without time; None for zeros.
        time_axis: the axis of time.
        reverse: whether to run backwards in time: `h_t = a_t * h_(t+1) + b_t`.

    Returns:
        All h_t, in the shape of `b` and the dtype of `a * b`. Numbers of less than 32 bits are
        carried in float32.

    Raises:
        ValueError: the shapes do not fit; `time_axis` is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> a = jnp.array([0.5, 0.5, 0.0, 0.5]).reshape(1, 4, 1)  # begins anew at the third
        >>> nn.functional.linear_recurrence(a, jnp.ones((1, 4, 1))).ravel()
        Array([1. , 1.5, 1. , 1.5], dtype=float32)
    """
    a, b = floating(a), floating(b)
    if not 0 <= time_axis < b.ndim:
        raise ValueError(
            f"linear_recurrence: time_axis is {time_axis}, expected an axis of b, from 0 to "
            f"{b.ndim - 1}"
        )
    sizes = zip(a.shape[::-1], b.shape[::-1], strict=False)
    if a.ndim > b.ndim or any(given not in (1, size) for given, size in sizes):
        raise ValueError(
            f"linear_recurrence: a has shape {a.shape}, expected one that broadcasts to that of b, "
            f"{b.shape}"
        )
    if h is not None:
        check_shape("linear_recurrence", "h", h, b.shape[:time_axis] + b.shape[time_axis + 1 :])
    dtype = promoted(a.dtype, b.dtype)
    wide = accumulator_dtype(dtype)
    a = a.reshape((1,) * (b.ndim - a.ndim) + a.shape)

    def run(b: jax.Array, a: jax.Array, h: jax.Array | None) -> jax.Array:
        a, b = (jnp.moveaxis(array.astype(wide), time_axis, 0) for array in (a, b))
        a = jnp.broadcast_to(a, (b.shape[0], *a.shape[1:]))
        if h is not None and b.shape[0] != 0:
            first = -1 if reverse else 0
            b = b.at[first].add(a[first] * jnp.asarray(h).astype(wide))
        return jnp.moveaxis(_solved(a, b, reverse), 0, time_axis).astype(dtype)

    return automatic(run, b, a, h, leading=b.ndim)  # type: ignore[no-any-return]


def _solved(a: jax.Array, b: jax.Array, reverse: bool) -> jax.Array:
    """The solution of `h - a * (h one step before) = b`, time being the first axis.

    The transposed system is a recurrence too, in the other direction, with the `a` of the step
    after.
    """
    if b.shape[0] == 0:
        return b
    a, b = placed_alike(a, b)

    def residue(h: jax.Array) -> jax.Array:
        return h - a * _moved(h, later=not reverse)

    def solve(_: object, b: jax.Array) -> jax.Array:
        return _run(a, b, reverse)

    def solve_transposed(_: object, b: jax.Array) -> jax.Array:
        return _run(_moved(a, later=reverse), b, not reverse)

    return lax.custom_linear_solve(residue, b, solve, solve_transposed)  # type: ignore[no-any-return]


def _moved(h: jax.Array, later: bool) -> jax.Array:
    """Each step's numbers at the step after, or before; 0 where there are none."""
    none = jnp.zeros_like(h[:1])
    return jnp.concatenate([none, h[:-1]] if later else [h[1:], none])


def _run(a: jax.Array, b: jax.Array, reverse: bool) -> jax.Array:
    if is_symbolic(b.shape[0]):
        return _in_turn(a, b, reverse)
    return lax.platform_dependent(  # type: ignore[no-any-return]
        a, b, cpu=lambda a, b: _in_turn(a, b, reverse), default=lambda a, b: _at_once(a, b, reverse)
    )


def _in_turn(a: jax.Array, b: jax.Array, reverse: bool) -> jax.Array:
    def step(h: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h = inputs[0] * h + inputs[1]
        return h, h

    start = placed_like(jnp.zeros_like(b[0]), b[0])
    return lax.scan(step, start, (a, b), reverse=reverse)[1]


def _at_once(a: jax.Array, b: jax.Array, reverse: bool) -> jax.Array:
    def joined(
        before: tuple[jax.Array, jax.Array], after: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return after[0] * before[0], after[0] * before[1] + after[1]

    return lax.associative_scan(joined, (a, b), reverse=reverse)[1]  # type: ignore[no-any-return]
