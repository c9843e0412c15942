"""One step of recurrent networks, over any batch shape.

Products are in the dtype of `x`, to which kernels and biases are cast; gates and sums are in
float32 or wider, and what is carried comes back in the dtype in which it came.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import accumulator_dtype, check_shape, compute_dtype, floating, promoted
from jaxnn.functional._convolution import conv
from jaxnn.functional._dense import linear


@checked
def rnn_step(
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None = None,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
) -> jax.Array:
    """A step of a simple recurrent network.

    `h' = activation(x @ input_kernel + h @ recurrent_kernel + bias)`

    Paper: Elman, Finding Structure in Time, https://doi.org/10.1207/s15516709cog1402_1

    Args:
        x: the input of this step, shape `(..., in)`.
        h: the hidden state, shape `(..., features)`.
        input_kernel: shape `(in, features)`.
        recurrent_kernel: shape `(features, features)`.
        bias: shape `(features,)`, or None.
        activation: a function of arrays, elementwise.

    Returns:
        The next hidden state, in the shape and dtype of `h`.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> h = jnp.zeros(1)
        >>> for x in (1.0, 0.0, 0.0):
        ...     h = nn.functional.rnn_step(jnp.array([x]), h, jnp.eye(1), 0.5 * jnp.eye(1),
        ...                                activation=nn.relu)
        >>> h
        Array([0.25], dtype=float32)
    """
    z = affine("rnn_step", 1, x, h, input_kernel, recurrent_kernel, bias)
    return rnn_nonlinear(h, z, activation)


@checked
def lstm_step(
    x: ArrayLike,
    h: ArrayLike,
    c: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """A step of a long short-term memory.

    With `i, f, g, o = split(x @ input_kernel + h @ recurrent_kernel + bias, 4)`, in this order,
    which is torch's (flax's ConvLSTM and TensorFlow have others):

        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    There is one bias; torch has two, whose sum is this one.

    Papers: Hochreiter and Schmidhuber, Long Short-Term Memory,
    https://doi.org/10.1162/neco.1997.9.8.1735; Gers et al., Learning to Forget,
    https://doi.org/10.1162/089976600300015015

    Args:
        x: the input of this step, shape `(..., in)`.
        h: the hidden state, shape `(..., features)`.
        c: the cell's memory, shape `(..., features)`.
        input_kernel: shape `(in, 4 * features)`.
        recurrent_kernel: shape `(features, 4 * features)`.
        bias: shape `(4 * features,)`, or None.

    Returns:
        The next `(h, c)`, each in the shape and dtype in which it came.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> open_gates = jnp.array([20.0, 20.0, 0.0, 20.0])  # i, f, g, o
        >>> h, c = jnp.zeros(1), jnp.zeros(1)
        >>> for x in (1.0, 1.0, 1.0):  # the memory counts
        ...     h, c = nn.functional.lstm_step(jnp.array([x]), h, c,
        ...         20 * jnp.eye(4)[2:3], jnp.zeros((1, 4)), open_gates)
        >>> c.round(2)
        Array([3.], dtype=float32)
    """
    z = affine("lstm_step", 4, x, h, input_kernel, recurrent_kernel, bias)
    return lstm_nonlinear("lstm_step", h, c, z)


@checked
def conv_lstm_step(
    x: ArrayLike,
    h: ArrayLike,
    c: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """A step of a long short-term memory over images, by convolutions instead of products.

    `lstm_step` with `i, f, g, o = split(conv(x, input_kernel) + conv(h, recurrent_kernel) + bias,
    4)` with padding "SAME". There are no peephole connections, which the paper has (as in flax and
    Keras).

    Paper: Shi et al., Convolutional LSTM Network, https://arxiv.org/abs/1506.04214

    Args:
        x: the input of this step, shape `(..., *spatial, in)`, with 1 to 3 spatial axes.
        h: the hidden state, shape `(..., *spatial, features)`.
        c: the memory, shape `(..., *spatial, features)`.
        input_kernel: shape `(*window, in, 4 * features)`.
        recurrent_kernel: shape `(*window, features, 4 * features)`.
        bias: shape `(4 * features,)`, or None.

    Returns:
        The next `(h, c)`, each in the shape and dtype in which it came.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> right = jnp.zeros((3, 1, 4)).at[0, 0, 2].set(20.0)  # the left neighbour, to g
        >>> bias = jnp.array([20.0, -20.0, 0.0, 20.0])  # i, f, g, o
        >>> h, c = jnp.zeros((5, 1)), jnp.zeros((5, 1))
        >>> for pixel in (1.0, 0.0, 0.0):  # the pixel moves
        ...     x = jnp.zeros((5, 1)).at[0].set(pixel)
        ...     h, c = nn.functional.conv_lstm_step(x, h, c, right, right, bias)
        >>> c.ravel().round(2) + 0
        Array([0., 0., 0., 1., 0.], dtype=float32)
    """
    z = conv_lstm_affine(x, h, input_kernel, recurrent_kernel, bias)
    return lstm_nonlinear("conv_lstm_step", h, c, z)


@checked
def gru_step(
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None = None,
    recurrent_bias: ArrayLike | None = None,
    *,
    reset_after: bool = True,
) -> jax.Array:
    """A step of a gated recurrent unit.

    With the kernels and the bias in three parts, for the gates r (reset) and z (update) and the
    candidate n, in this order, which is torch's:

        r = sigmoid(x @ W_r + h @ U_r + b_r)
        z = sigmoid(x @ W_z + h @ U_z + b_z)
        n = tanh(x @ W_n + b_n + r * (h @ U_n + recurrent_bias))    reset_after=True
        n = tanh(x @ W_n + b_n + (r * h) @ U_n)                     reset_after=False
        h' = (1 - z) * n + z * h

    Resetting after the product is what torch, cuDNN and flax do; resetting before it is in the
    paper, as in Keras with `reset_after=False` and in haiku (whose z is this `1 - z`).

    Paper: Cho et al., Learning Phrase Representations, https://arxiv.org/abs/1406.1078

    Args:
        x: the input of this step, shape `(..., in)`.
        h: the hidden state, shape `(..., features)`.
        input_kernel: shape `(in, 3 * features)`.
        recurrent_kernel: shape `(features, 3 * features)`.
        bias: shape `(3 * features,)`, or None.
        recurrent_bias: the candidate's bias inside of the reset, shape `(features,)`, or None;
            only with `reset_after=True`.
        reset_after: whether r multiplies the product with U_n, or h before it.

    Returns:
        The next hidden state, in the shape and dtype of `h`.

    Raises:
        ValueError: the shapes do not fit; `recurrent_bias` is given with `reset_after=False`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> keep = jnp.array([0.0, 20.0, 0.0])  # r, z, n: z = 1 keeps h as it is
        >>> nn.functional.gru_step(jnp.ones(1), jnp.array([0.25]), jnp.zeros((1, 3)),
        ...                        jnp.zeros((1, 3)), keep)
        Array([0.25], dtype=float32)
    """
    if not reset_after:
        if recurrent_bias is not None:
            raise ValueError(
                "gru_step: recurrent_bias is given, expected None with reset_after=False"
            )
        return _gru_step_resetting_before(x, h, input_kernel, recurrent_kernel, bias)
    z = gru_affine(x, h, input_kernel, recurrent_kernel, bias, recurrent_bias)
    return gru_nonlinear(h, z)


# Steps in two parts, affine and nonlinear: sequences form the gradients of the first at once


def affine(
    function: str,
    gates: int,
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None,
) -> jax.Array:
    """What goes into the activations of `function`: those of `gates` gates side by side."""
    x, h = _operands(function, gates, x, h, input_kernel, recurrent_kernel, bias)
    return linear(x, input_kernel, bias) + linear(h.astype(x.dtype), recurrent_kernel)


def rnn_nonlinear(
    h: ArrayLike, z: jax.Array, activation: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The next `h` from what goes into the activation."""
    h = floating(h)
    return activation(z.astype(_wide(z, h))).astype(h.dtype)


