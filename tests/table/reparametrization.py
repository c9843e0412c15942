"""Kernels computed from other parameters."""

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import reparametrization
from tests.table.rows import FunctionRow, LayerRow


def kernel_and_scale(axis):
    """A kernel and a length for each of its outputs."""

    def draw(rng, shape):
        axes = sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,)))
        return rng.standard_normal(shape), rng.standard_normal([shape[a] for a in axes])

    return draw


def kernel_and_vectors(rows, columns):
    """A kernel and vectors for its matrix, of any length."""

    def draw(rng, shape):
        sizes = shape, rows, columns
        return tuple(rng.standard_normal(size) for size in sizes)

    return draw


def function_rows():
    """One axis of outputs, the first or last, and two."""
    f = nn.functional
    for axis, shape in (
        (-1, (3, 2)),
        (-1, (2, 2, 3)),
        (0, (3, 2)),
        ((0, -1), (2, 3, 2)),
        ((), (2, 3)),
    ):
        yield FunctionRow(
            "functional.weight_norm",
            f.weight_norm,
            reparametrization.weight_norm,
            kernel_and_scale(axis),
            (shape,),
            {"axis": axis},
        )
    for axis, shape, rows, columns in (
        (-1, (3, 2), 3, 2),
        (-1, (2, 2, 3), 4, 3),
        (0, (3, 2), 2, 3),
        ((0, -1), (2, 3, 2), 3, 4),
    ):
        yield FunctionRow(
            "functional.spectral_norm",
            f.spectral_norm,
            reparametrization.spectral_norm,
            kernel_and_vectors(rows, columns),
            (shape,),
            {"axis": axis},
        )
        yield FunctionRow(
            "functional.power_iteration",
            f.power_iteration,
            reparametrization.power_iteration,
            kernel_and_vectors(rows, columns),
            (shape,),
            {"axis": axis, "n_steps": 1 if axis == 0 else 3},
        )


# Layers: the wrapped one with other kernels, and the chain rule through these


def entry(tree, path):
    """The leaf at a path such as "0/kernel"."""
    for name in path.split("/"):
        tree = tree[int(name) if isinstance(tree, tuple) else name]
    return tree


def with_entry(tree, path, value):
    """The tree with another leaf at the path."""
    name, _, rest = path.partition("/")
    if isinstance(tree, tuple):
        return tuple(
            with_entry(child, rest, value) if i == int(name) else child
            for i, child in enumerate(tree)
        )
    return tree | {name: with_entry(tree[name], rest, value) if rest else value}


def weight_norm(child, *paths):
    """Weight norm of the child's kernels at these paths."""

    def apply(params, state, x, *, key, train):
        inner, pullbacks = params["layer"], {}
        for path in paths:
            kernel, scale = entry(inner, path), params["scale"][path]
            w, pullbacks[path] = reparametrization.weight_norm(kernel, scale)
            inner = with_entry(inner, path, w)
        y, pull = child(inner, state.get("layer", {}), x, key=key, train=train)

        def backward(dy):
            dlayer, dx = pull(dy)
            dscale = {}
            for path in paths:
                dkernel, dscale[path] = pullbacks[path](entry(dlayer, path))
                dlayer = with_entry(dlayer, path, dkernel)
            return {"layer": dlayer, "scale": dscale}, dx

        return y, backward

    return apply


def spectral_norm(child, *paths, n_steps=1):
    """Spectral norm of the child's kernels at these paths; the vectors have no gradient."""

    def apply(params, state, x, *, key, train):
        inner, pullbacks = params["layer"], {}
        for path in paths:
            kernel, u, v = entry(inner, path), state["u"][path], state["v"][path]
            if train:
                (u, v), _ = reparametrization.power_iteration(kernel, u, v, n_steps)
            w, pullbacks[path] = reparametrization.spectral_norm(kernel, u, v)
            inner = with_entry(inner, path, w)
        y, pull = child(inner, state.get("layer", {}), x, key=key, train=train)

        def backward(dy):
            dlayer, dx = pull(dy)
            for path in paths:
                dkernel, _, _ = pullbacks[path](entry(dlayer, path))
                dlayer = with_entry(dlayer, path, dkernel)
            return {"layer": dlayer}, dx

        return y, backward

    return apply


DENSE_AND_NORM = composed.serial(**{"0": composed.linear, "1": composed.batch_norm(-1)})
LAYERS = (
    LayerRow(
        "weight_norm",
        "weight_norm(dense(3))",
        lambda: nn.weight_norm(nn.dense(3)),
        ((4, 2),),
        weight_norm(composed.linear, "kernel"),
    ),
    LayerRow(
        "weight_norm_of_several",
        "weight_norm(serial(dense(3), batch_norm(), dense(2)))",
        lambda: nn.weight_norm(nn.serial(nn.dense(3), nn.batch_norm(), nn.dense(2))),
        ((4, 2),),
        weight_norm(
            composed.serial(
                **{"0": composed.linear, "1": composed.batch_norm(-1), "2": composed.linear}
            ),
            "0/kernel",
            "2/kernel",
        ),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow(
        "spectral_norm",
        "spectral_norm(dense(3))",
        lambda: nn.spectral_norm(nn.dense(3)),
        ((4, 2),),
        spectral_norm(composed.linear, "kernel"),
        has_state=True,
    ),
    LayerRow(
        "spectral_norm_of_several",
        "spectral_norm(serial(dense(3), batch_norm()), n_steps=2)",
        lambda: nn.spectral_norm(nn.serial(nn.dense(3), nn.batch_norm()), n_steps=2),
        ((4, 2),),
        spectral_norm(DENSE_AND_NORM, "0/kernel", n_steps=2),
        has_state=True,
        couples_examples=(True,),
    ),
)

FUNCTIONS = tuple(function_rows())
