"""Models as programs that run without jaxnn."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_range
from jaxnn._core.layer import LayerLike, abstract, as_layer
from jaxnn._core.paths import path_text
from jaxnn._core.types import Arrays, PyTree
from jaxnn._files.atomic import replacing
from jaxnn._files.leaves import check_has_values, form_of, is_key, leaves_by_name, on_host

_MOST_BYTES = 2**31 - 2**24  # flatbuffers has 31 bits, and the program some bytes besides


@checked
def export(
    path: str | os.PathLike[str],
    model: LayerLike,
    params: Arrays,
    x: Arrays,
    *,
    state: Arrays = {},  # noqa: B006
    symbolic: str | Sequence[Any] | Mapping[str, Any] | None = None,
    constraints: Sequence[str] = (),
    with_params: bool = True,
    platforms: Sequence[Literal["cpu", "cuda", "rocm", "tpu"]] = ("cpu", "cuda", "tpu"),
    vjp_order: int = 0,
) -> None:
    """Write a model as a program that runs without jaxnn, by JAX alone.

    The file holds the compiled form of `model.apply(params, state, x)[0]`, in evaluation, as
    `jax.export` serialises it, and is read by

        program = jax.export.deserialize(bytearray(Path(path).read_bytes()))
        y = program.call(x)

    Needs flatbuffers, as reading does, which the extra `export` brings: `pip install flatbuffers`.
    JAX promises to read the file for six months at least.

    The arguments and results of the program are arrays in tuples, lists and dicts; named tuples
    and other containers are dicts there, by the names of their fields.

    Args:
        path: the file, as `model.jax`. It is replaced as a whole or not at all.
        model: a layer, or a function of `x` alone, with `{}` for `params`: a step of training is
            `lambda arguments: step(*arguments)`, with a pair for `x`.
        params: the parameters.
        x: an example of the input, a pytree of arrays or `jax.ShapeDtypeStruct`s.
        state: the state of the model.
        symbolic: which axes of `x` may have any size, as `"batch, time, ..."`: a name for each
            such axis, `_` for one that is as in the example, `...` for those that follow. One such
            text for all arrays, or a tree of them (and of None) in place of those in `x`. See
            `jax.export.symbolic_shape`.
        constraints: what sizes fulfil, as `"time <= 512"` or `"mod(time, 4) == 0"`.
        with_params: whether `params` and `state` are part of the program. Otherwise they are its
            first arguments: `program.call(params, state, x)`.
        platforms: what the program runs on, of "cpu", "cuda", "rocm" and "tpu".
        vjp_order: how often the program can be differentiated, by `jax.grad` of `program.call`.

    Returns:
        None.

    Raises:
        ImportError: the package flatbuffers is not installed.
        OSError: the file cannot be written; one that was there is as it was.
        TypeError: an argument is of another type.
        ValueError: `symbolic` does not fit `x`, or the model needs a size that is symbolic;
            `platforms` is empty; `params` have more than the 2 GiB that a file can hold.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(nn.dense(8), nn.relu, nn.dense(2))
        >>> x = jnp.ones((1, 3))
        >>> params, _ = model.init(jax.random.key(0), x)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory) / "model.jax"
        ...     nn.export(path, model, params, x, symbolic="batch, ...")
        ...     program = jax.export.deserialize(bytearray(path.read_bytes()))
        >>> program.in_avals, program.platforms
        ((ShapedArray(float32[batch,3]),), ('cpu', 'cuda', 'tpu'))
        >>> program.call(jnp.ones((5, 3))).shape
        (5, 2)
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export: the package flatbuffers is not installed (it is in the extra `export`): "
            "pip install flatbuffers"
        ) from error
    layer = as_layer(model, "export: model")
    check_range("export", "vjp_order", vjp_order, 0)
    if not platforms:
        raise ValueError("export: platforms is empty, expected one at least")
    specs = _symbolic_specs(x, symbolic, constraints)

    def apply(params: PyTree, state: PyTree, x: PyTree) -> PyTree:
        y, _ = layer.apply(params, state, x)
        return y

    if with_params:
        params, state = _fixed(params, state)
        program, arguments = _plain_function(lambda x: apply(params, state, x), specs)
    else:
        program, arguments = _plain_function(apply, abstract(params), abstract(state), specs)
    try:
        exported = jax.export.export(jax.jit(program), platforms=platforms)(*arguments)
    except jax.errors.InconclusiveDimensionOperation as error:
        question, *_ = str(error).splitlines()
        raise ValueError(
            f"export: {question} Expected constraints that answer it, as 'time <= 512', or sizes "
            "of which it is plain, as '2*time'"
        ) from error
    with replacing("export", path) as file:
        file.write(exported.serialize(vjp_order=vjp_order))


def _symbolic_specs(x: PyTree, symbolic: Any, constraints: Sequence[str]) -> PyTree:
    """The shapes and dtypes of `x`, with symbolic axes."""
    example = abstract(x)
    try:
        specs = jax.export.symbolic_args_specs(example, symbolic, constraints)
    except ValueError as error:
        raise ValueError(
            f"export: symbolic is {symbolic!r}, expected the shapes of x as jax.export."
            f"symbolic_shape reads them: {error}"
        ) from error
    for given, spec in zip(jax.tree.leaves(example), jax.tree.leaves(specs), strict=True):
        if given.ndim != spec.ndim:
            raise ValueError(
                f"export: symbolic is {symbolic!r}, which has {spec.ndim} axes, expected "
                f"{given.ndim} for an array of shape {given.shape}"
            )
    return specs


def _fixed(params: PyTree, state: PyTree) -> PyTree:
    """Both with NumPy arrays, which become constants of a program wherever they were."""
    size = 0
    for tree in (params, state):
        for name, leaf in leaves_by_name("export", tree).items():
            form = form_of("export", name, leaf)
            check_has_values("export", name, leaf)
            size += math.prod(form.shape) * form.dtype.itemsize
    if size > _MOST_BYTES:
        raise ValueError(
            f"export: params and state have {size} bytes, expected at most {_MOST_BYTES}, which "
            "a file can hold; take with_params=False, and nn.save for the params"
        )
    return jax.tree.map(
        lambda leaf: leaf if hasattr(leaf, "dtype") and is_key(leaf) else on_host(leaf, None),
        (params, state),
    )


# Containers of the standard library, which need no registration where the program runs


def _plain_function(
    function: Callable[..., PyTree], *arguments: PyTree
) -> tuple[Callable[..., PyTree], tuple[PyTree, ...]]:
    """The function of plain trees that returns plain trees, and its arguments as such."""
    treedef: Any = jax.tree.structure(arguments)
    order = jax.tree.leaves(_plain(treedef.unflatten(range(treedef.num_leaves))))

    def program(*plain: PyTree) -> PyTree:
        leaves = dict(zip(order, jax.tree.leaves(plain), strict=True))
        return _plain(function(*treedef.unflatten(leaves[i] for i in range(len(leaves)))))

    return program, _plain(arguments)


def _plain(tree: PyTree) -> Any:
    """The tree in tuples, lists and dicts; other containers are dicts by the names of their parts.

    Keys of dicts become strings, the only ones that a file of `jax.export` has.
    """
    if tree is None or jax.tree_util.all_leaves([tree]):
        return tree
    parts = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: node is not tree)
    if type(tree) in (tuple, list):
        return type(tree)(_plain(part) for _, part in parts)
    return {path_text(path): _plain(part) for path, part in parts}
