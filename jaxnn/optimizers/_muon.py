"""Muon: momentum whose matrices are made orthogonal."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import check_count, check_finite, hyperparameter
from jaxnn._core.construction import constructor, refuse_constructor
from jaxnn._core.paths import broadcast_prefix, named_mask
from jaxnn._core.types import Mask, PyTree, Scalar, ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers import _moments as moments
from jaxnn.optimizers import _precision as precision
from jaxnn.optimizers._adam import adamw
from jaxnn.optimizers._base import Optimizer, chain, stateless_transformation
from jaxnn.optimizers._by_path import partition
from jaxnn.optimizers._leafwise import leafwise
from jaxnn.optimizers._scaling import scale_by_learning_rate
from jaxnn.optimizers._weight_decay import add_decayed_weights

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]


class MuonDimensionNumbers(NamedTuple):
    """Which axes of a leaf are the rows and which the columns of a matrix.

    Axes in neither are those of a batch of matrices.

    Example:
        >>> import jaxnn as nn
        >>> nn.optimizers.MuonDimensionNumbers((0, 1, 2), 3)     # of a kernel of `nn.conv`
        MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    """

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


class MuonState(NamedTuple):
    """The step count, the momentum, and the coefficients of the iteration."""

    count: jax.Array  # type: ignore[assignment]
    mu: PyTree
    ns_coeffs: jax.Array


STANDARD = (3.4445, -4.775, 2.0315)
Coefficients: TypeAlias = (
    Literal["standard", "dion"] | ArrayLike | Sequence[float] | Sequence[Sequence[float]]
)
PRESETS: dict[str, Any] = {
    "standard": STANDARD,
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}


# Leaves as batches of matrices


def _axes(numbers: MuonDimensionNumbers, ndim: int) -> tuple[tuple[int, ...], ...]:
    """The axes of the batch, the rows and the columns."""
    axes = [
        axis if isinstance(axis, Sequence) else (axis,)
        for axis in (numbers.reduction_axis, numbers.output_axis)
    ]
    known = [a for a in (*axes[0], *axes[1]) if -ndim <= a < ndim]
    if ndim < 2 or len({a % ndim for a in known}) < len(axes[0]) + len(axes[1]):
        raise ValueError(
            f"muon: {numbers} of an array with {ndim} axes, expected different axes of a matrix"
        )
    rows, columns = (tuple(a % ndim for a in given) for given in axes)
    return tuple(a for a in range(ndim) if a not in rows + columns), rows, columns


def _sizes(x: jax.Array, numbers: MuonDimensionNumbers) -> tuple[int, ...]:
    """The sizes of the batch, the rows and the columns."""
    return tuple(math.prod(x.shape[a] for a in axes) for axes in _axes(numbers, x.ndim))


def _as_matrices(
    x: jax.Array, numbers: MuonDimensionNumbers, function: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """`function` of `x` as an array of shape (batch, rows, columns), put back in its shape."""
    order = [a for axes in _axes(numbers, x.ndim) for a in axes]
    transposed = x.transpose(order)
    y = function(transposed.reshape(_sizes(x, numbers))).reshape(transposed.shape)
    return y.transpose([order.index(a) for a in range(x.ndim)])


def _is_numbers(node: Any) -> bool:
    return node is None or isinstance(node, MuonDimensionNumbers)


def _numbers_of(name: str, tree: PyTree, given: Any) -> list[MuonDimensionNumbers | None]:
    """The dimension numbers of each leaf of `tree`: `given`, the argument `name`, or its leaves."""
    if callable(given):
        given = given(tree)
    spread = broadcast_prefix(given, tree, name, _is_numbers)
    _check_numbers(name, spread)
    return jax.tree.leaves(spread, is_leaf=_is_numbers)


def _check_numbers(name: str, given: Any) -> None:
    """Raise if a leaf of `given`, which errors call `name`, is something else."""
    refuse_constructor(given, name, "a tree of MuonDimensionNumbers or a function")
    leaves = [] if callable(given) else jax.tree.leaves(given, is_leaf=_is_numbers)
    if wrong := [leaf for leaf in leaves if not _is_numbers(leaf)]:
        raise TypeError(f"{name} has {wrong[0]!r}, expected MuonDimensionNumbers")


# The iteration


def _norm(x: jax.Array) -> jax.Array:
    """The Frobenius norm of each matrix, as an array of shape (batch, 1, 1)."""
    return moments.safe_sqrt(jnp.sum(moments.abs_square(x), (-2, -1), keepdims=True))


def _gram(x: jax.Array) -> jax.Array:
    return x @ x.mT.conj()


def _divisor(x: jax.Array, preconditioning: str, eps: jax.Array) -> jax.Array:
    """What makes the largest singular value of each matrix at most about 1."""
    if preconditioning == "frobenius":
        return _norm(x) + eps
    if preconditioning == "spectral":
        largest: jax.Array = jnp.linalg.norm(x, 2, (-2, -1), keepdims=True)
        return largest + eps
    if preconditioning == "schatten":
        return jnp.sqrt(jnp.maximum(_norm(_gram(x)), eps))
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.abs(_gram(x)), -1, keepdims=True), eps))


def _orthogonal(
    x: jax.Array, coefficients: jax.Array, steps: int, preconditioning: str, eps: Scalar
) -> jax.Array:
    """Matrices with the singular vectors of `x` and singular values of about 1."""
    if x.shape[-2] > x.shape[-1]:
        turned = _orthogonal(x.mT, coefficients, steps, preconditioning, eps)
        return turned.mT
    eps = hyperparameter(eps, x.real.dtype)
    x = x / _divisor(x, preconditioning, eps).astype(x.dtype)

    def iterate(x: jax.Array, polynomial: jax.Array) -> tuple[jax.Array, None]:
        a, b, c = polynomial.astype(x.dtype)
        gram = _gram(x)
        return a * x + (b * gram + c * gram @ gram) @ x, None

    rows = coefficients if coefficients.ndim == 2 else jnp.tile(coefficients, (steps, 1))
    return jax.lax.scan(iterate, x, rows)[0]


# The optimizer


def _check_coefficients(given: Any) -> None:
    """Raise unless they are numbers, of which the known ones are finite."""
    if isinstance(given, str):
        return
    leaves = jax.tree.leaves(given)
    if not leaves or (len(leaves) == 1 and jnp.ndim(leaves[0]) == 0):
        raise TypeError(f"scale_by_muon: ns_coeffs is {given!r}, expected (a, b, c)")
    for leaf in leaves:
        check_finite("scale_by_muon", ns_coeffs=leaf)


def _coefficients(given: Any, steps: int, dtype: Any) -> jax.Array:
    """The coefficients as an array of shape (3,) or, one row for each step, (steps, 3)."""
    values = PRESETS[given] if isinstance(given, str) else given
    array = jnp.asarray(jax.tree.map(lambda c: hyperparameter(c, dtype), values))
    if array.ndim not in (1, 2) or array.shape[-1] != 3:
        raise ValueError(f"muon: ns_coeffs has shape {array.shape}, expected (3,) or (steps, 3)")
    return array[-steps:] if array.ndim == 2 else array


@constructor
def scale_by_muon(
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: PyTree = None,
) -> Optimizer:
    """Orthogonalize the momentum of matrices: of `m̂ = U S Vᵀ`, `u = U S' Vᵀ` with S' near 1.

    See `muon` for the update rule and the arguments.

    Args:
        adaptive: whether u is multiplied by `⟨m̂, u⟩`, the nuclear norm of m̂.
        preconditioning: what the matrices are divided by first, so that the iteration converges:
            their "frobenius" norm, their "spectral" norm, the root of the norm of their Gram
            matrix ("schatten"), or each row by the root of the sum of its row there ("aol").
        weight_dimension_numbers: `MuonDimensionNumbers` for all leaves, a tree of them or a
            function from the params to one; None for matrices.

    Returns:
        An `Optimizer` with state `MuonState(count, mu, ns_coeffs)`.

    Raises:
        ValueError: a hyperparameter is out of range; a leaf is no matrix.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.scale_by_muon()
        >>> g = jnp.array([[8.0, 0.0], [0.0, 1.0]])
        >>> optimizer.update(g, optimizer.init(g))[0].round(1)
        Array([[0.7, 0. ],
               [0. , 0.7]], dtype=float32)
    """
    check.decay_rates("scale_by_muon", beta=beta)
    check.nonnegative("scale_by_muon", eps=eps)
    check_count("scale_by_muon", "ns_steps", ns_steps)
    for name, value, choices in (
        ("ns_coeffs", ns_coeffs, tuple(PRESETS)),
        ("preconditioning", preconditioning, get_args(Preconditioning)),
    ):
        if isinstance(value, str) and value not in choices:
            raise ValueError(f"scale_by_muon: {name} is {value!r}, expected one of {choices}")
    _check_coefficients(ns_coeffs)
    name = "scale_by_muon: weight_dimension_numbers"
    _check_numbers(name, weight_dimension_numbers)
    given = weight_dimension_numbers
    if given is None:
        given = MuonDimensionNumbers()

    def init(params: PyTree) -> PyTree:
        coefficients = _coefficients(ns_coeffs, ns_steps, precision.widest_real_dtype(params))
        return MuonState(moments.zero_count(), moments.zeros(params, mu_dtype), coefficients)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        count = moments.next_count(state.count)

        def rule(
            g: jax.Array, mu: jax.Array, numbers: MuonDimensionNumbers
        ) -> tuple[jax.Array, ...]:
            mu = moments.moving_average(mu, g, beta)
            mean = moments.bias_corrected_mean(mu, g, beta, count, nesterov=nesterov)
            u = _as_matrices(
                mean,
                numbers,
                lambda x: _orthogonal(x, state.ns_coeffs, ns_steps, preconditioning, eps),
            )
            return jnp.vdot(mean, u) * u if adaptive else u, mu

        updates, mu = leafwise(
            "scale_by_muon", rule, updates, state.mu, known=[_numbers_of(name, updates, given)]
        )
        return updates, MuonState(count, mu, state.ns_coeffs)

    return Optimizer(init, update)


def _scale_by_shape(given: Any, consistent_rms: Scalar | None) -> Optimizer:
    """Steps whose size fits the shape: `√max(1, columns / rows)` or `consistent_rms √max(...)`."""

    def rule(g: jax.Array, numbers: MuonDimensionNumbers) -> tuple[jax.Array, ...]:
        _, rows, columns = _sizes(g, numbers)
        if consistent_rms is None:
            return (math.sqrt(max(1, columns / max(rows, 1))) * g,)
        return (math.sqrt(max(rows, columns)) * hyperparameter(consistent_rms, g.dtype) * g,)

    def function(updates: PyTree, params: PyTree) -> PyTree:
        return leafwise("muon", rule, updates, known=[_numbers_of("muon", updates, given)])[0]

    return stateless_transformation(function)


@constructor
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Coefficients = STANDARD,
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: PyTree = None,
    consistent_rms: Scalar | None = None,
) -> Optimizer:
    """Muon, momentum with orthogonalized updates, for matrices; AdamW for all other leaves.

    `w = w - learning_rate (√max(1, columns / rows) O(m̂) + weight_decay w)`. m̂ is the first moment
    of `nadam` (of `adam` without `nesterov`); O makes its singular values about 1 (0.7 to 1.2) by
    the Newton-Schulz iteration `x = a x + (b x xᵀ + c (x xᵀ)²) x` on `x = m̂ / (‖m̂‖ + eps)`.

    It is meant for the hidden layers: give the first and the last layer, embeddings above all, to
    Adam by `muon_weight_dimension_numbers`, where None stands for Adam.

    torch's Muon has no bias correction (which matters for `nesterov` only), iterates in bfloat16
    (here float32 or wider), takes matrices as (columns, rows), decays by 0.1 and refuses all else.

    Source: Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon; consistent_rms:
    Liu et al., Muon is Scalable for LLM Training, https://arxiv.org/abs/2502.16982

    Args:
        learning_rate: a number at least 0 (may be traced), or a schedule `count -> number`.
        ns_coeffs: the coefficients (a, b, c) of the iteration, or a row of them for each step, or
            "standard" or "dion" for known ones.
        ns_steps: the number of iterations, if there is no row for each.
        beta: decay rate of the momentum, in [0, 1]; may be traced.
        eps: a small constant added to the norm that the matrices are divided by, and Adam's eps.
        weight_decay: the strength of the weight decay of matrices, at least 0 (may be traced), or
            a schedule.
        weight_decay_mask: the matrices with weight decay, see `add_decayed_weights`.
        mu_dtype: dtype of the momentum, and of Adam's first moment; None for float32 or wider.
        nesterov: whether to use Nesterov momentum, in Adam too.
        adaptive: whether updates are multiplied by the nuclear norm of m̂.
        preconditioning: "frobenius", "spectral", "aol" or "schatten", see `scale_by_muon`.
        adam_b1: b1 of Adam.
        adam_b2: b2 of Adam.
        adam_eps_root: eps_root of Adam.
        adam_weight_decay: the strength of the weight decay of Adam's leaves of ndim >= 2.
        adam_learning_rate: the learning rate of Adam; None for the same.
        muon_weight_dimension_numbers: a tree with `MuonDimensionNumbers` or None (Adam) for each
            leaf or subtree, or a function from the params to one; None for all matrices.
        consistent_rms: the root mean square of updates at learning rate 1, 0.2 for that of Adam; it
            takes the place of the factor for the shape.

    Returns:
        An `Optimizer` with state `PartitionState({"muon": ..., "adam": ...})` whose `update` needs
        the params.

    Raises:
        ValueError: a hyperparameter is out of range; `update` is called without params.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.muon(0.1)
        >>> w = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
        >>> g = {"kernel": jnp.array([[8.0, 0.0], [0.0, 1.0]]), "bias": jnp.array([8.0, -1.0])}
        >>> updates, _ = optimizer.update(g, optimizer.init(w), w)
        >>> jnp.diag(updates["kernel"]).round(2)
        Array([-0.07, -0.07], dtype=float32)
        >>> updates["bias"].round(1)
        Array([-0.1,  0.1], dtype=float32)
    """

    check.decay_rates("muon", adam_b1=adam_b1, adam_b2=adam_b2)
    check.nonnegative(
        "muon",
        adam_eps_root=adam_eps_root,
        adam_weight_decay=adam_weight_decay,
        adam_learning_rate=adam_learning_rate,
        consistent_rms=consistent_rms,
    )
    name = "muon: muon_weight_dimension_numbers"
    _check_numbers(name, muon_weight_dimension_numbers)

    def numbers(params: PyTree) -> PyTree:
        if muon_weight_dimension_numbers is None:
            return jax.tree.map(
                lambda p: MuonDimensionNumbers() if jnp.ndim(p) == 2 else None, params
            )
        found = _numbers_of(name, params, muon_weight_dimension_numbers)
        return jax.tree.unflatten(jax.tree.structure(params), found)

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(
            lambda one: "adam" if one is None else "muon", numbers(params), is_leaf=_is_numbers
        )

    decaying = named_mask(weight_decay_mask, "muon: weight_decay_mask")
    matrices = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=numbers,
        ),
        _scale_by_shape(numbers, consistent_rms),
        add_decayed_weights(weight_decay, decaying),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        weight_decay=adam_weight_decay,
        nesterov=nesterov,
    )
    return partition({"muon": matrices, "adam": others}, labels)