def conv_lstm_affine(
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None,
) -> jax.Array:
    """What goes into the gates of `conv_lstm_step`."""
    spatial = max(jnp.ndim(recurrent_kernel) - 2, 1)
    x, h = _operands("conv_lstm_step", 4, x, h, input_kernel, recurrent_kernel, bias, spatial)
    return conv(x, input_kernel, bias) + conv(h.astype(x.dtype), recurrent_kernel)


def lstm_nonlinear(
    function: str, h: ArrayLike, c: ArrayLike, z: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The next `(h, c)` of a long short-term memory, from what goes into its gates."""
    h, c = floating(h), floating(c)
    check_shape(function, "c", c, h.shape)
    wide = _wide(z, c)
    i, f, g, o = jnp.split(z.astype(wide), 4, axis=-1)
    memory = jax.nn.sigmoid(f) * c.astype(wide) + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(memory)).astype(h.dtype), memory.astype(c.dtype)


class GRUInputs(NamedTuple):
    """What goes into the gates, r and z, and into the candidate, from x and from h."""

    gates: jax.Array
    x_candidate: jax.Array
    h_candidate: jax.Array


def gru_affine(
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None,
    recurrent_bias: ArrayLike | None,
) -> GRUInputs:
    """The products of `gru_step` with `reset_after=True`."""
    x, h = _operands("gru_step", 3, x, h, input_kernel, recurrent_kernel, bias)
    features, wide = h.shape[-1], _wide(x, h)
    if recurrent_bias is not None:
        check_shape("gru_step", "recurrent_bias", recurrent_bias, (features,))
        recurrent_bias = jnp.pad(recurrent_bias, (2 * features, 0))
    of_x = linear(x, input_kernel, bias)
    of_h = linear(h.astype(x.dtype), recurrent_kernel, recurrent_bias)
    x_gates, x_candidate = jnp.split(of_x, [2 * features], axis=-1)
    h_gates, h_candidate = jnp.split(of_h, [2 * features], axis=-1)
    return GRUInputs(x_gates.astype(wide) + h_gates.astype(wide), x_candidate, h_candidate)


def gru_nonlinear(h: ArrayLike, inputs: GRUInputs) -> jax.Array:
    """The next `h` of a gated recurrent unit that resets after the product."""
    h, wide = floating(h), inputs.gates.dtype
    r, z = jnp.split(jax.nn.sigmoid(inputs.gates), 2, axis=-1)
    n = jnp.tanh(inputs.x_candidate.astype(wide) + r * inputs.h_candidate.astype(wide))
    return ((1 - z) * n + z * h.astype(wide)).astype(h.dtype)


def _gru_step_resetting_before(
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None,
) -> jax.Array:
    """`gru_step` with `reset_after=False`, whose second product needs the result of the first."""
    x, h = _operands("gru_step", 3, x, h, input_kernel, recurrent_kernel, bias)
    features, wide = h.shape[-1], _wide(x, h)
    memory = h.astype(wide)

    def times(h: jax.Array, kernel: ArrayLike, bias: ArrayLike | None = None) -> jax.Array:
        return linear(h.astype(x.dtype), kernel, bias).astype(wide)

    x_gates, x_candidate = jnp.split(times(x, input_kernel, bias), [2 * features], axis=-1)
    of_gates, of_candidate = jnp.split(jnp.asarray(recurrent_kernel), [2 * features], axis=-1)
    r, z = jnp.split(jax.nn.sigmoid(x_gates + times(h, of_gates)), 2, axis=-1)
    n = jnp.tanh(x_candidate + times(r * memory, of_candidate))
    return ((1 - z) * n + z * memory).astype(h.dtype)


def _operands(
    function: str,
    gates: int,
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None,
    spatial: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """`x` in the dtype of the products, and `h`, once all shapes are seen to fit."""
    x, h, recurrent = jnp.asarray(x), floating(h), np.shape(recurrent_kernel)
    if len(recurrent) != 2 + spatial or recurrent[-1] != gates * recurrent[-2]:
        window = "*window, " if spatial else ""
        columns = "features" if gates == 1 else f"{gates} * features"
        raise ValueError(
            f"{function}: recurrent_kernel has shape {recurrent}, expected "
            f"({window}features, {columns})"
        )
    if x.ndim < 1 + spatial:
        axes = "..., *spatial, in" if spatial else "..., in"
        raise ValueError(f"{function}: x has shape {x.shape}, expected ({axes})")
    *window_shape, features, outputs = recurrent
    check_shape(function, "h", h, (*x.shape[:-1], features), "x and of the kernels")
    check_shape(function, "input_kernel", input_kernel, (*window_shape, x.shape[-1], outputs))
    if bias is not None:
        check_shape(function, "bias", bias, (outputs,))
    return x.astype(compute_dtype(x, jnp.asarray(input_kernel))), h


def _wide(z: jax.Array, carried: jax.Array) -> jnp.dtype:
    return promoted(accumulator_dtype(z.dtype), carried.dtype)
