"""References of layers, combinators and masks, put together from those of `numpy_reference`.

The reference of a layer has the signature of its `apply`, keywords required, and returns
`(y, backward)`, where `backward(dy)` gives `(dparams, dx)`.
"""

from functools import partial

import jax
import numpy as np

import jaxnn as nn
from jaxnn._core.layer import child_key
from tests.numpy_reference import activations, dense, dropout, normalization


def of_function(reference, *leaves):
    """A layer whose function takes x and then these leaves of its params."""

    def apply(params, state, x, *, key, train):
        y, backward = reference(x, *(params.get(leaf) for leaf in leaves))

        def pullback(dy):
            dx, *gradients = backward(dy)
            named = dict(zip(leaves, gradients, strict=True))
            return {leaf: g for leaf, g in named.items() if g is not None}, dx

        return y, pullback

    return apply


linear = of_function(dense.linear, "kernel", "bias")
tanh = of_function(activations.tanh)


def flatten(x):
    """A new shape, and the old one back for the gradient."""
    return x.reshape(x.shape[0], -1), lambda dy: (dy.reshape(x.shape),)


def layer_norm(axis):
    """Layer norm over `axis`."""
    return of_function(partial(normalization.layer_norm, axis=axis), "scale", "bias")


def batch_norm(axis, training=normalization.batch_norm_training):
    """Batch norm: by the statistics of the batch in training, by the state's in evaluation."""

    def apply(params, state, x, *, key, train):
        def evaluation(x, scale, bias):
            mean, var = state["mean"], state["var"]
            y, backward = normalization.batch_norm(x, mean, var, scale, bias, axis=axis)

            def without_statistics(dy):
                dx, _, _, dscale, dbias = backward(dy)
                return dx, dscale, dbias

            return y, without_statistics

        training_on_axis = partial(training, axis=axis)
        layer = of_function(training_on_axis if train else evaluation, "scale", "bias")
        return layer(params, state, x, key=key, train=train)

    return apply


def dropout_layer(rate):
    """Dropout with the mask that the layer itself draws, seen through an input of ones."""

    def apply(params, state, x, *, key, train):
        ones, _ = nn.dropout(rate).apply({}, {}, np.ones_like(x), key=key, train=train)
        y, backward = dropout.dropout(x, np.asarray(ones) != 0, rate if train else 0.0)
        return y, lambda dy: ({}, backward(dy)[0])

    return apply


# Combinators: the chain rule once more


def _by_name(params):
    return params if isinstance(params, dict) else {str(i): p for i, p in enumerate(params)}


def _as_given(params, gradients):
    named = {name: gradients[name] for name in _by_name(params)}
    return named if isinstance(params, dict) else tuple(named.values())


def serial(**children):
    """dx flows through the children in reverse."""

    def apply(params, state, x, *, key, train):
        pullbacks = {}
        for name, child in children.items():
            x, pullbacks[name] = child(
                _by_name(params)[name],
                state.get(name, {}),
                x,
                key=child_key(key, name),
                train=train,
            )

        def backward(dy):
            gradients = {}
            for name in reversed(children):
                gradients[name], dy = pullbacks[name](dy)
            return _as_given(params, gradients), dy

        return x, backward

    return apply


def frozen(child):
    """The child in evaluation, whose parameters are state and have no gradient."""

    def apply(params, state, x, *, key, train):
        own = state["params"], state.get("state", {})
        y, backward = child(*own, x, key=key, train=False)
        return y, lambda dy: ({}, backward(dy)[1])

    return apply


def parallel(**children):
    """Each child's dx is added to one sum."""

    def apply(params, state, x, *, key, train):
        both = {
            name: child(
                _by_name(params)[name],
                state.get(name, {}),
                x,
                key=child_key(key, name),
                train=train,
            )
            for name, child in children.items()
        }

        def backward(dys):
            pulled = {name: both[name][1](dy) for name, dy in _by_name(dys).items()}
            gradients = {name: dparams for name, (dparams, _) in pulled.items()}
            return _as_given(params, gradients), sum(dx for _, dx in pulled.values())

        return _as_given(params, {name: y for name, (y, _) in both.items()}), backward

    return apply


def residual(layer, shortcut=None):
    """y = shortcut(x) + layer(x): both get dy."""
    children = {"layer": layer} | ({} if shortcut is None else {"shortcut": shortcut})

    def apply(params, state, x, *, key, train):
        ys, pull = parallel(**children)(params, state, x, key=key, train=train)

        def backward(dy):
            dparams, dx = pull(dict.fromkeys(children, dy))
            return dparams, dx + dy if shortcut is None else dx

        return sum(ys.values()) + (x if shortcut is None else 0.0), backward

    return apply


def copy(tree, i):
    """Copy i of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def stacked(trees):
    """One tree with a leading axis of many."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def stack(depth, layer):
    """A loop over the layers, and the chain rule back through it."""

    def apply(params, state, x, *, key, train):
        pullbacks = []
        for i in range(depth):
            own_key = jax.random.fold_in(key, i)
            x, pull = layer(copy(params, i), copy(state, i), x, key=own_key, train=train)
            pullbacks.append(pull)

        def backward(dy):
            gradients = []
            for pull in reversed(pullbacks):
                dparams, dy = pull(dy)
                gradients.insert(0, dparams)
            return stacked(gradients), dy

        return x, backward

    return apply


def ensemble(members, layer):
    """Each member by itself; their dx add up."""

    def apply(params, state, x, *, key, train):
        both = [
            layer(copy(params, i), copy(state, i), x, key=jax.random.fold_in(key, i), train=train)
            for i in range(members)
        ]

        def backward(dy):
            pulled = [pull(dy[i]) for i, (_, pull) in enumerate(both)]
            return stacked([dparams for dparams, _ in pulled]), sum(dx for _, dx in pulled)

        return np.stack([y for y, _ in both]), backward

    return apply


def twice(params, state, x, *, key, train):
    """y = linear(tanh(linear(x))) with one kernel and bias, whose gradients add up."""
    shared = params["shared"]
    chain = serial(first=linear, tanh=tanh, second=linear)
    y, pull = chain({"first": shared, "tanh": {}, "second": shared}, {}, x, key=key, train=train)

    def backward(dy):
        gradients, dx = pull(dy)
        first, second = gradients["first"], gradients["second"]
        return {"shared": {leaf: first[leaf] + second[leaf] for leaf in shared}}, dx

    return y, backward


# Masks


def result_mask(reference):
    """A loss with booleans of the shape of its result as last argument: 0 where False."""

    def masked(*arguments, **options):
        *rest, where = arguments
        y, backward = reference(*rest, **options)
        return np.where(where, y, 0), lambda dy: (*backward(np.where(where, dy, 0)), None)

    return masked


def class_mask(reference):
    """Cross-entropy with a mask: each example by itself, over the classes that take part."""

    def masked(logits, labels, where, **options):
        classes = logits.shape[-1]
        given = labels.dtype.kind == "f"
        distributions = labels if given else np.eye(classes)[labels]
        y = np.zeros(logits.shape[:-1])
        backwards = {}
        for i in np.ndindex(y.shape):
            if where[i].any():
                chosen = logits[i][where[i]], distributions[i][where[i]]
                y[i], backwards[i] = reference(*chosen, **options)

        def backward(dy):
            dlogits, dlabels = np.zeros(logits.shape), np.zeros(logits.shape)
            for i, example in backwards.items():
                dlogits[i][where[i]], dlabels[i][where[i]] = example(dy[i])
            return dlogits, dlabels if given else None, None

        return y, backward

    return masked
