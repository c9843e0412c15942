"""The dense layer."""

from collections.abc import Callable

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
