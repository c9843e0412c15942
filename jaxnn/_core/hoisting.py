"""What the body of a loop computes of constants alone, computed once before the loop."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from jaxnn._core.types import PyTree


class Split(NamedTuple):
    """A function in two: `step(constants, *args)` is `inside(before(constants), *args)`."""

    before: Callable[[PyTree], list[jax.Array]]
    inside: Callable[..., PyTree]


def split(step: Callable[..., PyTree], constants: PyTree, *examples: PyTree) -> Split:
    """What `step(constants, *args)` computes of `constants` alone, apart from the rest.

    XLA copies a layer's weights out of a stack's, and casts them, in each turn of a loop anew. What
    is larger than that which it is made of, as dequantised weights, stays inside.

    Args:
        step: a pure function.
        constants: what is the same in every turn of a loop.
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
    kept = [v for v in [*given, *(v for e in before for v in e.outvars)] if v in used]

    def function(equations: list[Any], invars: list[Any], outvars: list[Any]) -> Callable[..., Any]:
        part = jaxpr.replace(constvars=[], invars=invars, outvars=outvars, eqns=equations)
        return jaxpr_as_fun(ClosedJaxpr(part, []))  # type: ignore[no-any-return]

    make = function(before, given, kept)
    run = function(inside, [*kept, *jaxpr.invars[len(leaves) :]], jaxpr.outvars)

    def call(values: list[jax.Array], *args: PyTree) -> PyTree:
        return jax.tree.unflatten(jax.tree.structure(shape), run(*values, *jax.tree.leaves(args)))

    return Split(lambda constants: make(*closed.consts, *jax.tree.leaves(constants)), call)


def _bytes(variables: Iterable[Any]) -> int:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables)
