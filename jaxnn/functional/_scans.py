"""Sequences through a step of a known form.

One is affine in its parameters before its nonlinearities. The reverse pass of a plain `lax.scan`
adds to the gradient of every kernel at every step. Where a step is in two parts, it need only
propagate the gradients of the gates' inputs: those of the kernels and of the input are then one
product each over all steps.

The other is linear in what it carries, and is one linear recurrence.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.types import PyTree
from jaxnn.functional._linear_recurrence import linear_recurrence

Affine = Callable[[PyTree, PyTree, PyTree], PyTree]  # affine(params, carry, x_t) -> z
Nonlinear = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]  # nonlinear(carry, z) -> (carry, y_t)


def step_in_parts(affine: Affine, nonlinear: Nonlinear) -> Callable[..., tuple[PyTree, PyTree]]:
    """The step `nonlinear(carry, affine(params, carry, x_t))`, which `scan_in_parts` runs.

    All parameters are used in `affine`, which takes any leading axes.
    """

    def step(
        params: PyTree,
        carry: PyTree,
        x_t: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        return nonlinear(carry, affine(params, carry, x_t))

    step.parts = affine, nonlinear  # type: ignore[attr-defined]
    return step


def parts_of(step: Any) -> tuple[Affine, Nonlinear] | None:
    """What `step_in_parts` made the step of, None if it did not."""
    return getattr(step, "parts", None)


Coefficients = Callable[[PyTree, PyTree], tuple[jax.Array, jax.Array]]  # (params, x) -> (a, b)
Output = Callable[[PyTree, jax.Array, PyTree], jax.Array]  # output(params, h, x) -> y


def linear_step(coefficients: Coefficients, output: Output) -> Callable[..., tuple[Any, Any]]:
    """The step `h' = a * h + b` with the output `output(params, h', x_t)`.

    `scan_linear` runs it over a sequence. Both functions take any leading axes; `a` may have none.
    """

    def step(
        params: PyTree,
        carry: PyTree,
        x_t: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        a, b = coefficients(params, x_t)
        a = jnp.expand_dims(a, range(b.ndim - a.ndim))
        carry = (a * carry + b).astype(carry.dtype)
        return carry, output(params, carry, x_t)

    step.linear = coefficients, output  # type: ignore[attr-defined]
    return step


def linear_of(step: Any) -> tuple[Coefficients, Output] | None:
    """What `linear_step` made the step of, None if it did not."""
    return getattr(step, "linear", None)


def scan_linear(
    coefficients: Coefficients,
    output: Output,
    reverse: bool,
    params: PyTree,
    carry: jax.Array,
    xs: PyTree,
    valid: jax.Array | None,
) -> tuple[jax.Array, PyTree]:
    """The final carry and all outputs, time being the first axis of `xs` and of `valid`."""
    a, b = coefficients(params, xs)
    if b.shape[0] == 0:
        return carry, output(params, b.astype(carry.dtype), xs)
    if valid is not None:
        a = jnp.broadcast_to(jnp.expand_dims(a, range(b.ndim - a.ndim)), b.shape)
        a, b = where(valid, a, jnp.ones_like(a)), where(valid, b, jnp.zeros_like(b))
    hs = linear_recurrence(a, b, carry, time_axis=0, reverse=reverse).astype(carry.dtype)
    ys = output(params, hs, xs)
    return hs[0 if reverse else -1], ys if valid is None else where(valid, ys, zeros_like(ys))


def padded(
    valid: jax.Array | None, result: tuple[PyTree, PyTree], carry: PyTree
) -> tuple[PyTree, PyTree]:
    """The `(carry, y_t)` of a step where it is valid; the carry as it was and zeros elsewhere."""
    if valid is None:
        return result
    new_carry, y_t = result
    return where(valid, new_carry, carry), where(valid, y_t, zeros_like(y_t))


def where(valid: jax.Array, chosen: PyTree, other: PyTree) -> PyTree:
    """Leaf by leaf, for each sequence of the batch."""

    def one(chosen: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(jnp.expand_dims(valid, range(valid.ndim, chosen.ndim)), chosen, other)

    return jax.tree.map(one, chosen, other)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros of the shapes and dtypes of `tree`."""
    return jax.tree.map(jnp.zeros_like, tree)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def scan_in_parts(
    affine: Affine,
    nonlinear: Nonlinear,
    reverse: bool,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    valid: jax.Array | None,
) -> tuple[PyTree, PyTree]:
    """The final carry and all outputs, time being the first axis of `xs` and of `valid`."""

    def step(carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        x_t, valid_t = inputs
        return padded(valid_t, nonlinear(carry, affine(params, carry, x_t)), carry)

    return lax.scan(step, carry, (xs, valid), reverse=reverse)


@scan_in_parts.defjvp
def _(
    affine: Affine,
    nonlinear: Nonlinear,
    reverse: bool,
    primals: tuple[PyTree, ...],
    tangents: tuple[PyTree, ...],
) -> tuple[PyTree, PyTree]:
    params, carry, xs, valid = primals
    dparams, dcarry, dxs, _ = tangents

    def step(carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        x_t, valid_t = inputs
        z = affine(params, carry, x_t)
        new_carry, y_t = padded(valid_t, nonlinear(carry, z), carry)
        return new_carry, (y_t, carry, z)

    last, (ys, carries, zs) = lax.scan(step, carry, (xs, valid), reverse=reverse)

    def all_steps(params: PyTree, xs: PyTree) -> PyTree:
        return affine(params, carries, xs)

    _, dzs = jax.jvp(all_steps, (params, xs), (dparams, dxs))

    # The reverse pass computes the gates again from z: that costs less than to keep them all.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def tangent_step(dcarry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        carry, x_t, valid_t, z, dz = inputs

        def from_carry(carry: PyTree) -> PyTree:
            return affine(params, carry, x_t)

        def to_result(carry: PyTree, z: PyTree) -> PyTree:
            return padded(valid_t, nonlinear(carry, z), carry)

        _, through_carry = jax.jvp(from_carry, (carry,), (dcarry,))
        dz = jax.tree.map(jnp.add, dz, through_carry)
        _, (dcarry, dy_t) = jax.jvp(to_result, (carry, z), (dcarry, dz))
        return dcarry, dy_t

    steps = carries, xs, valid, zs, dzs
    dlast, dys = lax.scan(tangent_step, dcarry, steps, reverse=reverse)
    return (last, ys), (dlast, dys)
