"""Recurrent cells: one step each, for `nn.recurrent`, `nn.stacked_cell` and `jax.lax.scan`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from jaxnn import functional, initializers
from jaxnn._core.arrays import (
    accumulator_dtype,
    check_count,
    check_key,
    compute_dtype,
    hyperparameter,
    is_inexact,
)
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Cell, param_dtype, shape_of
from jaxnn._core.types import PyTree, SpatialShape
from jaxnn._layers.params import draw, kernel_and_bias_of
from jaxnn.functional import _recurrent as functions
from jaxnn.functional._scans import step_in_parts
from jaxnn.functional._spatial import per_axis

KernelShapes = tuple[tuple[int, ...], tuple[int, ...]]  # of one gate, for x and for h


@constructor
def rnn_cell(
    features: int,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    recurrent_kernel_init: Initializer = initializers.orthogonal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Cell:
    """A simple recurrent cell: `h' = activation(x @ W + h @ U + b)`; its output is `h'`.

    torch's two biases are one here, `b = bias_ih + bias_hh`; its weights are the transposed
    kernels, `W = weight_ih.T` and `U = weight_hh.T`.

    Paper: Elman, Finding Structure in Time, https://doi.org/10.1207/s15516709cog1402_1

    Args:
        features: the hidden size.
        activation: a function of arrays, elementwise.
        use_bias: whether to add a bias.
        kernel_init: initializer of W, shape `(in, features)`.
        recurrent_kernel_init: initializer of U, shape `(features, features)`.
        bias_init: initializer of b, shape `(features,)`.

    Returns:
        A `Cell` from `(..., in)` to `(..., features)` with params
        `{"input": {"kernel", "bias"}, "recurrent": {"kernel"}}`. The carry is the hidden state,
        initially zeros.

    Raises:
        TypeError: `features` is not an integer.
        ValueError: `features` is less than 1; `x` has no feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell = nn.rnn_cell(4, activation=nn.relu)
        >>> params = cell.init(jax.random.key(0), jnp.zeros(3))
        >>> carry = cell.initial_carry(params, (8,), jnp.float32)
        >>> carry, y = cell.step(params, carry, jnp.ones((8, 3)))
        >>> y.shape
        (8, 4)
    """
    check_count("rnn_cell", "features", features)

    def init(key: jax.Array, x_t: PyTree) -> PyTree:
        shapes = _dense_shapes("rnn_cell", x_t, features)
        inits = kernel_init, recurrent_kernel_init, bias_init if use_bias else None
        return _init("rnn_cell", key, 1, shapes, param_dtype(x_t), *inits)

    def initial_carry(params: PyTree, batch_shape: Sequence[int], dtype: DTypeLike) -> PyTree:
        return jnp.zeros((*batch_shape, features), _floating(dtype))

    def affine(params: PyTree, carry: PyTree, x_t: PyTree) -> PyTree:
        return functions.affine("rnn_step", 1, x_t, carry, *_kernels("rnn_cell", params, use_bias))

    def nonlinear(carry: PyTree, z: PyTree) -> tuple[PyTree, PyTree]:
        h = functions.rnn_nonlinear(carry, z, activation)
        return h, h.astype(z.dtype)

    return Cell(init, initial_carry, step_in_parts(affine, nonlinear))


@constructor
def lstm_cell(
    features: int,
    *,
    forget_bias: float = 1.0,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    recurrent_kernel_init: Initializer = initializers.orthogonal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Cell:
    """A long short-term memory cell; its output is `h'`.

    With `i, f, g, o = split(x @ W + h @ U + b, 4)`:

        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    The order of the gates is torch's. Its two biases are one here, `b = bias_ih + bias_hh`; its
    weights are the transposed kernels, `W = weight_ih.T` and `U = weight_hh.T`. The carry is the
    tuple `(h, c)`, as in torch and Keras (flax has `(c, h)`).

    Papers: Hochreiter and Schmidhuber, Long Short-Term Memory,
    https://doi.org/10.1162/neco.1997.9.8.1735; Gers et al., Learning to Forget,
    https://doi.org/10.1162/089976600300015015; Jozefowicz et al., An Empirical Exploration of
    Recurrent Network Architectures (the forget bias), https://proceedings.mlr.press/v37/jozefowicz15

    Args:
        features: the size of the hidden state and of the memory.
        forget_bias: added to the forget gate's bias when it is made, so that the network begins by
            remembering; nothing is added in `step`. 0 begins as torch does.
        use_bias: whether to add a bias.
        kernel_init: initializer of W, shape `(in, 4 * features)`: each gate separately.
        recurrent_kernel_init: initializer of U, shape `(features, 4 * features)`: each gate
            separately.
        bias_init: initializer of b, shape `(4 * features,)`: each gate separately.

    Returns:
        A `Cell` from `(..., in)` to `(..., features)` with params
        `{"input": {"kernel", "bias"}, "recurrent": {"kernel"}}`. The carry is `(h, c)`, initially
        zeros; `c` is in float32 or wider, since a sum of many steps does not fit in fewer bits.

    Raises:
        TypeError: `features` is not an integer.
        ValueError: `features` is less than 1; `x` has no feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell = nn.lstm_cell(4)
        >>> params = cell.init(jax.random.key(0), jnp.zeros(3))
        >>> params["input"]["bias"].reshape(4, 4)[:, 0]  # i, f, g, o
        Array([0., 1., 0., 0.], dtype=float32)
        >>> carry = cell.initial_carry(params, (8,), jnp.float32)
        >>> (h, c), y = cell.step(params, carry, jnp.ones((8, 3)))
        >>> y.shape, bool((y == h).all())
        ((8, 4), True)
    """
    check_count("lstm_cell", "features", features)

    def shapes(x_t: PyTree) -> KernelShapes:
        return _dense_shapes("lstm_cell", x_t, features)

    inits = kernel_init, recurrent_kernel_init, bias_init if use_bias else None
    affine = partial(functions.affine, "lstm_step", 4)
    return _lstm("lstm", shapes, (features,), affine, forget_bias, *inits)


@constructor
def gru_cell(
    features: int,
    *,
    reset_after: bool = True,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    recurrent_kernel_init: Initializer = initializers.orthogonal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Cell:
    """A gated recurrent unit; its output is `h'`.

        r = sigmoid(x @ W_r + h @ U_r + b_r)
        z = sigmoid(x @ W_z + h @ U_z + b_z)
        n = tanh(x @ W_n + b_n + r * (h @ U_n + recurrent_bias))    reset_after=True
        n = tanh(x @ W_n + b_n + (r * h) @ U_n)                     reset_after=False
        h' = (1 - z) * n + z * h

    Resetting after the product is what torch, cuDNN and flax do; resetting before it is in the
    paper, as in Keras with `reset_after=False` and in haiku (whose z is this `1 - z`).

    W and U hold the three parts in torch's order, r, z and n: `W = weight_ih.T` and
    `U = weight_hh.T`. Its two biases are one for r and for z, `bias_ih + bias_hh`; for n the one of
    the input is `b_n`, the other `recurrent_bias`.

    Paper: Cho et al., Learning Phrase Representations, https://arxiv.org/abs/1406.1078

    Args:
        features: the hidden size.
        reset_after: whether r multiplies the product with U_n, or h before it.
        use_bias: whether to add biases.
        kernel_init: initializer of W, shape `(in, 3 * features)`: each part separately.
        recurrent_kernel_init: initializer of U, shape `(features, 3 * features)`: each part
            separately.
        bias_init: initializer of b, shape `(3 * features,)`, each part separately, and
            `recurrent_bias`, shape `(features,)`.

    Returns:
        A `Cell` from `(..., in)` to `(..., features)` with params
        `{"input": {"kernel", "bias"}, "recurrent": {"kernel", "bias"}}`, the last of which is there
        with `reset_after=True` only. The carry is the hidden state, initially zeros, in float32 or
        wider, since it averages over many steps.

    Raises:
        TypeError: `features` is not an integer.
        ValueError: `features` is less than 1; `x` has no feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell = nn.gru_cell(4)
        >>> params = cell.init(jax.random.key(0), jnp.zeros(3))
        >>> jax.tree.map(jnp.shape, params["recurrent"])
        {'bias': (4,), 'kernel': (4, 12)}
        >>> carry = cell.initial_carry(params, (8,), jnp.float32)
        >>> carry, y = cell.step(params, carry, jnp.ones((8, 3)))
        >>> y.shape
        (8, 4)
    """
    check_count("gru_cell", "features", features)

    def init(key: jax.Array, x_t: PyTree) -> PyTree:
        shapes, dtype = _dense_shapes("gru_cell", x_t, features), param_dtype(x_t)
        inits = kernel_init, recurrent_kernel_init, bias_init if use_bias else None
        params = _init("gru_cell", key, 3, shapes, dtype, *inits)
        if use_bias and reset_after:
            bias_key = jax.random.fold_in(key, 3)
            params["recurrent"]["bias"] = draw(bias_init, bias_key, (features,), dtype)
        return params

    def initial_carry(params: PyTree, batch_shape: Sequence[int], dtype: DTypeLike) -> PyTree:
        return jnp.zeros((*batch_shape, features), accumulator_dtype(dtype))

    def affine(params: PyTree, carry: PyTree, x_t: PyTree) -> PyTree:
        _, recurrent_bias = kernel_and_bias_of("gru_cell", params["recurrent"], use_bias)
        kernels = _kernels("gru_cell", params, use_bias)
        return functions.gru_affine(x_t, carry, *kernels, recurrent_bias)

    def nonlinear(carry: PyTree, z: PyTree) -> tuple[PyTree, PyTree]:
        h = functions.gru_nonlinear(carry, z)
        return h, h.astype(z.x_candidate.dtype)

    def step_resetting_before(
        params: PyTree,
        carry: PyTree,
        x_t: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        kernels = _kernels("gru_cell", params, use_bias)
        h = functional.gru_step(x_t, carry, *kernels, reset_after=False)
        return h, h.astype(compute_dtype(jnp.asarray(x_t), params["input"]["kernel"]))

    step = step_in_parts(affine, nonlinear) if reset_after else step_resetting_before
    return Cell(init, initial_carry, step)


@constructor
def conv_lstm_cell(
    features: int,
    kernel_size: SpatialShape,
    spatial_shape: SpatialShape,
    *,
    forget_bias: float = 1.0,
    use_bias: bool = True,
    kernel_init: Initializer = initializers.lecun_normal(),  # noqa: B008
    recurrent_kernel_init: Initializer = initializers.orthogonal(),  # noqa: B008
    bias_init: Initializer = initializers.zeros,
) -> Cell:
    """A long short-term memory over images: `nn.lstm_cell` by convolutions instead of products.

    `i, f, g, o = split(conv(x, W) + conv(h, U) + b, 4)` with padding "SAME"; all else, the forget
    bias and the carry too, is as in `nn.lstm_cell`. There are no peephole connections, which the
    paper has. flax orders the gates i, g, f, o and adds 1 to f in every step.

    Paper: Shi et al., Convolutional LSTM Network, https://arxiv.org/abs/1506.04214

    Args:
        features: the number of output channels.
        kernel_size: the kernel size, one number for each spatial axis.
        spatial_shape: the size of the images and of the carry, 1 to 3 numbers.
        forget_bias: added to the forget gate's bias at initialisation; nothing is added in `step`.
        use_bias: whether to add a bias.
        kernel_init: initializer of W, shape `(*kernel_size, in, 4 * features)`: each gate
            separately.
        recurrent_kernel_init: initializer of U, shape `(*kernel_size, features, 4 * features)`,
            likewise.
        bias_init: initializer of b, shape `(4 * features,)`, likewise.

    Returns:
        A `Cell` from `(..., *spatial_shape, in)` to `(..., *spatial_shape, features)` with params
        `{"input": {"kernel", "bias"}, "recurrent": {"kernel"}}` and the carry `(h, c)`, initially
        zeros, `c` in float32 or wider.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is less than 1; `kernel_size` or `x` has another number of spatial axes
            than `spatial_shape`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.recurrent(nn.conv_lstm_cell(4, (3, 3), (8, 8)))
        >>> video = jnp.ones((2, 5, 8, 8, 1))
        >>> params, state = layer.init(jax.random.key(0), video)
        >>> layer.apply(params, state, video)[0].shape
        (2, 5, 8, 8, 4)
    """
    check_count("conv_lstm_cell", "features", features)
    if not spatial_shape:
        raise ValueError("conv_lstm_cell: spatial_shape is empty, expected at least one number")
    spatial = per_axis("conv_lstm_cell", "spatial_shape", spatial_shape, len(spatial_shape))
    window = per_axis("conv_lstm_cell", "kernel_size", kernel_size, len(spatial))

    def shapes(x_t: PyTree) -> KernelShapes:
        shape = shape_of("conv_lstm_cell", x_t)
        if len(shape) <= len(spatial):
            raise ValueError(
                f"conv_lstm_cell: x has shape {shape}, expected {len(spatial)} spatial axes before "
                "the channels"
            )
        return (*window, shape[-1], features), (*window, features, features)

    inits = kernel_init, recurrent_kernel_init, bias_init if use_bias else None
    carry_shape = *spatial, features
    return _lstm("conv_lstm", shapes, carry_shape, functions.conv_lstm_affine, forget_bias, *inits)


# What the cells share


def _dense_shapes(cell: str, x_t: PyTree, features: int) -> KernelShapes:
    """The shapes of a gate's two kernels."""
    shape = shape_of(cell, x_t)
    if not shape:
        raise ValueError(f"{cell}: x is a scalar, expected shape (..., in)")
    return (shape[-1], features), (features, features)


