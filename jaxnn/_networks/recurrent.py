"""Stacked recurrent cells, and cells that run over sequences."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnn._core.arrays import check_key, check_range, check_shape, is_inexact, promoted, widen
from jaxnn._core.children import (
    apply_child,
    child_params,
    init_child,
    init_side_by_side,
)
from jaxnn._core.construction import constructor, refuse_constructor
from jaxnn._core.decoding import decoded_steps, refuse_in_decoding
from jaxnn._core.layer import Cell, Layer, LayerLike, abstract, as_layer, pure
from jaxnn._core.meshes import automatic, placed_as_after
from jaxnn._core.paths import leaf_paths, same_structure
from jaxnn._core.types import PyTree
from jaxnn._core.watching import Crossing, unwatched
from jaxnn.functional._scans import (
    linear_of,
    padded,
    parts_of,
    scan_in_parts,
    scan_linear,
    where,
    zeros_like,
)


@constructor
def stacked_cell(*cells: Cell | LayerLike, **named: Cell | LayerLike) -> Cell:
    """Stacked cells: each takes the output of the one below.

    A layer without state, or a plain function of arrays, is a cell that carries nothing, so that
    a whole model can be one: `nn.stacked_cell(nn.embedding(65, 32), nn.lstm_cell(128),
    nn.dropout(0.1), nn.lstm_cell(128), nn.dense(65))`.

    Args:
        *cells: cells, layers or plain functions of arrays; `params` is then a tuple with an entry
            each.
        **named: the same by name, in the order given; `params` is then a dict.

    Returns:
        A `Cell`. Its carry is a dict with an entry, by name or position as a string, for each child
        that is a cell. Its `init` takes the input of one step of one sequence, without batch axes.

    Raises:
        TypeError: an argument is neither a cell nor a layer nor a function, or some are named and
            others not.
        ValueError: in `init`, a layer has state.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> cell = nn.stacked_cell(lower=nn.gru_cell(16), upper=nn.lstm_cell(8), out=nn.dense(2))
        >>> params = cell.init(jax.random.key(0), jnp.zeros(3))
        >>> carry = cell.initial_carry(params, (5,), jnp.float32)
        >>> jax.tree.map(jnp.shape, carry)
        {'lower': (5, 16), 'upper': ((5, 8), (5, 8))}
        >>> carry, y = cell.step(params, carry, jnp.ones((5, 3)))
        >>> y.shape
        (5, 2)
    """
    if cells and named:
        raise TypeError(
            f"stacked_cell: got {len(cells)} positional and {len(named)} named cells "
            f"({', '.join(named)}), expected all of one kind"
        )
    by_name = named or {str(i): cell for i, cell in enumerate(cells)}
    carrying = {name: cell for name, cell in by_name.items() if isinstance(cell, Cell)}
    children = {name: _as_layer(cell, f"stacked_cell: '{name}'") for name, cell in by_name.items()}

    def init(key: jax.Array, x_t: PyTree) -> PyTree:
        check_key("stacked_cell", key)
        x_t = abstract(x_t)
        params: dict[str, PyTree] = {}
        for name, layer in children.items():
            params[name], state = init_child(layer, name, key, x_t)
            if name not in carrying and jax.tree.leaves(state):
                names = ", ".join(repr(path) for path in leaf_paths(state))
                raise ValueError(
                    f"stacked_cell: '{name}' is {layer!r}, which has state ({names}), "
                    "expected a layer without"
                )
            x_t, _ = jax.eval_shape(layer.apply, params[name], state, x_t)
        return params if named else tuple(params.values())

    def initial_carry(params: PyTree, batch_shape: Sequence[int], dtype: DTypeLike) -> PyTree:
        of_child = child_params("stacked_cell", params, children)
        return {
            name: cell.initial_carry(of_child[name], tuple(batch_shape), dtype)
            for name, cell in carrying.items()
        }

    def step(
        params: PyTree,
        carry: PyTree,
        x_t: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        of_child = child_params("stacked_cell", params, children)
        new_carry = {}
        for name, layer in children.items():
            x_t, own_carry = apply_child(layer, name, of_child[name], carry, x_t, key, train)
            if name in carrying:
                new_carry[name] = own_carry
        return new_carry, x_t

    return Cell(init, initial_carry, step)


def _as_layer(value: Cell | LayerLike, where: str) -> Layer:
    return _carried(value) if isinstance(value, Cell) else as_layer(value, where)


@constructor
def _carried(cell: Cell) -> Layer:
    """A cell as a layer over one step: its state is what the cell carries."""

    def init(key: jax.Array, x_t: PyTree) -> tuple[PyTree, PyTree]:
        params = cell.init(key, x_t)
        return params, cell.initial_carry(params, (), _floating_dtype(x_t))

    def apply(
        params: PyTree,
        carry: PyTree,
        x_t: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        carry, y_t = cell.step(params, carry, x_t, key=key, train=train)
        return y_t, carry

    return Layer(init, apply)


def _floating_dtype(x: PyTree) -> jnp.dtype:
    """The widest floating dtype in `x`; the default float if there is none."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(abstract(x)) if is_inexact(leaf.dtype)]
    return functools.reduce(promoted, dtypes) if dtypes else jnp.result_type(float)


