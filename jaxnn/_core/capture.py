"""What the layers inside of a model put out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_key
from jaxnn._core.layer import LayerLike, as_layer
from jaxnn._core.paths import check_globs, is_match
from jaxnn._core.types import Arrays, PyTree
from jaxnn._core.watching import Call, moved, watching


@checked
def capture(
    layer: LayerLike,
    params: Arrays,
    state: Arrays,
    x: Arrays,
    *,
    where: str | Sequence[str] = "*",
    add: Mapping[str, PyTree] | None = None,
    key: jax.Array | None = None,
    train: bool = False,
    keywords: Mapping[str, Any] | None = None,
) -> tuple[PyTree, PyTree, dict[str, PyTree]]:
    """Apply a model, and give what every layer inside of it puts out, by its path.

    A pure function like `apply`, to be jitted, differentiated and vmapped; the model is as it was.
    Paths are those of `params`, as "encoder/0"; the second call of a layer that is called twice has
    "#2" at the end. In a `stack` or `ensemble` an array has a leading axis of layers or members,
    and a `stack` has its layers' own outputs as "each"; inside of a `recurrent` it has the axis of
    time. Layers that run in a transformation of the model's own, as `jax.vmap` in the `forward` of
    a `compose`, are left out.

    Gradients with respect to what layers put out are those with respect to zeros that are added.

    Args:
        layer: a layer or a plain function of arrays.
        params: its parameters.
        state: its state.
        x: the input.
        where: which paths: a glob or several of them.
        add: what is added to outputs, by path, each in the shapes of what it is added to.
        key: a typed PRNG key, where training is random.
        train: whether to look at training or at evaluation.
        keywords: further keywords of the layer's `apply`, as `{"mask": mask}`.

    Returns:
        The output and the next state, as `apply` gives them, and the outputs of the layers inside,
        a dict by path.

    Raises:
        ValueError: a glob matches no path; what is added at a path has other shapes, or there is no
            layer there.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(hidden=nn.dense(16), relu=nn.relu, out=nn.dense(3))
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> y, state, seen = nn.capture(model, params, state, jnp.ones((8, 4)))
        >>> {path: output.shape for path, output in seen.items()}
        {'hidden': (8, 16), 'relu': (8, 16), 'out': (8, 3)}
        >>> bool((seen["relu"] == nn.relu(seen["hidden"])).all())
        True
        >>> def total(add):
        ...     return nn.capture(model, params, state, jnp.ones((8, 4)), add=add)[0].sum()
        >>> gradients = jax.grad(total)(jax.tree.map(jnp.zeros_like, seen))
        >>> bool(jnp.allclose(gradients["relu"][0], params["out"]["kernel"].sum(axis=1)))
        True
    """
    layer = as_layer(layer, "capture: layer")
    if key is not None:
        check_key("capture", key)
    globs = (where,) if isinstance(where, str) else tuple(where)
    add = dict(add or {})

    def look(call: Call) -> PyTree:
        return call.y if is_match(call.path, globs) else None

    def along_time(seen: PyTree, axis: int) -> PyTree:
        return moved(seen, 0, axis)

    with watching(look, added=add, over_time=along_time) as (seen, paths):
        y, state = layer.apply(params, state, x, key=key, train=train, **(keywords or {}))
    check_globs("capture: where", [glob for glob in globs if glob != "*"], paths)
    check_globs("capture: add", list(add), paths)
    return y, state, {path: seen[path] for path in paths if path in seen}
