"""What a model is made of, as a table."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.keywords import split_static
from jaxnn._core.layer import Layer, LayerLike, abstract, as_layer
from jaxnn._core.types import Arrays, PyTree
from jaxnn._core.watching import Call, path_of_child, watching

HEADINGS = ("path", "layer", "output", "parameters", "bytes", "FLOPs")


@checked
def summary(
    layer: LayerLike,
    x: Arrays,
    *,
    train: bool = False,
    depth: int | None = None,
    keywords: Mapping[str, Any] | None = None,
) -> str:
    """A table of a model and its children: path, output, parameters, bytes, operations.

    Nothing is computed: shapes come from `jax.eval_shape`, floating-point operations from XLA's
    cost analysis of the program before it is optimised (the body of a `jax.lax.scan` counts as
    often as it runs, that of another loop once). A child that is called twice has the sum of its
    calls; in a `stack` or `ensemble` a child has the shape of one copy, and the parameters and
    operations of all; in a `stacked_cell` it has the shape of one step, and the operations of all.

    Args:
        layer: a layer or a plain function of arrays.
        x: an example input: an array, a `jax.ShapeDtypeStruct`, or a pytree of them.
        train: whether to look at training or at evaluation.
        depth: how many levels of children to show; None for all.
        keywords: further keywords of the layer's `apply`, as `{"mask": mask}`.

    Returns:
        The table as text: `print(nn.summary(model, x))`.

    Raises:
        ValueError: `depth` is negative.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(hidden=nn.dense(16), relu=nn.relu, out=nn.dense(3))
        >>> print(nn.summary(model, jnp.zeros((8, 4))))
        path    layer   output         parameters  bytes  FLOPs
        ------  ------  -------------  ----------  -----  -----
                serial  float32[8,3]          131    524  2,072
        hidden  dense   float32[8,16]          80    320  1,152
        relu    relu    float32[8,16]           0      0    128
        out     dense   float32[8,3]           51    204    792
    """
    layer = as_layer(layer, "summary: layer")
    if depth is not None and depth < 0:
        raise ValueError(f"summary: depth is {depth}, expected at least 0")
    arrays, static = split_static(dict(keywords or {}))
    x, arrays = abstract(x), abstract(arrays)
    given = {name: value for name, value in (arrays | static).items() if _takes(layer.init, name)}
    params, state = jax.eval_shape(
        lambda key: layer.init(key, x, **given), jax.eval_shape(lambda: jax.random.key(0))
    )

    calls: dict[str, Call] = {}

    def keep(call: Call) -> None:
        calls[call.path] = call._replace(path=path_of_child(call.path))

    def run(params: PyTree, state: PyTree, x: PyTree, arrays: dict[str, Any]) -> PyTree:
        y, _ = layer.apply(params, state, x, key=jax.random.key(0), train=train, **arrays, **static)
        keep(Call("", layer, params, state, x, arrays | static, y, 1))
        return y

    with watching(keep, leaves_traces=False) as (_, order):
        jax.eval_shape(run, params, state, x, arrays)
    in_order = [calls[path] for path in ("", *order)]
    return _table(_rows(in_order, params, train, depth))


class _Row(NamedTuple):
    path: str
    layer: str
    output: str
    parameters: int
    bytes: int
    flops: float
    copies: int  # how many there are of it, in stacks and ensembles around it


def _rows(calls: Iterable[Call], params: PyTree, train: bool, depth: int | None) -> list[_Row]:
    rows: dict[str, _Row] = {}
    for call in calls:
        if depth is not None and call.path and call.path.count("/") >= depth:
            continue
        flops = call.times * _flops_of(call, train)
        if call.path in rows:
            first = rows[call.path]
            rows[call.path] = first._replace(flops=first.flops + flops * first.copies)
            continue
        whole, one = _at(params, call.path), call.params
        outer = rows.get(call.path.rpartition("/")[0])
        copies = _size(whole) // _size(one) if _size(one) else outer.copies if outer else 1
        rows[call.path] = _Row(
            call.path,
            _name(call.layer),
            _shapes(call.y),
            _size(whole),
            _bytes(whole),
            flops * copies,
            copies,
        )
    return list(rows.values())


def _flops_of(call: Call, train: bool) -> float:
    """The floating-point operations of one call, by XLA's count."""
    arrays, static = split_static(call.extra)

    def run(params: PyTree, state: PyTree, x: PyTree, arrays: dict[str, Any]) -> PyTree:
        return call.layer.apply(
            params, state, x, key=jax.random.key(0), train=train, **arrays, **static
        )

    return _flops(jax.make_jaxpr(run)(*abstract((call.params, call.state, call.x, arrays))))


def _flops(program: Any) -> float:
    from jax.extend.core import jaxpr_as_fun, jaxprs_in_params  # brings all of Pallas

    def of_further_steps(jaxpr: Any) -> float:
        """What the loops run after their first step: XLA counts the body of a loop once."""
        further = 0.0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                further += (equation.params["length"] - 1) * _flops(equation.params["jaxpr"])
            further += sum(of_further_steps(j) for j in jaxprs_in_params(equation.params))
        return further

    lowered = jax.jit(jaxpr_as_fun(program)).lower(*program.in_avals)
    counted = lowered.cost_analysis() or {}
    return float(counted.get("flops", 0.0)) + of_further_steps(program.jaxpr)


# Trees


def _name(layer: Layer) -> str:
    """The constructor of a layer or a cell; a plain function by its own name."""
    constructor, _, arguments = repr(layer).partition("(")
    if constructor == "_carried":
        return arguments.partition("(")[0]
    return arguments.removesuffix(")") if constructor == "elementwise" else constructor


def _takes(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters


def _at(params: PyTree, path: str) -> PyTree:
    """The part of `params` at a path of names and positions; `{}` if there is none."""
    for name in path.split("/") if path else ():
        if isinstance(params, tuple):
            params = {str(i): child for i, child in enumerate(params)}
        params = params.get(name, {}) if isinstance(params, Mapping) else {}
    return params


def _size(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shapes(tree: PyTree) -> str:
    leaves = jax.tree.leaves(abstract(tree))
    return ", ".join(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for leaf in leaves)


# Text


def _table(rows: Iterable[_Row]) -> str:
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(_aligned(line, widths) for line in lines)


def _cells(row: _Row) -> tuple[str, ...]:
    numbers = f"{row.parameters:,}", f"{row.bytes:,}", f"{row.flops:,.0f}"
    return row.path, row.layer, row.output, *numbers


def _aligned(line: Iterable[str], widths: Iterable[int]) -> str:
    cells = [
        cell.rjust(width) if i > 2 else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
