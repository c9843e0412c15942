"""Affine maps and shapes."""

from functools import partial

import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import activations, dense, further_activations
from tests.table.rows import FunctionRow, LayerRow, normal


def linear_arguments(use_bias):
    """x, a kernel and a bias or None."""

    def draw(rng, shape):
        kernel = rng.standard_normal((shape[-1], 5))
        return rng.standard_normal(shape), kernel, rng.standard_normal(5) if use_bias else None

    return draw


def general_arguments(axis, out):
    """x, a kernel and a bias."""

    def draw(rng, shape):
        inputs = [shape[a] for a in sorted(a % len(shape) for a in np.atleast_1d(axis))]
        return (
            rng.standard_normal(shape),
            rng.standard_normal((*inputs, *out)),
            (np.asarray(rng.standard_normal(out))),
        )

    return draw


def shapes_of_arguments(*shapes):
    """Normal arrays of these shapes; None for None."""

    def draw(rng, shape):
        return tuple(None if s is None else rng.standard_normal(s) for s in (shape, *shapes))

    return draw


def squeeze_excite(params, state, x, *, key, train):
    """y = x s, with s = sigmoid(mlp(m)) of the means m over the n places of each example.

    ds is the sum of x dy over the places, and each of them gets s dy + dm / n.
    """
    places = x.reshape(len(x), -1, x.shape[-1])
    of_means = composed.serial(
        hidden=composed.linear,
        activation=composed.of_function(activations.relu),
        out=composed.linear,
    )
    means = places.mean(1)
    logits, pull_mlp = of_means(params["mlp"], {}, means, key=key, train=train)
    scales, pull_gate = activations.sigmoid(logits)

    def backward(dy):
        dy = dy.reshape(places.shape)
        dmlp, dmeans = pull_mlp(*pull_gate((places * dy).sum(1)))
        dx = scales[:, None] * dy + dmeans[:, None] / places.shape[1]
        return {"mlp": dmlp, "gate": {}}, dx.reshape(x.shape)

    return (places * scales[:, None]).reshape(x.shape), backward


EQUATIONS = {
    "...d,dhk->...hk": [((4, 3), (3, 2, 2), (2, 2)), ((2, 1, 3), (3, 2, 2), (2, 2))],
    "bthk,hkd->btd": [((2, 3, 2, 2), (2, 2, 3), (3,))],
    "bnd,nfd->nbf": [((3, 2, 4), (2, 3, 4), (2, 3))],
    "a...b, cb->c...": [((2, 3, 4), (5, 4), None)],
}


def further_rows():
    """Affine maps of several axes, and shapes."""
    f = nn.functional
    for axis, out, shapes in (
        (-1, (2, 3), ((4,), (2, 3, 4))),
        ((-2, -1), (3,), ((2, 3, 4), (3, 4))),
        ((0, -2), (2, 2), ((2, 3, 4), (2, 1, 3, 2))),
        ((0,), (), ((3, 2),)),
    ):
        yield FunctionRow(
            "functional.linear_general",
            f.linear_general,
            dense.linear_general,
            general_arguments(axis, out),
            shapes,
            {"axis": axis},
        )
    for equation, cases in EQUATIONS.items():
        for shape, *rest in cases:
            yield FunctionRow(
                "functional.einsum",
                partial(f.einsum, equation),
                partial(dense.einsum, equation),
                shapes_of_arguments(*rest),
                (shape,),
                variant=equation,
            )
    for bias in ((2, 5), None):
        yield FunctionRow(
            "functional.maxout",
            f.maxout,
            dense.maxout,
            shapes_of_arguments((3, 2, 5), bias),
            ((3,), (2, 2, 3)) if bias else ((4, 3),),
            variant="" if bias else "without_bias",
        )
    for shape in ((2, -1), (3, 4, 1)):
        yield FunctionRow(
            "functional.reshape",
            f.reshape,
            dense.reshape,
            normal,
            ((3, 2, 6),),
            {"shape": shape},
        )


def function_rows():
    """With and without a bias."""
    f = nn.functional
    for use_bias in (True, False):
        draw = linear_arguments(use_bias)
        variant = "" if use_bias else "without_bias"
        yield FunctionRow("functional.linear", f.linear, dense.linear, draw, variant=variant)
    yield FunctionRow("functional.flatten", f.flatten, composed.flatten, normal)


