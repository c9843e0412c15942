"""Affine maps in Einstein's notation."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from jaxnn import functional, initializers
from jaxnn._core.arrays import check_count
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, param_dtype, pure, shape_of
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw, kernel_and_bias, kernel_and_bias_of
from jaxnn.functional._equations import parse_equation


@constructor
def einsum(
    equation: str,
    sizes: Mapping[str, int] = MappingProxyType({}),
    *,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """An affine map in Einstein's notation: `y = einsum(equation, x, kernel) + bias`.

    Args:
        equation: `"<letters of x>,<letters of kernel>-><letters of y>"` as in `jnp.einsum`, where
            `...` in `x` and `y` stands for any further axes.
        sizes: the size of each letter of the kernel that is no letter of `x`.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel as a matrix `(in, out)`, whose axes are the letters
            that `y` lacks and those that `x` lacks; one for each index of the letters that all
            three have.
        bias_init: initializer of the bias, of the shape of those letters of `y` that the kernel
            has.

    Returns:
        A `Layer` with params `{"kernel", "bias"}` and the output in the dtype of `x`.

    Raises:
        TypeError: a size is not an integer.
        ValueError: `equation` is of another form; a size is less than 1, missing or another than
            that of `x`; or `x` has other axes than the equation.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> heads = nn.einsum("...d,dhk->...hk", {"h": 2, "k": 4})
        >>> x = jnp.ones((3, 5, 8))
        >>> params, state = heads.init(jax.random.key(0), x)
        >>> params["kernel"].shape, params["bias"].shape, heads.apply(params, state, x)[0].shape
        ((8, 2, 4), (2, 4), (3, 5, 2, 4))
    """
    terms = parse_equation(equation)
    given = {letter: check_count("einsum", f"'{letter}'", size) for letter, size in sizes.items()}

    def init(key: jax.Array, x: PyTree) -> PyTree:
        of_x = terms.sizes_in(shape_of("einsum", x))
        size = given | of_x
        if {letter: size[letter] for letter in given} != given or not set(terms.kernel) <= set(
            size
        ):
            raise ValueError(
                f"einsum: sizes is {given} and x gives {of_x}, expected one size for each letter "
                f"of the kernel '{terms.kernel}'"
            )
        shared = [a for a in terms.kernel if a in terms.x and a in terms.y]
        inputs = [a for a in terms.kernel if a not in terms.y]
        outputs = [a for a in terms.kernel if a not in terms.x]
        drawn = [*shared, *inputs, *outputs]

        def one_matrix_for_each(
            key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None
        ) -> jax.Array:
            keys = jax.random.split(key, math.prod(size[a] for a in shared))
            kernels = jax.vmap(lambda key: draw(kernel_init, key, matrix, dtype))(keys)
            kernel = kernels.reshape([size[a] for a in drawn])
            return jnp.transpose(kernel, [drawn.index(a) for a in terms.kernel])

        matrix = tuple(math.prod(size[a] for a in letters) for letters in (inputs, outputs))
        kernel_shape = tuple(size[a] for a in terms.kernel)
        bias_shape = tuple(size[a] for a in terms.features)
        inits = one_matrix_for_each, bias_init if use_bias else None
        return kernel_and_bias("einsum", key, kernel_shape, param_dtype(x), *inits, bias_shape)

    def call(params: PyTree, x: PyTree) -> jax.Array:
        return functional.einsum(equation, x, *kernel_and_bias_of("einsum", params, use_bias))

    return pure(init, call)