@constructor
def recurrent(
    cell: Cell,
    *,
    reverse: bool = False,
    last: bool = False,
    return_carry: bool = False,
    time_axis: int = 1,
    cached: bool = False,
) -> Layer:
    """A cell run over sequences: `carry, y[:, t] = cell.step(params, carry, x[:, t])` for each t.

    `apply` takes two more keywords:

    - `lengths`: integers of shape `(batch,)`, the number of valid steps of each sequence, from 0 to
      all. The others are padding: they give zeros, have gradient 0 and leave the carry unchanged.
      With `reverse` a sequence begins at its last valid step.
    - `initial_carry`: the carry before the first step, as returned by an earlier call or
      `cell.initial_carry`.

    Args:
        cell: a `Cell`, for instance `nn.lstm_cell(128)` or `nn.stacked_cell(...)`. One that is
            random gets a new key for each step, which depends on the step's position only.
        reverse: whether to run backwards in time; the output of step t stays at position t.
        last: whether to return the output of the last step alone (at `lengths - 1`; with `reverse`,
            at 0), without the time axis, in place of all.
        return_carry: whether to return `(y, carry)`, with the carry after the last step.
        time_axis: the axis of time; those before are the batch's. 0 for a single sequence.
        cached: whether to decode, within a model for `nn.autoregressive`: a call goes on with the
            carry after the last one, which is state, and takes no `initial_carry`.

    Returns:
        A `Layer` from `(batch, time, ...)`, or a pytree of such arrays, to `(batch, time, ...)`,
        the rest being what the cell takes and gives: features, or nothing for integer tokens.
        `params` are those of the cell. With `cached` its state is `{"carry", "has_begun"}`.

    Raises:
        TypeError: `cell` is not a `Cell`; `lengths` are not integers.
        ValueError: the shape of `x`, `lengths` or `initial_carry` does not fit; a length is known
            and out of range; `cached` comes with `reverse` or `return_carry`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.recurrent(nn.lstm_cell(4))
        >>> x = jnp.ones((2, 5, 3))
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> y, _ = layer.apply(params, state, x, lengths=jnp.array([5, 2]))
        >>> y.shape, (y != 0).any(axis=-1).astype(int)
        ((2, 5, 4), Array([[1, 1, 1, 1, 1],
               [1, 1, 0, 0, 0]], dtype=int32))

        In a model, `nn.compose` passes the lengths on:

        >>> def forward(f, x, *, lengths=None):
        ...     return f.out(f.rnn(x, lengths=lengths))
        >>> classifier = nn.compose(forward, rnn=nn.recurrent(nn.gru_cell(8), last=True),
        ...                         out=nn.dense(10))
        >>> params, state = classifier.init(jax.random.key(0), x)
        >>> classifier.apply(params, state, x, lengths=jnp.array([5, 2]))[0].shape
        (2, 10)
    """
    _check_cell("recurrent", cell)
    if time_axis < 0:
        raise ValueError(f"recurrent: time_axis is {time_axis}, expected at least 0")
    if cached and (reverse or return_carry):
        name = "reverse" if reverse else "return_carry"
        raise ValueError(f"recurrent: {name} is True, expected False with cached=True")
    if cached:
        return _cached(cell, last, time_axis)

    def init(key: jax.Array, x: PyTree) -> PyTree:
        check_key("recurrent", key)
        x = abstract(x)
        _batch_shape_and_time(x, time_axis)

        def one_step(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape[time_axis + 1 :], leaf.dtype)

        return cell.init(key, jax.tree.map(one_step, x))

    def call(
        params: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None,
        train: bool,
        lengths: ArrayLike | None = None,
        initial_carry: PyTree = None,
    ) -> PyTree:
        x = jax.tree.map(jnp.asarray, x)

        def run(x: PyTree, params: PyTree, lengths: Any, initial_carry: PyTree, key: Any) -> PyTree:
            batch_shape, time = _batch_shape_and_time(x, time_axis)
            if time_axis == len(batch_shape) == 1 and not return_carry and initial_carry is None:
                refuse_in_decoding(
                    f"recurrent({cell!r})",
                    time,
                    "cached=True, or the cell itself, in nn.stacked_cell",
                )
            carry = _first_carry(cell, params, batch_shape, _floating_dtype(x), initial_carry)
            if lengths is not None:
                lengths = _checked_lengths(lengths, batch_shape, time, carry)
            if key is not None:
                check_key("recurrent", key)
            xs = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, time_axis, 0), x)
            carry, ys = _scan(cell, params, carry, xs, lengths, key, train, reverse, time_axis)
            if last:
                y = _last(ys, lengths, time, reverse)
            else:
                y = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, time_axis), ys)
            return (y, carry) if return_carry else y

        of_arrays = x, params, lengths, initial_carry, key
        return automatic(run, *of_arrays, leading=time_axis)

    return pure(init, call)


