"""Diagonal linear recurrences, one example and one step at a time.

The gradient of a complex number z is dRe z + i dIm z here. For y = a b it is then db = a* dy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .float64 import Array, in_float64


def _order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


@in_float64
def linear_recurrence(
    a: Array, b: Array, h: Array | None = None, reverse: bool = False
) -> tuple[Array, Callable]:
    """h_t = a_t h + b_t, h being the one before; time is axis 1.

    Backwards, g_t = dh_t + (a* g) of the step after. Then db_t = g_t, da_t = h* g_t.
    """
    factors = np.broadcast_to(a, b.shape)
    order = _order(b.shape[1], reverse)
    hs, before = np.zeros(b.shape, np.result_type(a, b)), {}
    carried = np.zeros(hs[:, 0].shape, hs.dtype) if h is None else h
    for t in order:
        before[t] = carried
        hs[:, t] = carried = factors[:, t] * carried + b[:, t]

    def backward(dy: Array) -> tuple[Array | None, ...]:
        da, db = np.zeros(hs.shape, hs.dtype), np.zeros(hs.shape, hs.dtype)
        g = np.zeros(hs[:, 0].shape, hs.dtype)
        for t in reversed(order):
            db[:, t] = g = dy[:, t] + g
            da[:, t] = before[t].conj() * g
            g = factors[:, t].conj() * g
        da = da.sum(tuple(range(b.ndim - a.ndim)))
        da = da.sum(tuple(i for i, n in enumerate(a.shape) if n == 1), keepdims=True)
        return da, db, None if h is None else g

    return hs, backward


@in_float64
def lru(
    x: Array,
    real: Array,
    imaginary: Array,
    kernel: Array,
    log_scale: Array,
    log_decay: Array,
    log_phase: Array,
    out_kernel: Array,
    skip: Array,
    lengths: Sequence[int] | None = None,
    reverse: bool = False,
) -> tuple[tuple[Array, Array, Array], Callable]:
    """A linear recurrent unit from the carry `real + i imaginary`, over the valid steps alone.

    With l = exp(-e^v + i e^w), for z = x K in its two halves: h = l h + e^s (z_1 + i z_2), and
    y = [Re h, Im h] O + d x. With g the gradient of h: dl = h* g, dv = Re((-e^v l)* dl) and
    dw = Re((i e^w l)* dl); ds = Re((e^s z)* g), dz = e^s g.
    """
    n, (batch, time, _) = len(log_decay), x.shape
    rate, turn, scale = np.exp(log_decay), np.exp(log_phase), np.exp(log_scale)
    factor = np.exp(-rate + 1j * turn)
    valid = [time] * batch if lengths is None else lengths

    def steps() -> Any:
        return ((i, t) for i in range(batch) for t in _order(valid[i], reverse))

    ys, z, hs, before = np.zeros(x.shape), {}, {}, {}
    last = real + 1j * imaginary
    for i, t in steps():
        halves = x[i, t] @ kernel
        z[i, t], before[i, t] = halves[:n] + 1j * halves[n:], last[i].copy()
        hs[i, t] = last[i] = factor * last[i] + scale * z[i, t]
        ys[i, t] = np.concatenate([hs[i, t].real, hs[i, t].imag]) @ out_kernel + skip * x[i, t]
        hs[i, t] = hs[i, t].copy()

    def backward(dy: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        dys, dreal, dimaginary = dy
        dx, dkernel, dout, dskip = (np.zeros(p.shape) for p in (x, kernel, out_kernel, skip))
        dfactor, dscale = np.zeros(n, complex), np.zeros(n)
        g = dreal + 1j * dimaginary
        for i, t in reversed(list(steps())):
            h = hs[i, t]
            dparts = out_kernel @ dys[i, t]
            g[i] += dparts[:n] + 1j * dparts[n:]
            dout += np.outer(np.concatenate([h.real, h.imag]), dys[i, t])
            dskip += x[i, t] * dys[i, t]
            dz = scale * g[i]
            dhalves = np.concatenate([dz.real, dz.imag])
            dkernel += np.outer(x[i, t], dhalves)
            dx[i, t] = kernel @ dhalves + skip * dys[i, t]
            dscale += (z[i, t].conj() * dz).real
            dfactor += before[i, t].conj() * g[i]
            g[i] = factor.conj() * g[i]
        ddecay = ((-rate * factor).conj() * dfactor).real
        dphase = ((1j * turn * factor).conj() * dfactor).real
        return dx, g.real, g.imag, dkernel, dscale, ddecay, dphase, dout, dskip

    return (ys, last.real, last.imag), backward
