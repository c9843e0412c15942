"""The protocol of optimizers, and what composes them."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arrays import is_inexact, promoted
from jaxnn._core.construction import call_repr, constructor, refuse_constructor
from jaxnn._core.paths import same_structure
from jaxnn._core.types import OptimizerLike, PyTree
from jaxnn._core.types import ScalarOrSchedule as ScalarOrSchedule
from jaxnn.optimizers import _checks as check
from jaxnn.optimizers._functions import OptimizerFunctions, OptimizerInit, UpdateLike
from jaxnn.optimizers._rates import Rates, learning_rates, product, with_rates


class Optimizer(OptimizerFunctions):
    """An optimizer, or a step of one: two pure functions.

    `init(params) -> opt_state` and
    `update(grads, opt_state, params=None, **extra) -> (updates, opt_state)`; the updates are
    added to the params by `apply_updates`. Extra keywords (as `value=`) are for those
    transformations that need them and are ignored by the others.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> sign_descent = nn.optimizers.Optimizer(
        ...     init=lambda params: (),
        ...     update=lambda grads, state, params=None, **extra: (
        ...         jax.tree.map(lambda g: -0.1 * jnp.sign(g), grads), state))
        >>> updates, _ = sign_descent.update({"w": jnp.array([3.0, -4.0])}, ())
        >>> updates["w"]
        Array([-0.1,  0.1], dtype=float32)
    """

    __slots__ = ()

    if TYPE_CHECKING:  # any functions that fit, see _functions.py

        def __new__(cls, init: OptimizerInit, update: UpdateLike) -> Self: ...
        def __init__(self, init: OptimizerInit, update: UpdateLike) -> None: ...
        def _replace(self, *, init: OptimizerInit = ..., update: UpdateLike = ...) -> Self: ...

    def __repr__(self) -> str:
        """The call that made the optimizer."""
        return call_repr(self)


class EmptyState(NamedTuple):
    """The state of a transformation without state."""


def stateless_transformation(
    function: Callable[[PyTree, PyTree], PyTree],
) -> Optimizer:
    """The transformation `updates = function(updates, params)`."""

    def init(params: PyTree) -> PyTree:
        return EmptyState()

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        return function(updates, params), state

    return Optimizer(init, update)


@constructor
def identity() -> Optimizer:
    """The transformation that returns the updates unchanged.

    Returns:
        An `Optimizer` with state `EmptyState()`, as all without state.

    Example:
        >>> import jaxnn as nn
        >>> nn.optimizers.identity().update({"w": 1.0}, ())[0]
        {'w': 1.0}
    """
    return stateless_transformation(lambda updates, params: updates)


@constructor
def chain(*transformations: OptimizerLike) -> Optimizer:
    """Apply transformations one after the other: the updates of each are the gradients of the next.

    Args:
        *transformations: `Optimizer`s or optax transformations.

    Returns:
        An `Optimizer` whose state is the tuple of theirs. Extra keywords of `update` go to those
        that accept any.

    Raises:
        TypeError: an argument has no `init` and `update`.
        ValueError: the state is not a tuple of as many states.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> clipped = nn.optimizers.chain(nn.optimizers.clip(1.0), nn.optimizers.sgd(0.1))
        >>> params = {"w": jnp.array([1.0, 2.0])}
        >>> updates, state = clipped.update({"w": jnp.array([0.5, 30.0])}, clipped.init(params))
        >>> updates["w"]
        Array([-0.05, -0.1 ], dtype=float32)
    """
    for position, transformation in enumerate(transformations):
        check_optimizer(transformation, f"chain: transformations[{position}]")
    updaters = [extra_tolerant(transformation) for transformation in transformations]

    def init(params: PyTree) -> PyTree:
        return tuple(transformation.init(params) for transformation in transformations)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        if len(state) != len(updaters):
            raise ValueError(f"chain: state has {len(state)} entries, expected {len(updaters)}")
        new_state = []
        for one_update, one_state in zip(updaters, state, strict=True):
            updates, one_state = one_update(updates, one_state, params, **extra)
            new_state.append(one_state)
        return updates, tuple(new_state)

    def rates(before: PyTree, after: PyTree) -> Rates:
        return product(map(learning_rates, transformations, before, after))

    return Optimizer(init, with_rates(update, rates))


@constructor
def named_chain(*transformations: tuple[str, OptimizerLike]) -> Optimizer:
    """`chain`, with a name for each transformation, under which its state is found.

    Args:
        *transformations: pairs of a name and an `Optimizer` or optax transformation.

    Returns:
        An `Optimizer` whose state is a dict of theirs.

    Raises:
        TypeError: an argument is no pair of a name and an optimizer.
        ValueError: a name occurs twice.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> optimizer = nn.optimizers.named_chain(
        ...     ("clip", nn.optimizers.clip(1.0)), ("adam", nn.optimizers.adam(0.1)))
        >>> sorted(optimizer.init(jnp.ones(2)))
        ['adam', 'clip']
    """
    for position, pair in enumerate(transformations):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(
                f"named_chain: transformations[{position}] is {pair!r}, expected a pair "
                "(name, optimizer)"
            )
        check_optimizer(pair[1], f"named_chain: transformations[{position}][1]")
    names = [name for name, _ in transformations]
    if len(set(names)) < len(names):
        raise ValueError(f"named_chain: transformations have the names {names}, expected each once")
    chained = chain(*(transformation for _, transformation in transformations))

    def in_order(state: PyTree) -> PyTree:
        return tuple(state[name] for name in names)

    def init(params: PyTree) -> PyTree:
        return dict(zip(names, chained.init(params), strict=True))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        if state.keys() != set(names):
            raise ValueError(f"named_chain: state has {sorted(state)}, expected {sorted(names)}")
        updates, states = chained.update(updates, in_order(state), params, **extra)
        return updates, dict(zip(names, states, strict=True))

    def rates(before: PyTree, after: PyTree) -> Rates:
        return learning_rates(chained, in_order(before), in_order(after))

    return Optimizer(init, with_rates(update, rates))


def check_optimizer(value: Any, where: str) -> None:
    """Raise unless `value` follows the protocol; `where` names it in the error."""
    if not is_optimizer(value):
        refuse_constructor(value, where, "an Optimizer")
        raise TypeError(
            f"{where} is {value!r}, expected an Optimizer (or optax transformation) with init "
            "and update"
        )


def is_optimizer(value: Any) -> bool:
    """Whether `value` follows the protocol."""
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def extra_tolerant(transformation: Any) -> Callable[..., tuple[PyTree, PyTree]]:
    """The `update` of a transformation, ignoring extra keywords that it does not declare."""
    update: Callable[..., tuple[PyTree, PyTree]] = transformation.update
    parameters = inspect.signature(update).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return update
    declared = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}

    def tolerant(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        known = {name: value for name, value in extra.items() if name in declared}
        return update(updates, state, params, **known)

    return tolerant


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    """The new parameters, `params + updates`, each leaf in the dtype of the parameter.

    Args:
        params: a tree of arrays.
        updates: a tree of the same structure.

    Returns:
        A tree of the same structure, shapes and dtypes as `params`. Integers whose gradient
        is float0, as `jax.grad` leaves it out, stay as they are.

    Raises:
        TypeError: an integer would be moved by a floating update.
        ValueError: the structures differ; the message names the paths.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -1.0])})
        {'w': Array([1.5, 1. ], dtype=float32)}
    """
    same_structure("apply_updates", params=params, updates=updates)

    def add(p: ArrayLike, u: ArrayLike) -> jax.Array:
        if check.is_of_integer(u):
            return jnp.asarray(p)
        p, u = jnp.asarray(p), jnp.asarray(u)
        if is_inexact(u.dtype) and not is_inexact(p.dtype):
            raise TypeError(
                f"apply_updates: params has a leaf of dtype {p.dtype} and updates one of "
                f"{u.dtype}, expected floating params"
            )
        wide = promoted(p.dtype, u.dtype)
        return (p.astype(wide) + u.astype(wide)).astype(p.dtype)

    return jax.tree.map(add, params, updates)


def value_at(value: Any, count: jax.Array) -> Any:
    """The value of a hyperparameter that may be a schedule."""
    return value(count) if callable(value) else value
