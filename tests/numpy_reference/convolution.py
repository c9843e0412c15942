"""Convolutions, as sums over outputs and taps of the kernel."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .float64 import Array, in_float64


class Term(NamedTuple):
    """One term of the sum: the output and the element of the input are tied by a tap."""

    output: tuple
    tap: tuple
    element: tuple
    inputs: slice  # the channels of a group
    outputs: slice


def _each(value: Any, rank: int) -> Sequence:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else [value] * rank


def _axis_terms(
    size: int, taps: int, stride: int, kernel_dilation: int, padding: Any
) -> tuple[int, list[tuple[int, int, int]]]:
    """Return the number of outputs of one axis, and its triples (output, tap, element).

    Output i sees element i stride + t dilation - low under tap t; what falls on a zero has no
    triple. There are as many outputs as keep the last tap inside of the padded axis.
    """
    reach = (taps - 1) * kernel_dilation
    if padding in ("SAME", "CIRCULAR", "REFLECT", "REPLICATE"):
        outputs = (size + stride - 1) // stride
        surplus = max(0, (outputs - 1) * stride + reach - (size - 1))
        low = surplus // 2
    elif padding in ("VALID", "CAUSAL"):
        low = reach if padding == "CAUSAL" else 0
        outputs = (size + low - reach + stride - 1) // stride
    else:
        low, high = padding if isinstance(padding, Sequence) else (padding, padding)
        outputs = len(range(-low, size + high - reach, stride))
    triples = []
    for output, tap in product(range(outputs), range(taps)):
        element = output * stride + tap * kernel_dilation - low
        if padding == "CIRCULAR":
            element %= size
        elif padding == "REFLECT":
            element = abs(element)
            element = min(element, 2 * (size - 1) - element)
        elif padding == "REPLICATE":
            element = min(max(element, 0), size - 1)
        if 0 <= element < size:
            triples.append((output, tap, element))
    return outputs, triples


def _terms(
    sizes: Sequence,
    kernel: Array,
    strides: Any,
    padding: Any,
    kernel_dilation: Any,
    feature_group_count: int,
) -> tuple[tuple, list[Term]]:
    """Return the sizes of the outputs and the terms of a convolution of axes of these sizes."""
    *taps, inputs, features = kernel.shape
    rank = len(taps)
    each = [_each(value, rank) for value in (strides, kernel_dilation, padding)]
    axes = [_axis_terms(*of_axis) for of_axis in zip(sizes, taps, *each, strict=True)]
    outputs = features // feature_group_count
    terms = [
        Term(
            *zip(*triples, strict=True),
            slice(g * inputs, (g + 1) * inputs),
            slice(g * outputs, (g + 1) * outputs),
        )
        for triples in product(*(triples for _, triples in axes))
        for g in range(feature_group_count)
    ]
    return tuple(count for count, _ in axes), terms


def _outer(a: Array, b: Array) -> Array:
    """Return the sum over all batch axes of the outer products of the channels."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])


def _bias_gradient(bias: Array | None, dy: Array) -> Array | None:
    return None if bias is None else dy.reshape(-1, dy.shape[-1]).sum(0)


@in_float64
def conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    strides: Any = 1,
    padding: Any = "SAME",
    kernel_dilation: Any = 1,
    feature_group_count: int = 1,
) -> tuple[Array, Callable]:
    """y_i = sum_t x_e(i,t) K_t + bias, a group of channels at a time.

    Each term is linear in x and in K: dx_e = sum dy_i K_t^T over the (i, t) with e(i, t) = e, and
    dK_t = sum_i x_e(i,t)^T dy_i.
    """
    rank = kernel.ndim - 2
    batch, sizes = x.shape[: -1 - rank], x.shape[-1 - rank : -1]
    counts, terms = _terms(sizes, kernel, strides, padding, kernel_dilation, feature_group_count)
    y = np.zeros((*batch, *counts, kernel.shape[-1]))
    for i, t, e, a, b in terms:
        y[(..., *i, b)] += x[(..., *e, a)] @ kernel[t][:, b]
    if bias is not None:
        y = y + bias

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
        for i, t, e, a, b in terms:
            dx[(..., *e, a)] += dy[(..., *i, b)] @ kernel[t][:, b].T
            dkernel[t][:, b] += _outer(x[(..., *e, a)], dy[(..., *i, b)])
        return dx, dkernel, _bias_gradient(bias, dy)

    return y, backward


@in_float64
def conv_transpose(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    strides: Any = 1,
    padding: Any = "SAME",
    kernel_dilation: Any = 1,
    feature_group_count: int = 1,
    output_size: Any = None,
) -> tuple[Array, Callable]:
    """y_e += x_i K_t for each term (i, t, e) of the convolution of y, + bias: what that one gathers
    is scattered here.

    So each dx_i gathers: dx_i = sum_t dy_e(i,t) K_t^T, and dK_t = sum_i x_i^T dy_e(i,t).
    """
    rank = kernel.ndim - 2
    batch, sizes = x.shape[: -1 - rank], x.shape[-1 - rank : -1]
    if output_size is None:
        output_size = [
            size * stride
            if padding in ("SAME", "CIRCULAR", "REFLECT", "REPLICATE", "CAUSAL")
            else (size - 1) * stride + (taps - 1) * gap + 1 - sum(_each(pair, 2))
            for size, taps, stride, gap, pair in zip(
                sizes,
                kernel.shape,
                _each(strides, rank),
                _each(kernel_dilation, rank),
                _each(0 if padding == "VALID" else padding, rank),
                strict=False,
            )
        ]
    wanted = tuple(_each(output_size, rank))
    counts, terms = _terms(wanted, kernel, strides, padding, kernel_dilation, feature_group_count)
    assert counts == sizes
    y = np.zeros((*batch, *wanted, kernel.shape[-1]))
    for i, t, e, a, b in terms:
        y[(..., *e, b)] += x[(..., *i, a)] @ kernel[t][:, b]
    if bias is not None:
        y = y + bias

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
        for i, t, e, a, b in terms:
            dx[(..., *i, a)] += dy[(..., *e, b)] @ kernel[t][:, b].T
            dkernel[t][:, b] += _outer(x[(..., *i, a)], dy[(..., *e, b)])
        return dx, dkernel, _bias_gradient(bias, dy)

    return y, backward