def general(axis):
    """The reference of `dense_general`."""
    reference = partial(dense.linear_general, axis=axis)
    return composed.of_function(reference, "kernel", "bias")


def in_letters(equation):
    """The reference of `einsum`."""
    return composed.of_function(partial(dense.einsum, equation), "kernel", "bias")


LAYERS = (
    LayerRow("dense", "dense(5)", lambda: nn.dense(5), ((4, 3), (3,), (2, 4, 3)), composed.linear),
    LayerRow(
        "dense_without_bias",
        "dense(5, use_bias=False)",
        lambda: nn.dense(5, use_bias=False),
        reference=composed.linear,
    ),
    LayerRow(
        "flatten",
        "flatten()",
        nn.flatten,
        ((2, 5, 4), (3,), (4, 6)),
        composed.of_function(composed.flatten),
    ),
    LayerRow(
        "dense_general",
        "dense_general((2, 3), axis=(0, -1))",
        lambda: nn.dense_general((2, 3), axis=(0, -1)),
        ((2, 4, 3), (2, 3)),
        general(axis=(0, -1)),
        has_examples=False,
    ),
    LayerRow(
        "dense_general_without_bias",
        "dense_general(5, axis=(-2, -1), use_bias=False)",
        lambda: nn.dense_general(5, (-2, -1), use_bias=False),
        ((4, 2, 3),),
        general(axis=(-2, -1)),
    ),
    LayerRow(
        "einsum",
        "einsum('btd,dhk->bhtk', sizes={'h': 2, 'k': 3})",
        lambda: nn.einsum("btd,dhk->bhtk", {"h": 2, "k": 3}),
        ((2, 3, 4),),
        in_letters("btd,dhk->bhtk"),
    ),
    LayerRow(
        "einsum_shared",
        "einsum('...nd,ndf->...nf', sizes={'f': 2}, use_bias=False)",
        lambda: nn.einsum("...nd,ndf->...nf", {"f": 2}, use_bias=False),
        ((2, 3, 4),),
        in_letters("...nd,ndf->...nf"),
    ),
    LayerRow(
        "maxout",
        "maxout(5, 3)",
        lambda: nn.maxout(5, 3),
        ((4, 3), (3,)),
        composed.of_function(dense.maxout, "kernel", "bias"),
    ),
    LayerRow(
        "reshape",
        "reshape((2, -1, 1))",
        lambda: nn.reshape((2, -1, 1)),
        ((3, 4), (2, 3, 2)),
        composed.of_function(partial(dense.reshape, shape=(2, -1, 1))),
    ),
    LayerRow(
        "mlp",
        "mlp([5, 2], activation=tanh)",
        lambda: nn.mlp([5, 2], activation=nn.tanh),
        reference=composed.serial(
            dense_0=composed.linear, activation_0=composed.tanh, dense_1=composed.linear
        ),
    ),
    LayerRow(
        "mlp_random",
        "mlp((5, 4), activate_final=True, dropout_rate=0.5, use_bias=False)",
        lambda: nn.mlp((5, 4), activate_final=True, dropout_rate=0.5, use_bias=False),
        is_random=True,
    ),
    LayerRow(
        "feed_forward",
        "feed_forward(4)",
        lambda: nn.feed_forward(4),
        ((4, 3), (2, 5, 2)),
        reference=composed.serial(
            hidden=composed.linear,
            activation=composed.of_function(activations.gelu),
            out=composed.linear,
        ),
    ),
    LayerRow(
        "squeeze_excite",
        "squeeze_excite(2)",
        lambda: nn.squeeze_excite(2),
        ((3, 2, 2, 4), (3, 5)),
        squeeze_excite,
    ),
    LayerRow(
        "feed_forward_gated",
        "feed_forward(8, activation=swiglu, use_bias=False)",
        lambda: nn.feed_forward(8, nn.swiglu, use_bias=False),
        reference=composed.serial(
            hidden=composed.linear,
            activation=composed.of_function(further_activations.swiglu),
            out=composed.linear,
        ),
    ),
    LayerRow(
        "feed_forward_random",
        "feed_forward(8, activation=tanh, dropout_rate=0.5)",
        lambda: nn.feed_forward(8, nn.tanh, dropout_rate=0.5),
        is_random=True,
    ),
)

FUNCTIONS = (*function_rows(), *further_rows())