def _cached(cell: Cell, last: bool, time_axis: int) -> Layer:
    """A cell run over the next part of a sequence."""
    layer = recurrent(cell, last=last, return_carry=True, time_axis=time_axis)

    def first_carry(params: PyTree, x: PyTree) -> PyTree:
        batch_shape, _ = _batch_shape_and_time(x, time_axis)
        return cell.initial_carry(params, batch_shape, _floating_dtype(x))

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        params, _ = layer.init(key, x)
        return params, {"carry": first_carry(params, abstract(x)), "has_begun": jnp.array(False)}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: ArrayLike | None = None,
    ) -> tuple[PyTree, PyTree]:
        if not {"carry", "has_begun"} <= state.keys():
            raise ValueError(
                f"recurrent: state has {sorted(state)}, expected 'carry' and 'has_begun' as made "
                "by init"
            )
        before = state["carry"]
        carry = jax.tree.map(
            lambda old, first: jnp.where(state["has_begun"], old.astype(first.dtype), first),
            before,
            first_carry(params, jax.tree.map(jnp.asarray, x)),
        )
        given = {"lengths": lengths, "initial_carry": carry}
        (y, carry), _ = layer.apply(params, {}, x, key=key, train=train, **given)
        carry = jax.tree.map(lambda new, old: new.astype(old.dtype), carry, before)
        return y, {"carry": carry, "has_begun": jnp.ones_like(state["has_begun"])}

    return Layer(init, apply)


