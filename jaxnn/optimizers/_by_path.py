"""Different transformations for different leaves, chosen by path, by predicate or by a tree."""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.construction import constructor, refuse_constructor
from jaxnn._core.paths import (
    broadcast_prefix,
    first_matches,
    leaf_paths,
    path_text,
    same_structure,
    select_mask,
)
from jaxnn._core.types import Mask, OptimizerLike, PyTree
from jaxnn.optimizers._base import (
    Optimizer,
    check_optimizer,
    extra_tolerant,
    stateless_transformation,
)
from jaxnn.optimizers._checks import is_of_integer
from jaxnn.optimizers._map_params import is_masked, is_placeholder
from jaxnn.optimizers._rates import Rates, learning_rates, with_rates, with_rates_of


class MaskedNode(NamedTuple):
    """The place of a leaf that a masked transformation does not see: a subtree without leaves."""


class MaskedState(NamedTuple):
    """The state of the masked transformation."""

    inner_state: PyTree


class PartitionState(NamedTuple):
    """The `MaskedState` of each transformation."""

    inner_states: dict[Hashable, PyTree]


@constructor
def masked(
    inner: OptimizerLike, mask: Mask, *, mask_compatible_extra_args: bool = True
) -> Optimizer:
    """Apply a transformation to some leaves, and leave the others unchanged.

    Args:
        inner: the `Optimizer` or optax transformation for the chosen leaves. It keeps no state for
            the others, in whose place it sees a `MaskedNode()`.
        mask: which leaves: a glob on the path or several of them, a predicate
            `(path, leaf) -> bool`, a tree of booleans (one of which may stand for a subtree) or a
            function from the params to one, or a boolean for all.
        mask_compatible_extra_args: whether extra keywords of `update` are masked too: trees with
            the structure of the params, and the functions of the params that line searches and
            `sam` call (optax: False, and never the functions).

    Returns:
        An `Optimizer` with state `MaskedState(inner_state)`.

    Raises:
        TypeError: `inner` is not an optimizer.
        ValueError: a pattern matches no leaf; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(1)}
        >>> optimizer = nn.optimizers.masked(nn.optimizers.scale(-0.5), "kernel")
        >>> optimizer.update(params, optimizer.init(params), params)[0]
        {'bias': Array([1.], dtype=float32), 'kernel': Array([-0.5, -0.5], dtype=float32)}
    """
    check_optimizer(inner, "masked: inner")
    inner_update = extra_tolerant(inner)

    def init(params: PyTree) -> PyTree:
        if is_placeholder(params):
            return MaskedState(inner.init(params))
        return MaskedState(inner.init(_kept(select_mask(params, mask, "masked: mask"), params)))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        chosen = select_mask(updates if params is None else params, mask, "masked: mask")
        same_structure("masked", params=chosen, updates=updates)
        inner_params = None if params is None else _kept(chosen, params)
        if mask_compatible_extra_args:
            extra = {name: _masked_extra(chosen, params, name, e) for name, e in extra.items()}
        inner_updates, inner_state = inner_update(
            _kept(chosen, updates), state.inner_state, inner_params, **extra
        )
        return _put_back(chosen, inner_updates, updates), MaskedState(inner_state)

    return Optimizer(init, with_rates_of(update, inner, "inner_state"))


def _kept(chosen: PyTree, tree: PyTree) -> PyTree:
    """`tree` with a `MaskedNode` in the place of what is not chosen."""
    return jax.tree.map(lambda wanted, leaf: leaf if wanted else MaskedNode(), chosen, tree)


def _put_back(chosen: PyTree, part: PyTree, whole: PyTree) -> PyTree:
    """`whole` with the chosen leaves from `part`."""
    return jax.tree.map(lambda wanted, new, old: new if wanted else old, chosen, part, whole)


def _masked_extra(chosen: PyTree, params: PyTree, name: str, value: Any) -> Any:
    """An extra keyword of `update` as the inner transformation is to see it."""
    if name in ("value_fn", "grad_fn", "obj_fn") and callable(value):

        @functools.wraps(value)
        def of_part(part: PyTree, *args: Any, **kwargs: Any) -> Any:
            result = value(_put_back(chosen, part, params), *args, **kwargs)
            return _kept(chosen, result) if name == "grad_fn" else result

        return of_part
    structure: Callable[[PyTree], Any] = jax.tree.structure
    is_like_params = structure(value) == structure(chosen) != structure(0)
    return _kept(chosen, value) if is_like_params else value


def where_kept(function: Callable[..., Any], kept: PyTree, *others: PyTree) -> PyTree:
    """Map over the leaves of `kept`; the leaves that it lacks are those of the first other tree."""

    def one(leaf: Any, *leaves: Any) -> Any:
        return leaves[0] if is_masked(leaf) else function(leaf, *leaves)

    return jax.tree.map(one, kept, *others, is_leaf=is_masked)


