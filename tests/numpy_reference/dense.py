"""Affine maps: of one axis, of several, in Einstein's notation, and the greatest of several."""

from collections.abc import Callable, Sequence

import numpy as np

from .float64 import Array, in_float64


@in_float64
def linear(x: Array, kernel: Array, bias: Array | None = None) -> tuple[Array, Callable]:
    """y = x kernel + bias over the last axis of x, with kernel of shape (in, out).

    Over the rows n of x and dy: dx = dy kernel^T, dkernel = sum_n x_n^T dy_n, dbias = sum_n dy_n.
    """
    y = x @ kernel if bias is None else x @ kernel + bias

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        return dy @ kernel.T, rows.T @ drows, None if bias is None else drows.sum(0)

    return y, backward


@in_float64
def linear_general(
    x: Array, kernel: Array, bias: Array | None = None, axis: int | Sequence[int] = -1
) -> tuple[Array, Callable]:
    """y[rest, out] = sum_in x[rest, in] kernel[in, out] + bias[out], `in` being the axes `axis`.

    dx[rest, in] = sum_out dy kernel, dkernel[in, out] = sum_rest x dy, dbias = sum_rest dy.
    """
    axes = sorted(a % x.ndim for a in np.atleast_1d(axis))
    n_out = kernel.ndim - len(axes)
    rest = [a for a in range(x.ndim) if a not in axes]
    y = np.tensordot(x, kernel, (axes, range(len(axes))))

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        out = range(dy.ndim - n_out, dy.ndim)
        dx = np.tensordot(dy, kernel, (out, range(len(axes), kernel.ndim)))
        dkernel = np.tensordot(x, dy, (rest, range(len(rest))))
        dbias = None if bias is None else dy.sum(tuple(range(len(rest))))
        return dx.transpose(np.argsort(rest + axes)), dkernel, dbias

    return (y if bias is None else y + bias), backward


@in_float64
def einsum(
    equation: str, x: Array, kernel: Array, bias: Array | None = None
) -> tuple[Array, Callable]:
    """y[o] = sum x[i] kernel[j] + bias: one term for each value of all the letters.

    With i, j, o the values of the letters of x, kernel and y, each term adds dy[o] kernel[j] to
    dx[i] and dy[o] x[i] to dkernel[j]. The bias has the letters that kernel and y share.
    """
    inputs, y_letters = equation.replace(" ", "").split("->")
    x_letters, kernel_letters = inputs.split(",")
    more = "".join(map(chr, range(0x3B1, 0x3B1 + x.ndim - len(x_letters.replace("...", "")))))
    x_letters, y_letters = x_letters.replace("...", more), y_letters.replace("...", more)
    bias_letters = [a for a in y_letters if a in kernel_letters]
    sizes = dict(zip(x_letters, x.shape, strict=True))
    sizes |= dict(zip(kernel_letters, kernel.shape, strict=True))

    def places(of: dict[str, int]) -> tuple[tuple[int, ...], ...]:
        terms = x_letters, kernel_letters, y_letters, bias_letters
        return tuple(tuple(of[a] for a in term) for term in terms)

    terms = [places(dict(zip(sizes, n, strict=True))) for n in np.ndindex(*sizes.values())]
    y = np.zeros([sizes[a] for a in y_letters])
    for i, j, o, _ in terms:
        y[o] += x[i] * kernel[j]
    biases = {o: b for _, _, o, b in terms}
    if bias is not None:
        for o, b in biases.items():
            y[o] += bias[b]

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        dx, dkernel = np.zeros(x.shape), np.zeros(kernel.shape)
        for i, j, o, _ in terms:
            dx[i] += dy[o] * kernel[j]
            dkernel[j] += dy[o] * x[i]
        if bias is None:
            return dx, dkernel, None
        dbias = np.zeros(bias.shape)
        for o, b in biases.items():
            dbias[b] += dy[o]
        return dx, dkernel, dbias

    return y, backward


@in_float64
def maxout(x: Array, kernel: Array, bias: Array | None = None) -> tuple[Array, Callable]:
    """y = max_k z_k with z_k = x kernel[:, k] + bias[k]; the first of equals gets the gradient.

    Of each row and feature only the greatest z_k is a function that y changes with: with `chosen`
    its one-hot, dkernel[:, k] = x^T (dy chosen_k), dbias[k] = sum dy chosen_k, and
    dx = sum_k (dy chosen_k) kernel[:, k]^T.
    """
    rows = x.reshape(-1, x.shape[-1])
    pieces = range(kernel.shape[1])
    z = np.stack([rows @ kernel[:, k] for k in pieces])
    if bias is not None:
        z = z + bias[:, None]
    chosen = np.argmax(z, 0) == np.arange(len(z))[:, None, None]

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        dz = chosen * dy.reshape(-1, dy.shape[-1])
        dx = sum(dz[k] @ kernel[:, k].T for k in pieces)
        dkernel = np.stack([rows.T @ dz[k] for k in pieces], 1)
        return dx.reshape(x.shape), dkernel, None if bias is None else dz.sum(1)

    return z.max(0).reshape(*x.shape[:-1], -1), backward


@in_float64
def reshape(x: Array, shape: Sequence[int]) -> tuple[Array, Callable]:
    """Other axes after the first, and the old ones back for the gradient."""
    return x.reshape(len(x), *shape), lambda dy: (dy.reshape(x.shape),)
