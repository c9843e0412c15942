"""What the body of a loop computes of constants alone, computed once before the loop."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jaxnn._core.types import PyTree


def hoisted(
    step: Callable[..., PyTree], constants: PyTree, *examples: PyTree
) -> Callable[..., PyTree]:
    """`step(constants, *args)` as a function of `args` alone.

    XLA copies a layer's weights out of a stack's, and casts them, in each turn of a loop anew. What
    is larger than that which it is made of, as dequantised weights, stays in the loop.

    Args:
        step: a pure function.
        constants: what is the same in every turn.
        *examples: arguments, or their shapes and dtypes.
    """
    from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun  # brings all of Pallas

    def variables(atoms: Iterable[Any]) -> list[Any]:
        return [atom for atom in atoms if not isinstance(atom, Literal)]

    closed, shape = jax.make_jaxpr(step, return_shape=True)(constants, *examples)
    leaves, jaxpr = jax.tree.leaves(constants), closed.jaxpr
    given = [*jaxpr.constvars, *jaxpr.invars[: len(leaves)]]
    known, before, inside = set(given), [], []
    for equation in jaxpr.eqns:
        operands = variables(equation.invars)
        is_constant = bool(operands) and known.issuperset(operands) and not equation.effects
        if is_constant and _bytes(equation.outvars) <= _bytes(operands):
            before.append(equation)
            known.update(equation.outvars)
        else:
            inside.append(equation)
    used = {v for equation in inside for v in variables(equation.invars)}
    used.update(variables(jaxpr.outvars))
    made = [v for equation in before for v in equation.outvars if v in used]

    def function(equations: list[Any], invars: list[Any], outvars: list[Any]) -> Callable[..., Any]:
        part = jaxpr.replace(constvars=[], invars=invars, outvars=outvars, eqns=equations)
        return jaxpr_as_fun(ClosedJaxpr(part, []))  # type: ignore[no-any-return]

    values = [*closed.consts, *leaves]
    values += function(before, given, made)(*values)
    turn = function(inside, [*given, *made, *jaxpr.invars[len(leaves) :]], jaxpr.outvars)

    def call(*args: PyTree) -> PyTree:
        return jax.tree.unflatten(jax.tree.structure(shape), turn(*values, *jax.tree.leaves(args)))

    return call


def _bytes(variables: Iterable[Any]) -> int:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables)
