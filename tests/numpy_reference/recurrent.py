"""Recurrent steps, and backpropagation through time over whole sequences.

A step's gates are blocks of columns of z = x W + h U + b. A sequence is run one example and one
step at a time, over its valid steps alone: there is neither a mask nor padding here, and what is
not computed has gradient 0.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from .float64 import Array, in_float64


def _sigmoid(z: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(z / 2)


def _rows(a: Array) -> Array:
    return a.reshape(-1, a.shape[-1])


def _affine(x: Array, kernel: Array, bias: Array | None = None) -> tuple[Array, Callable]:
    """z = x W + b; dx = dz W^T, dW = sum over rows of x^T dz, db = sum over rows of dz."""
    z = x @ kernel if bias is None else x @ kernel + bias

    def backward(dz: Array) -> tuple[Array, Array, Array | None]:
        dbias = None if bias is None else _rows(dz).sum(0)
        return dz @ kernel.T, _rows(x).T @ _rows(dz), dbias

    return z, backward


# Steps

ACTIVATIONS = {
    # the function, and its derivative from what it gave
    "tanh": (np.tanh, lambda y: 1 - y**2),
    "relu": (lambda z: z * (z > 0), lambda y: 1.0 * (y > 0)),
}


@in_float64
def rnn_step(
    x: Array,
    h: Array,
    input_kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    activation: str = "tanh",
) -> tuple[Array, Callable]:
    """y = f(x W + h U + b), and dz = f'(z) dy. At the kink of relu the derivative is 0."""
    function, slope = ACTIVATIONS[activation]
    of_x, x_backward = _affine(x, input_kernel, bias)
    of_h, h_backward = _affine(h, recurrent_kernel)
    y = function(of_x + of_h)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dz = slope(y) * dy
        dx, dinput, dbias = x_backward(dz)
        dh, drecurrent, _ = h_backward(dz)
        return dx, dh, dinput, drecurrent, dbias

    return y, backward


