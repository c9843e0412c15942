"""The parts of a state that are like the parameters, and mapping over them."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import OptimizerLike, PyTree
from jaxnn.optimizers._base import check_optimizer


@jax.tree_util.register_pytree_node_class
class _ParamsPlaceholder:
    """What stands for the parameters in a state made to find them: a subtree without leaves."""

    def tree_flatten(self) -> tuple[tuple[()], None]:
        """No children."""
        return (), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: tuple[()]) -> "_ParamsPlaceholder":
        """Another one."""
        return cls()


def is_placeholder(node: Any) -> bool:
    """Whether a node stands for the parameters, here or in optax."""
    return type(node).__name__ == "_ParamsPlaceholder"


def is_masked(node: Any) -> bool:
    """Whether a node is in the place of a leaf that is not seen, here or in optax."""
    return type(node).__name__ == "MaskedNode"


@checked
def map_params(
    optimizer: OptimizerLike,
    function: Callable[..., Any],
    state: PyTree,
    *trees: PyTree,
    transform_non_params: Callable[[Any], Any] | None = None,
) -> PyTree:
    """Map over the parts of an optimizer's state that are like the parameters.

    As the moments, which have a leaf for each parameter. Leaves that a mask leaves out stay
    `MaskedNode()`. Where a leaf of the state has another shape than its parameter (the rows and
    columns of `adafactor`, the memory of `lbfgs`), `function` is to see to it.

    `optax.tree.map_params` finds the same; use it where `optax.masked` or `optax.multi_transform`,
    which know no other, are around an optimizer.

    Args:
        optimizer: the `Optimizer` or optax transformation that the state is of.
        function: `function(leaf, *leaves) -> leaf` of a leaf of the state, and those of the trees
            that belong to the same parameter.
        state: its state, or the shapes of one, by `jax.eval_shape(optimizer.init, params)`.
        *trees: trees with the structure of the params.
        transform_non_params: a function for all other leaves, as step counts; None leaves them as
            they are.

    Returns:
        A state with what the functions return in place of the leaves.

    Raises:
        TypeError: `optimizer` is not an optimizer.
        ValueError: the state is not of this optimizer; the structures differ.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> from jax.sharding import PartitionSpec as P
        >>> optimizer = nn.optimizers.adam(0.1)
        >>> state = jax.eval_shape(optimizer.init, {"kernel": jnp.ones((4, 4))})
        >>> specs = nn.optimizers.map_params(
        ...     optimizer, lambda leaf, spec: spec, state, {"kernel": P("data", None)},
        ...     transform_non_params=lambda leaf: P())
        >>> specs[0].mu["kernel"] == P("data", None), specs[0].count == P()
        (True, True)
    """
    check_optimizer(optimizer, "map_params: optimizer")

    marked = optimizer.init(_ParamsPlaceholder())
    _check_fits("map_params: state", marked, state, is_placeholder)

    def one(leaf: Any, *others: Any) -> Any:
        return leaf if is_masked(leaf) else function(leaf, *others)

    def part(mark: Any, found: PyTree) -> PyTree:
        if is_placeholder(mark):
            for i, tree in enumerate(trees):
                _check_fits(f"map_params: trees[{i}]", found, tree, is_masked)
            return jax.tree.map(one, found, *trees, is_leaf=is_masked)
        return found if transform_non_params is None else transform_non_params(found)

    return jax.tree.map(part, marked, state, is_leaf=is_placeholder)


def _check_fits(name: str, wanted: PyTree, tree: PyTree, is_leaf: Callable[[Any], bool]) -> None:
    """Raise unless the argument `name` has something for each leaf of `wanted`."""
    try:
        jax.tree.map(lambda *_: None, wanted, tree, is_leaf=is_leaf)
    except ValueError as error:
        raise ValueError(
            f"{name} has leaves at {leaf_paths(tree)[:3]}, expected the structure of "
            f"{leaf_paths(wanted, is_leaf)[:3]}: {error}"
        ) from error