@constructor
def bidirectional(
    forward: Cell,
    backward: Cell | None = None,
    *,
    merge: Literal["concatenate", "sum"] | Callable[[Any, Any], Any] = "concatenate",
    last: bool = False,
    return_carry: bool = False,
    time_axis: int = 1,
) -> Layer:
    """Two cells over sequences, one forwards and one backwards in time.

    `y = merge(recurrent(forward)(x), recurrent(backward, reverse=True)(x))`. `apply` takes the
    keywords of `nn.recurrent`: `lengths`, which both respect, and `initial_carry`, a dict with the
    entries "forward" and "backward".

    Paper: Schuster and Paliwal, Bidirectional Recurrent Neural Networks,
    https://doi.org/10.1109/78.650093

    Args:
        forward: a `Cell`.
        backward: a `Cell`; None for one like `forward`, with parameters of its own.
        merge: "concatenate" (along the last axis), "sum", or a function of the two outputs.
        last: whether to return what `merge` gives for the output of the last step of each
            direction; for the second this is at the first position.
        return_carry: whether to return `(y, {"forward": carry, "backward": carry})`.
        time_axis: the axis of time; those before are the batch's.

    Returns:
        A `Layer` from `(batch, time, in)` to `(batch, time, 2 * features)` (or whatever `merge`
        makes), with params `{"forward": ..., "backward": ...}`.

    Raises:
        TypeError: a cell is not a `Cell`; `lengths` are not integers.
        ValueError: `merge` is unknown; a shape does not fit.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def forward(f, x, *, lengths=None):
        ...     return f.upper(f.lower(x, lengths=lengths), lengths=lengths)
        >>> model = nn.compose(forward, lower=nn.bidirectional(nn.lstm_cell(4)),
        ...                    upper=nn.bidirectional(nn.lstm_cell(3)))
        >>> x = jnp.ones((2, 5, 7))
        >>> params, state = model.init(jax.random.key(0), x)
        >>> model.apply(params, state, x, lengths=jnp.array([5, 2]))[0].shape
        (2, 5, 6)
    """
    backward = forward if backward is None else backward
    for name, cell in (("forward", forward), ("backward", backward)):
        _check_cell("bidirectional", cell, name)
    merged = merge if callable(merge) else _MERGES[merge]
    children = {
        name: recurrent(cell, reverse=reverse, last=last, return_carry=True, time_axis=time_axis)
        for name, cell, reverse in (("forward", forward, False), ("backward", backward, True))
    }

    def init(key: jax.Array, x: PyTree) -> PyTree:
        return init_side_by_side("bidirectional", children, key, x)[0]

    def call(
        params: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None,
        train: bool,
        lengths: ArrayLike | None = None,
        initial_carry: PyTree = None,
    ) -> PyTree:
        of_child = child_params("bidirectional", params, children)
        begin = dict.fromkeys(children) if initial_carry is None else initial_carry
        if sorted(begin) != sorted(children):
            raise ValueError(
                f"bidirectional: initial_carry has entries for {sorted(begin)}, "
                f"expected {sorted(children)}"
            )
        outputs, carry = {}, {}
        for name, child in children.items():
            given = {"lengths": lengths, "initial_carry": begin[name]}
            (outputs[name], carry[name]), _ = apply_child(
                child, name, of_child[name], {}, x, key, train, **given
            )
        y = merged(outputs["forward"], outputs["backward"])
        return (y, carry) if return_carry else y

    return pure(init, call)


_MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "concatenate": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
}


# The scan


def _scan(
    cell: Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    lengths: jax.Array | None,
    key: jax.Array | None,
    train: bool,
    reverse: bool,
    time_axis: int,
) -> tuple[PyTree, PyTree]:
    """The final carry and all outputs, time being the first axis; what is seen has `time_axis`."""
    steps = jax.tree.leaves(xs)[0].shape[0]
    positions = jnp.arange(steps)
    valid = None
    if lengths is not None:
        valid = jnp.expand_dims(positions, range(1, 1 + lengths.ndim)) < lengths[None]
        # Padding that is not a number would reach the gradient through a mask on the result alone.
        xs = where(valid, xs, zeros_like(xs))

    def first_step(carry: PyTree) -> PyTree:
        x_t, valid_t = jax.tree.map(lambda leaf: leaf[0], (xs, valid))
        after = cell.step(params, carry, x_t, key=key, train=train)
        return padded(valid_t, after, carry)[0]

    if steps > 0:
        with decoded_steps(steps), unwatched():
            carry = placed_as_after(first_step, carry, params, xs)
    parts = parts_of(cell.step)
    if parts is not None:
        return scan_in_parts(*parts, reverse, params, carry, xs, valid)
    linear = linear_of(cell.step)
    if linear is not None:
        return scan_linear(*linear, reverse, params, carry, xs, valid)

    # The reverse pass adds to the gradient of the parameters at every step, in their dtype here.
    dtypes = jax.tree.map(jnp.result_type, params)
    wide_params = jax.tree.map(lambda leaf: widen(leaf) if is_inexact(leaf.dtype) else leaf, params)
    crossing = Crossing(steps, time_axis)

    def step(carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        t, x_t, valid_t, added = inputs
        step_key = None if key is None else jax.random.fold_in(key, t)
        own = jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), wide_params, dtypes)
        with crossing.inside(added) as seen:
            result = cell.step(own, carry, x_t, key=step_key, train=train)
        carry, y_t = padded(valid_t, result, carry)
        return carry, (y_t, seen)

    inputs = positions, xs, valid, crossing.added
    with decoded_steps(steps):
        carry, (ys, seen) = lax.scan(step, carry, inputs, reverse=reverse)
    crossing.report(seen)
    return carry, ys