def _init(
    cell: str,
    key: jax.Array,
    gates: int,
    shapes: KernelShapes,
    dtype: jnp.dtype,
    kernel_init: Initializer,
    recurrent_kernel_init: Initializer,
    bias_init: Initializer | None,
) -> dict[str, dict[str, jax.Array]]:
    """Params whose last axis holds the gates, each drawn by itself with a gate's fans."""
    check_key(cell, key)

    def drawn(init: Initializer, part: int, shape: tuple[int, ...]) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, part), gates)
        return jnp.concatenate([draw(init, keys[i], shape, dtype) for i in range(gates)], axis=-1)

    params = {
        "input": {"kernel": drawn(kernel_init, 0, shapes[0])},
        "recurrent": {"kernel": drawn(recurrent_kernel_init, 1, shapes[1])},
    }
    if bias_init is not None:
        params["input"]["bias"] = drawn(bias_init, 2, shapes[0][-1:])
    return params


def _lstm(
    name: str,
    shapes: Callable[[PyTree], KernelShapes],
    carry_shape: tuple[int, ...],
    affine: Callable[..., jax.Array],
    forget_bias: float,
    *inits: Any,
) -> Cell:
    """A long short-term memory whose gates are of `affine(x, h, *kernels)`."""

    def init(key: jax.Array, x_t: PyTree) -> PyTree:
        params = _init(f"{name}_cell", key, 4, shapes(x_t), param_dtype(x_t), *inits)
        bias = params["input"].get("bias")
        if bias is not None:
            forget_gate = slice(carry_shape[-1], 2 * carry_shape[-1])
            larger = bias.at[forget_gate].add(hyperparameter(forget_bias, bias.dtype))
            params["input"]["bias"] = larger
        return params

    def initial_carry(params: PyTree, batch_shape: Sequence[int], dtype: DTypeLike) -> PyTree:
        shape = *batch_shape, *carry_shape  # c adds up over the steps
        return jnp.zeros(shape, _floating(dtype)), jnp.zeros(shape, accumulator_dtype(dtype))

    def products(params: PyTree, carry: PyTree, x_t: PyTree) -> PyTree:
        return affine(x_t, carry[0], *_kernels(f"{name}_cell", params, inits[2] is not None))

    def nonlinear(carry: PyTree, z: PyTree) -> tuple[PyTree, PyTree]:
        h, c = functions.lstm_nonlinear(f"{name}_step", carry[0], carry[1], z)
        return (h, c), h.astype(z.dtype)

    return Cell(init, initial_carry, step_in_parts(products, nonlinear))


def _floating(dtype: DTypeLike) -> jnp.dtype:
    return jnp.dtype(dtype) if is_inexact(dtype) else jnp.result_type(float)


def _kernels(
    cell: str, params: PyTree, use_bias: bool
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    kernel, bias = kernel_and_bias_of(cell, params["input"], use_bias)
    return kernel, params["recurrent"]["kernel"], bias