def _lstm_gates(z: Array, c: Array) -> tuple[tuple[Array, Array], Callable]:
    """C = s(z_f) c + s(z_i) tanh(z_g) and H = s(z_o) tanh(C), with s' = s (1 - s).

    C gets what is asked of it and what comes through H: D = dC + dH s_o (1 - tanh(C)^2). Then
    dc = D s_f, and each z gets D (or dH, for z_o) times the other factor times its own slope.
    """
    i, f, g, o = np.split(z, 4, axis=-1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    new_c = f * c + i * g
    squashed = np.tanh(new_c)

    def backward(dy: tuple[Array, Array]) -> tuple[Array, Array]:
        dh, dc = dy
        through = dc + dh * o * (1 - squashed**2)
        of_gates = (
            through * g * i * (1 - i),
            through * c * f * (1 - f),
            through * i * (1 - g**2),
            dh * squashed * o * (1 - o),
        )
        return np.concatenate(of_gates, axis=-1), through * f

    return (o * squashed, new_c), backward


@in_float64
def lstm_step(
    x: Array,
    h: Array,
    c: Array,
    input_kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
) -> tuple[tuple[Array, Array], Callable]:
    """z = x W + h U + b in the blocks i, f, g, o, then `_lstm_gates`."""
    of_x, x_backward = _affine(x, input_kernel, bias)
    of_h, h_backward = _affine(h, recurrent_kernel)
    y, gates_backward = _lstm_gates(of_x + of_h, c)

    def backward(dy: tuple[Array, Array]) -> tuple[Array | None, ...]:
        dz, dc = gates_backward(dy)
        dx, dinput, dbias = x_backward(dz)
        dh, drecurrent, _ = h_backward(dz)
        return dx, dh, dc, dinput, drecurrent, dbias

    return y, backward


@in_float64
def gru_step(
    x: Array,
    h: Array,
    input_kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    recurrent_bias: Array | None = None,
    reset_after: bool = True,
) -> tuple[Array, Callable]:
    """H = (1 - z) n + z h, with the blocks r, z and n = tanh(a), a = x W_n + b_n + m.

    dn = dH (1 - z), dz = dH (h - n), dh = dH z, and da = dn (1 - n^2) goes to x and to m.
    Resetting after: m = r q, q = h U_n + e, so dr = dm q and dq = dm r.
    Resetting before: m = p U_n, p = r h, so dp = dm U_n^T, dr = dp h and dh gets dp r.
    """
    features = h.shape[-1]
    u_gates, u_candidate = recurrent_kernel[:, : 2 * features], recurrent_kernel[:, 2 * features :]
    of_x, x_backward = _affine(x, input_kernel, bias)
    of_h, h_backward = _affine(h, u_gates)
    r, z = np.split(_sigmoid(of_x[..., : 2 * features] + of_h), 2, axis=-1)
    if reset_after:
        q, m_backward = _affine(h, u_candidate, recurrent_bias)
        m = r * q
    else:
        m, m_backward = _affine(r * h, u_candidate)
    n = np.tanh(of_x[..., 2 * features :] + m)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        da = dy * (1 - z) * (1 - n**2)
        if reset_after:
            dr = da * q
            dh, du_candidate, drecurrent_bias = m_backward(da * r)
        else:
            dp, du_candidate, drecurrent_bias = m_backward(da)
            dr, dh = dp * h, dp * r
        dz = dy * (h - n)
        dgates = np.concatenate([dr * r * (1 - r), dz * z * (1 - z)], axis=-1)
        dh_of_gates, du_gates, _ = h_backward(dgates)
        dx, dinput, dbias = x_backward(np.concatenate([dgates, da], axis=-1))
        drecurrent = np.concatenate([du_gates, du_candidate], axis=-1)
        return dx, dh + dh_of_gates + dy * z, dinput, drecurrent, dbias, drecurrent_bias

    return (1 - z) * n + z * h, backward


def _same_convolution(x: Array, kernel: Array, bias: Array | None = None) -> tuple[Array, Callable]:
    """z[p] = sum over taps t of x[p + t - centre] K[t] + b, x being 0 outside of the image.

    Each pair of place and tap adds dz[p] K[t]^T to dx and x^T dz[p] to dK.
    """
    spatial, taps = x.shape[1:-1], kernel.shape[:-2]
    pairs = []
    for place, tap in product(np.ndindex(spatial), np.ndindex(taps)):
        source = tuple(p + t - (n - 1) // 2 for p, t, n in zip(place, tap, taps, strict=True))
        if all(0 <= s < size for s, size in zip(source, spatial, strict=True)):
            pairs.append(((slice(None), *place), tap, (slice(None), *source)))
    z = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for place, tap, source in pairs:
        z[place] += x[source] @ kernel[tap]

    def backward(dz: Array) -> tuple[Array, Array, Array | None]:
        dx, dkernel = np.zeros(x.shape), np.zeros(kernel.shape)
        for place, tap, source in pairs:
            dx[source] += dz[place] @ kernel[tap].T
            dkernel[tap] += x[source].T @ dz[place]
        return dx, dkernel, None if bias is None else _rows(dz).sum(0)

    return z if bias is None else z + bias, backward


@in_float64
def conv_lstm_step(
    x: Array,
    h: Array,
    c: Array,
    input_kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
) -> tuple[tuple[Array, Array], Callable]:
    """`lstm_step` with convolutions of x and h, of shape (batch, *spatial, channels)."""
    of_x, x_backward = _same_convolution(x, input_kernel, bias)
    of_h, h_backward = _same_convolution(h, recurrent_kernel)
    y, gates_backward = _lstm_gates(of_x + of_h, c)

    def backward(dy: tuple[Array, Array]) -> tuple[Array | None, ...]:
        dz, dc = gates_backward(dy)
        dx, dinput, dbias = x_backward(dz)
        dh, drecurrent, _ = h_backward(dz)
        return dx, dh, dc, dinput, drecurrent, dbias

    return y, backward


# Sequences


def through_time(step: Callable, carries: int) -> Callable:
    """Backpropagation through time over the reference of a step.

    `step(x, *carry, *params)` gives the next carry (a tuple if there are several), of which the
    first is the output; x is (batch, time, ...). The sequence's reference takes the arguments of
    the step, and gives `(ys, *carry)`. Going back over a step, its output gets dys[t] beside
    what the step after it asked of its carry; each step adds to the gradient of the parameters.
    """

    @in_float64
    def sequence(
        x: Array,
        *arguments: Array | None,
        lengths: Sequence[int] | None = None,
        reverse: bool = False,
        **options: object,
    ) -> tuple[tuple[Array, ...], Callable]:
        carry, params = list(map(np.copy, arguments[:carries])), arguments[carries:]
        examples = range(len(x))
        ys = np.zeros((*x.shape[:2], *carry[0].shape[1:]))
        tape = []
        for b in examples:
            steps = range(x.shape[1] if lengths is None else lengths[b])
            for t in reversed(steps) if reverse else steps:
                one = slice(b, b + 1)
                y, backward = step(x[one, t], *(part[one] for part in carry), *params, **options)
                for part, value in zip(carry, y if carries > 1 else (y,), strict=True):
                    part[one] = value
                ys[b, t] = carry[0][b]
                tape.append((b, t, backward))

        def backward(dy: tuple[Array, ...]) -> tuple[Array | None, ...]:
            dys, dcarry = dy[0], list(map(np.copy, dy[1:]))
            dx = np.zeros(x.shape)
            dparams = [None if param is None else np.zeros(param.shape) for param in params]
            for b, t, step_backward in reversed(tape):
                one = slice(b, b + 1)
                asked = [part[one].copy() for part in dcarry]
                asked[0] += dys[b, t]
                gradients = step_backward(tuple(asked) if carries > 1 else asked[0])
                dx[b, t] = gradients[0][0]
                for part, gradient in zip(dcarry, gradients[1:], strict=False):
                    part[one] = gradient
                for dparam, gradient in zip(dparams, gradients[1 + carries :], strict=True):
                    if dparam is not None:
                        dparam += gradient
            return dx, *dcarry, *dparams

        return (ys, *carry), backward

    return sequence


rnn = through_time(rnn_step, carries=1)
lstm = through_time(lstm_step, carries=2)
gru = through_time(gru_step, carries=1)
conv_lstm = through_time(conv_lstm_step, carries=2)
