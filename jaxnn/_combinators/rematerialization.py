"""What a stack stores for the backward pass, and what it recomputes."""

import math
from typing import Any

# To store a number and read it again costs about as much as 100 multiplications.
LONG_CONTRACTION = 128

# fmt: off
QUICK = frozenset([
    "abs", "add", "add_any", "cbrt", "ceil", "clamp", "complex", "conj", "cos", "cosh", "div",
    "erf", "erfc", "exp", "exp2", "expm1", "floor", "imag", "integer_pow", "log", "log1p",
    "log2", "logistic", "max", "min", "mul", "neg", "one_minus_square", "polynomial", "pow",
    "real", "rem", "round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient",
    "sub", "tan", "tanh",
    "and", "eq", "ge", "gt", "is_finite", "le", "lt", "ne", "not", "or", "select_n",
    "shift_left", "shift_right_logical", "xor",
    "bitcast_convert_type", "convert_element_type", "reduce_precision", "sharding_constraint",
    "broadcast_in_dim", "concatenate", "copy", "iota", "pad", "reshape", "rev", "slice",
    "split", "squeeze", "transpose",
    "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_sum",
])
"""The primitives that are recomputed."""
# fmt: on


def is_kept(primitive: Any, *operands: Any, **params: Any) -> bool:
    """The policy for `jax.checkpoint`: store long matrix products, and all that is not quick.

    The contraction of attention's logits is only as long as the head dimension: the largest arrays
    of a transformer are recomputed (Dao et al., FlashAttention, https://arxiv.org/abs/2205.14135).
    """
    if str(primitive) == "dot_general":
        (axes, _), _ = params["dimension_numbers"]
        length: int = math.prod(operands[0].shape[axis] for axis in axes)
        return length > LONG_CONTRACTION
    return str(primitive) not in QUICK


def has_checkpoint(jaxpr: Any) -> bool:
    """Whether a program contains a `jax.checkpoint` of its own."""
    return any(
        "prevent_cse" in equation.params
        or any(map(has_checkpoint, _inside(equation.params.values())))
        for equation in jaxpr.eqns
    )


def _inside(values: Any) -> Any:
    """The programs among the parameters of an equation."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _inside(value)
        elif hasattr(value, "eqns"):
            yield value