@constructor
def partition(
    transforms: Mapping[Any, OptimizerLike],
    param_labels: PyTree = None,
    *,
    mask_compatible_extra_args: bool = True,
) -> Optimizer:
    """Use a different transformation for each part of the params, chosen by path.

    `partition({"head/*": adam(1e-3), "*": freeze()})` trains the head and freezes all else.

    Args:
        transforms: `Optimizer`s or optax transformations by the glob on the path of their leaves,
            of which the first match counts; or by label, if `param_labels` is given. None keeps
            state for the leaves of another.
        param_labels: as in optax, a tree with the label of each leaf or subtree, or a function
            from the params to one; None if the transformations are chosen by glob.
        mask_compatible_extra_args: see `masked`.

    Returns:
        An `Optimizer` with state `PartitionState(inner_states)`.

    Raises:
        TypeError: `transforms` is not a dict of optimizers.
        ValueError: there is no transformation, or none for a leaf; a pattern matches no leaf, or
            only such as patterns before it match; a label is not among `transforms`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> from jaxnn.optimizers import freeze, partition, sgd
        >>> params = {"encoder": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
        >>> optimizer = partition({"head/*": sgd(0.5), "*": freeze()})
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> updates["encoder"]["kernel"], updates["head"]["kernel"]
        (Array([0., 0.], dtype=float32), Array([-0.5, -0.5], dtype=float32))
    """
    if not isinstance(transforms, Mapping):
        raise TypeError(f"partition: transforms is {transforms!r}, expected a dict of optimizers")
    if not transforms:
        raise ValueError("partition: transforms is empty, expected an optimizer for each part")
    for label, transform in transforms.items():
        check_optimizer(transform, f"partition: transforms[{label!r}]")
        if param_labels is None and not isinstance(label, str):
            raise TypeError(f"partition: transforms has the key {label!r}, expected a glob")

    refuse_constructor(param_labels, "partition: param_labels", "a tree of labels or a function")
    if not callable(param_labels):
        _check_labels(param_labels, transforms)

    def parts(params: PyTree) -> dict[Hashable, Optimizer]:
        if is_placeholder(params):
            return {label: masked(transform, True) for label, transform in transforms.items()}
        labels = (
            _first_matches(params, list(transforms))
            if param_labels is None
            else _labels(params, param_labels, transforms)
        )

        def part(label: Hashable, transform: Any) -> Optimizer:
            mask = jax.tree.map(lambda one: one == label, labels)
            return masked(transform, mask, mask_compatible_extra_args=mask_compatible_extra_args)

        return {label: part(label, transform) for label, transform in transforms.items()}

    def init(params: PyTree) -> PyTree:
        return PartitionState({label: part.init(params) for label, part in parts(params).items()})

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        inner_states = {}
        for label, part in parts(updates if params is None else params).items():
            updates, inner_states[label] = part.update(
                updates, state.inner_states[label], params, **extra
            )
        return updates, PartitionState(inner_states)

    def rates(before: PyTree, after: PyTree) -> Rates:
        found = {
            label: learning_rates(
                transform,
                before.inner_states[label].inner_state,
                after.inner_states[label].inner_state,
            )
            for label, transform in transforms.items()
        }
        known = {label: rates for label, rates in found.items() if rates}
        if len(known) == 1:
            return next(iter(known.values()))
        return {
            f"{label}/{group}" if group else str(label): value
            for label, rates in known.items()
            for group, value in rates.items()
        }

    return Optimizer(init, with_rates(update, rates))


def _first_matches(params: PyTree, patterns: list[str]) -> PyTree:
    """The first pattern that matches each leaf."""
    first = first_matches(params, patterns, "partition")
    unmatched = [path for path, p in zip(leaf_paths(params), first, strict=True) if p is None]
    if unmatched:
        raise ValueError(
            f"partition: no pattern matches {', '.join(map(repr, unmatched))}, expected one of "
            f"{', '.join(map(repr, patterns))} to; '*' matches all"
        )
    return jax.tree.unflatten(jax.tree.structure(params), first)


def _labels(params: PyTree, param_labels: Any, transforms: Mapping[Any, Any]) -> PyTree:
    """The label of each leaf, checked."""
    given = param_labels(params) if callable(param_labels) else param_labels
    _check_labels(given, transforms)
    return broadcast_prefix(given, params, "partition: param_labels")


def _check_labels(labels: PyTree, transforms: Mapping[Any, Any]) -> None:
    """Raise for a leaf that is not the label of a transformation."""
    for path, label in jax.tree_util.tree_leaves_with_path(labels):
        if not isinstance(label, Hashable) or label not in transforms:
            raise ValueError(
                f"partition: param_labels has {label!r} for {path_text(path)!r}, expected one of "
                f"{list(transforms)}"
            )


@constructor
def set_to_zero() -> Optimizer:
    """Set all updates to zero: the params do not change.

    Returns:
        An `Optimizer` without state.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.optimizers.set_to_zero().update({"w": jnp.ones(2)}, ())[0]
        {'w': Array([0., 0.], dtype=float32)}
    """

    def zero(update: jax.Array) -> jax.Array:
        return update if is_of_integer(update) else jnp.zeros_like(update)

    return stateless_transformation(lambda updates, params: jax.tree.map(zero, updates))


@constructor
def freeze(mask: Mask = True) -> Optimizer:
    """Freeze parameters: updates of zero for the chosen leaves, by default all.

    Updates of other leaves are unchanged. The compiler leaves out the gradients of frozen leaves.

    Args:
        mask: which leaves are frozen, see `masked`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: a pattern matches no leaf; the structures differ.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> grads = {"encoder": jnp.ones(2), "head": jnp.ones(2)}
        >>> optimizer = nn.optimizers.freeze("encoder")
        >>> optimizer.update(grads, optimizer.init(grads))[0]
        {'encoder': Array([0., 0.], dtype=float32), 'head': Array([1., 1.], dtype=float32)}
    """
    return masked(set_to_zero(), mask)
