"""Models spread over many devices: where activations and gathered weights are, layer by layer."""

from typing import Any

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxnn._combinators.chains import serial
from jaxnn._combinators.composition import compose
from jaxnn._combinators.copies import stack
from jaxnn._combinators.wrappers import mixed_precision, remat
from jaxnn._core.children import wrap
from jaxnn._core.construction import call_of, constructor
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._core.sharding import Sharding
from jaxnn._core.types import LossFunction, PyTree


@constructor
def pinned(layer: LayerLike, spec: NamedSharding | PartitionSpec) -> Layer:
    """A layer whose output lies on many devices as `spec` says; its numbers are what they were.

    `fit` and all else that takes `sharding=` does this for the layers of `serial` and `stack`, so
    that each device keeps its examples. Elsewhere it is for programs of one's own, and where the
    compiler chooses badly.

    Args:
        layer: a layer or a plain function of arrays.
        spec: a `jax.sharding.NamedSharding`, or a `jax.sharding.PartitionSpec` over the mesh of
            `jax.set_mesh`, for each array of the output.

    Returns:
        A `Layer` with the params, state and keywords of `layer`.

    Raises:
        TypeError: `spec` is neither.
        ValueError: at the first call, an output has fewer axes than `spec`, or there is no mesh.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> spread = nn.sharding()
        >>> model = nn.serial(nn.pinned(nn.dense(4), spread.of_batch), nn.relu, nn.dense(2))
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> jax.jit(model.apply)(params, state, jnp.ones((8, 3)))[0].shape
        (8, 2)
    """
    layer = as_layer(layer, "pinned: layer")
    if not isinstance(spec, NamedSharding | PartitionSpec):
        raise TypeError(
            f"pinned: spec is {spec!r}, expected a jax.sharding.NamedSharding or PartitionSpec"
        )

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        y, state = layer.apply(params, state, x, key=key, train=train, **extra)
        return jax.tree.map(lambda leaf: lax.with_sharding_constraint(leaf, spec), y), state

    return wrap(layer, apply)


@constructor
def sharded(layer: Layer, sharding: Sharding) -> Layer:
    """The layer, each device with its part of the examples and of the parameters."""
    placed = _spread(layer, sharding, "", (), keeps_examples=False)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        return placed.apply(params, state, sharding.split(x), key=key, train=train, **extra)

    return wrap(layer, apply)


@constructor
def sharded_loss(loss_fn: LossFunction, sharding: Sharding) -> LossFunction:
    """The loss function of `train_step`, each device with its part of the examples."""

    def split_loss_fn(params: PyTree, state: PyTree, batch: Any, key: Any) -> Any:
        whole = sharding.gathered(params, "", ())
        return loss_fn(whole, state, sharding.split(batch), key)

    return split_loss_fn


def _spread(
    layer: Layer, sharding: Sharding, path: str, depths: tuple[int, ...], keeps_examples: bool
) -> Layer:
    """The layer, made anew of blocks that gather their own parameters.

    `path` is where its parameters are, `depths` the leading axes that they have in stacks, and
    `keeps_examples` says whether axis 0 of its output has the examples.
    """
    made_by, arguments = call_of(layer)

    def one(
        child: LayerLike, name: str = "", further: tuple[int, ...] = (), keeps: bool = True
    ) -> Layer:
        child = as_layer(child, "sharding: a layer")
        return _spread(child, sharding, f"{path}{name}", (*depths, *further), keeps)

    if made_by == serial:
        unnamed = [one(child, f"{i}/") for i, child in enumerate(arguments["layers"])]
        return serial(*unnamed, **{n: one(c, f"{n}/") for n, c in arguments["named"].items()})
    if made_by == compose:
        children = arguments["children"].items()
        anew = {name: one(child, f"{name}/", keeps=False) for name, child in children}
        return compose(arguments["forward"], **anew)
    if made_by == stack:
        depth = arguments["depth"]
        return stack(one(arguments["layer"], further=(depth,)), depth)
    if made_by in (remat, mixed_precision):
        inner = one(arguments["layer"], keeps=keeps_examples)
        return made_by(**arguments | {"layer": inner})  # type: ignore[no-any-return]
    return _block(layer, sharding, path, depths, keeps_examples)


def _block(
    layer: Layer, sharding: Sharding, path: str, depths: tuple[int, ...], keeps_examples: bool
) -> Layer:
    """The layer that has its own parameters whole while it runs."""

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        whole = sharding.gathered(params, path, depths)
        y, state = layer.apply(whole, state, x, key=key, train=train, **extra)
        if keeps_examples and jax.tree.leaves(params):
            y = sharding.split(y, rest=PartitionSpec.UNCONSTRAINED)
        return y, state

    return wrap(layer, apply)
