"""SOAP: Adam in the eigenbases of Shampoo's factors."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxnn._core.arrays import accumulator_dtype, check_count
from jaxnn._core.construction import constructor
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers._base import Optimizer, chain
from jaxnn.optimizers._leafwise import leafwise_transformation
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights

# For each axis of a leaf a square matrix, None for one that is left as it is.
PerAxisMatrices: TypeAlias = tuple[jax.Array | None, ...]


class ScaleBySoapState(NamedTuple):
    """The step count, the moments, and the factors and their eigenbases.

    Those of all axes of a leaf are one vector, in which the matrices come one after the other.
    """

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree
    factors: PyTree
    bases: PyTree


def _packed(matrices: PerAxisMatrices, like: jax.Array) -> jax.Array:
    """The matrices as one vector, of the dtype of another."""
    return jnp.concatenate([like[:0], *(m.ravel() for m in matrices if m is not None)])


def _unpacked(flat: jax.Array, sizes: tuple[int | None, ...]) -> PerAxisMatrices:
    """The matrices in a vector; an axis without one has the size None."""
    matrices: list[jax.Array | None] = []
    for n in sizes:
        if n is None:
            matrices.append(None)
        else:
            matrices.append(flat[: n * n].reshape(n, n))
            flat = flat[n * n :]
    return tuple(matrices)


def _times(x: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    """`x` with the vectors along an axis multiplied by a matrix from the right."""
    product = jnp.tensordot(x, matrix, axes=((axis,), (0,)), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, -1, axis)


def _rotated(x: jax.Array, bases: PerAxisMatrices) -> jax.Array:
    """`x` in the eigenbases."""
    for axis, basis in enumerate(bases):
        if basis is not None:
            x = _times(x, basis.conj(), axis)
    return x


def _rotated_back(x: jax.Array, bases: PerAxisMatrices) -> jax.Array:
    for axis, basis in enumerate(bases):
        if basis is not None:
            x = _times(x, basis.T, axis)
    return x


def _averaged(factors: PerAxisMatrices, g: jax.Array, decay: Any) -> PerAxisMatrices:
    """The factors, with the inner products of the parts of `g` along each axis."""
    averaged: list[jax.Array | None] = []
    for axis, factor in enumerate(factors):
        if factor is not None:
            rows = jnp.moveaxis(g, axis, 0).reshape(g.shape[axis], -1)
            gram = jnp.matmul(rows, rows.conj().T, precision=lax.Precision.HIGHEST)
            factor = moments.moving_average(factor, gram, decay)
        averaged.append(factor)
    return tuple(averaged)


def _eigenbasis(factor: jax.Array | None) -> jax.Array | None:
    """The eigenvectors as columns, the largest eigenvalue first."""
    return factor if factor is None else jnp.linalg.eigh(factor)[1][:, ::-1]


def _renewed(
    factors: PerAxisMatrices, bases: PerAxisMatrices, mu: jax.Array, nu: jax.Array
) -> tuple[PerAxisMatrices, jax.Array, jax.Array]:
    """The eigenbases after a step of orthogonal iteration, and the moments in them."""
    renewed: list[jax.Array | None] = []
    for axis, (factor, basis) in enumerate(zip(factors, bases, strict=True)):
        if factor is None or basis is None:
            renewed.append(None)
            continue
        image = jnp.matmul(factor, basis, precision=lax.Precision.HIGHEST)
        order = jnp.argsort(-jnp.sum(basis.conj() * image, 0).real)
        renewed.append(jnp.linalg.qr(image[:, order])[0])
        nu = jnp.take(nu, order, axis)
    following = tuple(renewed)
    return following, _rotated(_rotated_back(mu, bases), following), nu


@constructor
def scale_by_soap(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
) -> Optimizer:
    """Rescale updates by SOAP's rule.

    See `soap` for the update rule and the arguments.

    Returns:
        An `Optimizer` with state `ScaleBySoapState(count, mu, nu, factors, bases)`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_soap()
        >>> state = optimizer.init(jnp.zeros((2, 2)))
        >>> for g in (jnp.diag(jnp.array([8.0, 1.0])), jnp.array([[3.0, 0.0], [2.0, 5.0]])):
        ...     updates, state = optimizer.update(g, state)
        >>> updates.round(2)
        Array([[1., 0.],
               [1., 1.]], dtype=float32)
    """
    check.decay_rates("scale_by_soap", b1=b1, b2=b2)
    check.nonnegative("scale_by_soap", eps=eps)
    check_count("scale_by_soap", "precondition_frequency", precondition_frequency)
    check_count("scale_by_soap", "max_precond_dim", max_precond_dim)

    def sizes(p: Any) -> tuple[int | None, ...]:
        shape = jnp.shape(p)
        has_factors = len(shape) > 1 and 0 not in shape
        return tuple(n if has_factors and n <= max_precond_dim else None for n in shape)

    def init(params: PyTree) -> PyTree:
        def matrices(p: Any, scale: float) -> jax.Array:
            dtype = accumulator_dtype(jnp.result_type(p))
            made = (None if n is None else scale * jnp.eye(n, dtype=dtype) for n in sizes(p))
            return _packed(tuple(made), jnp.zeros(0, dtype))

        return ScaleBySoapState(
            moments.zero_count(),
            moments.zeros(params, mu_dtype),
            moments.zero_squares(params),
            jax.tree.map(lambda p: matrices(p, 0.0), params),
            jax.tree.map(lambda p: matrices(p, 1.0), params),
        )

    def rule(
        count: jax.Array,
        g: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        factors: jax.Array,
        bases: jax.Array,
    ) -> tuple[jax.Array, ...]:
        is_first = count == 1
        steps = jnp.maximum(count - 1, 1)  # that moved
        old = _unpacked(bases, sizes(g))
        rotated = _rotated(g, old)
        mean = moments.moving_average(mu, rotated, b1)
        square = moments.moving_average(nu, moments.abs_square(rotated), b2)
        step = moments.over_root(
            moments.bias_corrected(mean, b1, steps), moments.bias_corrected(square, b2, steps), eps
        )
        step = jnp.where(is_first, 0, _rotated_back(step, old))
        mean, square = (jnp.where(is_first, 0, moment) for moment in (mean, square))
        averaged = _averaged(_unpacked(factors, sizes(g)), lax.stop_gradient(g), b2)
        is_due = (count - 1) % precondition_frequency == 0
        new, mean, square = lax.switch(
            jnp.where(is_first, 1, jnp.where(is_due, 2, 0)),
            [
                lambda: (old, mean, square),
                lambda: (tuple(map(_eigenbasis, averaged)), mean, square),
                lambda: _renewed(averaged, old, mean, square),
            ],
        )
        return step, mean, square, _packed(averaged, factors), _packed(new, bases)

    return leafwise_transformation("scale_by_soap", init, rule)


@constructor
def soap(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
) -> Optimizer:
    """SOAP: Adam in the eigenbases of Shampoo's factors.

    For a matrix G of gradients `L = b2 L + (1 - b2) G Gᵀ` and `R = b2 R + (1 - b2) Gᵀ G`, whose
    eigenvectors are the columns of P and Q: Adam's moments are those of `Pᵀ G Q`, and
    `W = W - learning_rate (P (m̂ / (√v̂ + eps)) Qᵀ + weight_decay W)`. An array with more axes has a
    factor for each of them; one with a single axis or none has no factor, which leaves `adam`.

    The first gradient only makes the eigenbases, and no step. Each `precondition_frequency` steps
    they are renewed by one step of orthogonal iteration: a product and a QR decomposition. Under
    `jax.vmap`, with members or in a sweep, that is computed in every step. To differentiation they
    are constants.

    Paper: Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam,
    https://arxiv.org/abs/2409.11321

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        b1: decay rate of the first moment, in [0, 1]; may be traced.
        b2: decay rate of the second moment and of the factors, in [0, 1]; may be traced.
        eps: a small constant added to the denominator, outside the square root.
        mu_dtype: dtype of the first moment; None for float32 or wider.
        weight_decay: the strength of the weight decay, at least 0 (may be traced), or a schedule.
        mask: the leaves with weight decay, see `add_decayed_weights`; None for those of ndim >= 2.
        precondition_frequency: the eigenbases are renewed after so many steps, at least 1.
        max_precond_dim: an axis that is longer has no factor, as that of a large vocabulary.

    Returns:
        An `Optimizer` whose `update` requires the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.soap(0.1)
        >>> w = jnp.zeros((2, 2))
        >>> state = optimizer.init(w)
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.array([[8.0, 0.0], [0.0, 1.0]]), state, w)
        >>> jnp.diag(updates)
        Array([-0.1, -0.1], dtype=float32)
    """
    return chain(
        scale_by_soap(
            b1,
            b2,
            eps,
            mu_dtype,
            precondition_frequency=precondition_frequency,
            max_precond_dim=max_precond_dim,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