def _last(ys: PyTree, lengths: jax.Array | None, time: int, reverse: bool) -> PyTree:
    """The output of the last valid step; zeros for a sequence of length 0."""
    if time == 0:
        raise ValueError("recurrent: x has 0 steps, expected at least 1 with last=True")
    if reverse or lengths is None:
        return jax.tree.map(lambda y: y[0 if reverse else -1], ys)
    position = jnp.maximum(lengths - 1, 0)

    def one(y: jax.Array) -> jax.Array:
        at = jnp.expand_dims(position, (0, *range(1 + position.ndim, y.ndim)))
        return jnp.take_along_axis(y, at, axis=0, mode="clip")[0]

    return jax.tree.map(one, ys)


# Checks of arguments


def _check_cell(function: str, cell: Any, name: str = "cell") -> None:
    refuse_constructor(cell, f"{function}: {name}", "a cell")
    if not isinstance(cell, Cell):
        raise TypeError(f"{function}: {name} is {cell!r}, expected a Cell, as nn.lstm_cell(...)")


def _batch_shape_and_time(x: PyTree, time_axis: int) -> tuple[tuple[int, ...], int]:
    """The axes up to that of time, which all arrays of `x` have in common."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
    leading = {shape[: time_axis + 1] for shape in shapes}
    if len(leading) != 1 or len(min(leading)) <= time_axis:
        text = ", ".join(map(str, shapes)) or "no arrays"
        batch = ["batch"] if time_axis == 1 else [f"batch_{i}" for i in range(time_axis)]
        raise ValueError(
            f"recurrent: x has shape {text}, expected ({', '.join([*batch, 'time', '...'])}), "
            "the same for all"
        )
    *batch_shape, time = leading.pop()
    return tuple(batch_shape), time


def _first_carry(
    cell: Cell, params: PyTree, batch_shape: tuple[int, ...], dtype: jnp.dtype, given: PyTree
) -> PyTree:
    """The carry to begin with: as given, or else the cell's own, whose dtypes it has."""

    def own(params: PyTree) -> PyTree:
        return cell.initial_carry(params, batch_shape, dtype)

    if given is None:
        return own(params)
    expected = jax.eval_shape(own, params)
    same_structure("recurrent", **{f"the carry of {cell!r}": expected, "initial_carry": given})
    for path, leaf, wanted in zip(
        leaf_paths(given), jax.tree.leaves(given), jax.tree.leaves(expected), strict=True
    ):
        name = f"initial_carry '{path}'" if path else "initial_carry"
        check_shape("recurrent", name, leaf, wanted.shape)
    return jax.tree.map(
        lambda leaf, wanted: jnp.asarray(leaf).astype(wanted.dtype), given, expected
    )


def _checked_lengths(
    lengths: ArrayLike, batch_shape: tuple[int, ...], time: int, carry: PyTree
) -> jax.Array:
    """`lengths` as an array, when they and the carry fit the batch."""
    check_shape("recurrent", "lengths", lengths, batch_shape)
    if not jnp.issubdtype(jnp.result_type(lengths), jnp.integer):
        raise TypeError(
            f"recurrent: lengths have dtype {jnp.result_type(lengths)}, expected integers"
        )
    check_range("recurrent", "lengths", lengths, 0, time)
    for path, leaf in zip(leaf_paths(carry), jax.tree.leaves(carry), strict=True):
        if leaf.shape[: len(batch_shape)] != batch_shape:
            raise ValueError(
                f"recurrent: with lengths, each sequence has a carry of its own, but '{path}' has "
                f"shape {leaf.shape}, expected {batch_shape} first"
            )
    return jnp.asarray(lengths).astype(jnp.result_type(int))
