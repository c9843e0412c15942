"""One step of recurrent networks, over any batch shape.

Products are in the dtype of `x`, to which kernels and biases are cast; gates and sums are in
float32 or wider, and what is carried comes back in the dtype in which it came.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._arrays import accumulator_dtype, check_shape, compute_dtype, floating, promoted
from jaxnn.functional.convolution import conv
from jaxnn.functional.dense import linear


def rnn_step(
    x: ArrayLike,
    h: ArrayLike,
    input_kernel: ArrayLike,
    recurrent_kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
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
    x, h = _operands("rnn_step", 1, x, h, input_kernel, recurrent_kernel, bias)
    z = linear(x, input_kernel, bias) + linear(h.astype(x.dtype), recurrent_kernel)
    return activation(z.astype(_wide(z, h))).astype(h.dtype)


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
    x, h = _operands("lstm_step", 4, x, h, input_kernel, recurrent_kernel, bias)
    c = floating(c)
    check_shape("lstm_step", "c", c, h.shape)
    z = linear(x, input_kernel, bias) + linear(h.astype(x.dtype), recurrent_kernel)
    return _through_gates(z, h, c)


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
    4)`, the padding being "SAME". Of the paper's gates, these have no connection to `c` (as in
    flax and Keras).

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
    spatial = max(jnp.ndim(recurrent_kernel) - 2, 1)
    x, h = _operands("conv_lstm_step", 4, x, h, input_kernel, recurrent_kernel, bias, spatial)
    c = floating(c)
    check_shape("conv_lstm_step", "c", c, h.shape)
    z = conv(x, input_kernel, bias) + conv(h.astype(x.dtype), recurrent_kernel)
    return _through_gates(z, h, c)


def _through_gates(z: jax.Array, h: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next `(h, c)` of a long short-term memory, from what goes into its gates."""
    wide = _wide(z, c)
    i, f, g, o = jnp.split(z.astype(wide), 4, axis=-1)
    memory = jax.nn.sigmoid(f) * c.astype(wide) + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(memory)).astype(h.dtype), memory.astype(c.dtype)


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
    x, h = _operands("gru_step", 3, x, h, input_kernel, recurrent_kernel, bias)
    features = h.shape[-1]
    if recurrent_bias is not None:
        if not reset_after:
            raise ValueError(
                "gru_step: recurrent_bias is given, expected None with reset_after=False"
            )
        check_shape("gru_step", "recurrent_bias", recurrent_bias, (features,))
    wide = _wide(x, h)
    memory = h.astype(wide)

    def times(h: jax.Array, kernel: ArrayLike, bias: ArrayLike | None = None) -> jax.Array:
        return linear(h.astype(x.dtype), kernel, bias).astype(wide)

    def gates_and_candidate(values: ArrayLike) -> list[jax.Array]:
        return jnp.split(jnp.asarray(values), [2 * features], axis=-1)

    x_gates, x_candidate = gates_and_candidate(times(x, input_kernel, bias))
    if reset_after:
        if recurrent_bias is not None:
            recurrent_bias = jnp.pad(recurrent_bias, (2 * features, 0))
        of_h = times(h, recurrent_kernel, recurrent_bias)
        h_gates, h_candidate = gates_and_candidate(of_h)
        r, z = jnp.split(jax.nn.sigmoid(x_gates + h_gates), 2, axis=-1)
        recalled = r * h_candidate
    else:
        of_gates, of_candidate = gates_and_candidate(recurrent_kernel)
        r, z = jnp.split(jax.nn.sigmoid(x_gates + times(h, of_gates)), 2, axis=-1)
        recalled = times(r * memory, of_candidate)
    n = jnp.tanh(x_candidate + recalled)
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
    x, h, recurrent = jnp.asarray(x), floating(h), jnp.shape(recurrent_kernel)
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
    check_shape(function, "h", h, (*x.shape[:-1], features))
    check_shape(function, "input_kernel", input_kernel, (*window_shape, x.shape[-1], outputs))
    if bias is not None:
        check_shape(function, "bias", bias, (outputs,))
    return x.astype(compute_dtype(x, jnp.asarray(input_kernel))), h


def _wide(z: jax.Array, carried: jax.Array) -> jnp.dtype:
    return promoted(accumulator_dtype(z.dtype), carried.dtype)
