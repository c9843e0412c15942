"""Kernels computed from other parameters: weight and spectral normalisation."""

from collections.abc import Callable

import numpy as np

from .float64 import Array, in_float64

Axes = int | tuple[int, ...]


def _outputs_and_inputs(kernel: Array, axis: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of the outputs, in order, and the others."""
    given = axis if isinstance(axis, tuple) else (axis,)
    outputs = tuple(sorted(a % kernel.ndim for a in given))
    return outputs, tuple(a for a in range(kernel.ndim) if a not in outputs)


@in_float64
def weight_norm(kernel: Array, scale: Array, axis: Axes = -1) -> tuple[Array, Callable]:
    """w = s h with h = k / |k|, one output at a time; a zero k gives w = 0, as if |k| were 1.

    ds = <h, dw>, and as h changes across itself only, dk = s (dw - h <h, dw>) / |k|.
    """
    outputs, _ = _outputs_and_inputs(kernel, axis)
    w, parts = np.empty_like(kernel), {}
    for i in np.ndindex(scale.shape):
        index = tuple(
            i[outputs.index(a)] if a in outputs else slice(None) for a in range(kernel.ndim)
        )
        length = np.sqrt((kernel[index] ** 2).sum()) or 1.0
        parts[i] = index, kernel[index] / length, length
        w[index] = scale[i] * kernel[index] / length

    def backward(dw: Array) -> tuple[Array, Array]:
        dkernel, dscale = np.empty_like(kernel), np.empty_like(scale)
        for i, (index, h, length) in parts.items():
            dscale[i] = (h * dw[index]).sum()
            dkernel[index] = scale[i] * (dw[index] - h * dscale[i]) / length
        return dkernel, dscale

    return w, backward


def _matrix(kernel: Array, axis: Axes) -> tuple[Array, Callable]:
    """The kernel as a matrix (inputs, outputs), element by element, and the way back."""
    outputs, inputs = _outputs_and_inputs(kernel, axis)
    row_of, column_of = (
        {i: n for n, i in enumerate(np.ndindex(*(kernel.shape[a] for a in axes)))}
        for axes in (inputs, outputs)
    )
    place = {
        i: (row_of[tuple(i[a] for a in inputs)], column_of[tuple(i[a] for a in outputs)])
        for i in np.ndindex(kernel.shape)
    }
    matrix = np.empty((len(row_of), len(column_of)))
    for i, (row, column) in place.items():
        matrix[row, column] = kernel[i]

    def back(dmatrix: Array) -> Array:
        return np.array([dmatrix[place[i]] for i in np.ndindex(kernel.shape)]).reshape(kernel.shape)

    return matrix, back


@in_float64
def spectral_norm(
    kernel: Array, u: Array, v: Array, axis: Axes = -1, epsilon: float = 1e-12
) -> tuple[Array, Callable]:
    """w = W / s with s = sum u_i W_ij v_j.

    dw reaches s by -c, c = sum dw_ij W_ij / s^2. As ds/dW_ij = u_i v_j, dW = dw / s - c u v^T;
    du = -c W v and dv = -c W^T u. Where |s| <= epsilon, w = W.
    """
    matrix, back = _matrix(kernel, axis)
    s = float(u @ matrix @ v)
    if abs(s) <= epsilon:
        return kernel, lambda dw: (dw, np.zeros_like(u), np.zeros_like(v))

    def backward(dw: Array) -> tuple[Array, Array, Array]:
        c = (dw * kernel).sum() / s**2
        return dw / s - c * back(np.outer(u, v)), -c * (matrix @ v), -c * (matrix.T @ u)

    return kernel / s, backward


def _normalize(product: Array, old: Array, epsilon: float) -> tuple[Array, Callable]:
    """n = p / |p|, dp = (dn - n <n, dn>) / |p|; the old vector where |p| <= epsilon."""
    length = np.sqrt((product**2).sum())
    if length <= epsilon:
        return old, lambda dn: (np.zeros_like(product), dn)
    n = product / length
    return n, lambda dn: ((dn - n * (n @ dn)) / length, np.zeros_like(old))


@in_float64
def power_iteration(
    kernel: Array,
    u: Array,
    v: Array,
    n_steps: int = 1,
    axis: Axes = -1,
    epsilon: float = 1e-12,
) -> tuple[tuple[Array, Array], Callable]:
    """v = W^T u / |W^T u|, u = W v / |W v|, several times.

    p = W v gives dW = dp v^T and dv = W^T dp; q = W^T u gives dW = u dq^T and du = W dq. In reverse
    the cotangents of u and v run back through the steps, and those of W add up.
    """
    matrix, back = _matrix(kernel, axis)
    tape = []
    for _ in range(n_steps):
        new_v, v_backward = _normalize(matrix.T @ u, v, epsilon)
        new_u, u_backward = _normalize(matrix @ new_v, u, epsilon)
        tape.append((u, new_v, v_backward, u_backward))
        u, v = new_u, new_v

    def backward(dy: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        du, dv = dy
        dmatrix = np.zeros_like(matrix)
        for old_u, new_v, v_backward, u_backward in reversed(tape):
            dp, du_kept = u_backward(du)
            dmatrix += np.outer(dp, new_v)
            dq, dv_kept = v_backward(dv + matrix.T @ dp)
            dmatrix += np.outer(old_u, dq)
            du, dv = du_kept + matrix @ dq, dv_kept
        return back(dmatrix), du, dv

    return (u, v), backward
