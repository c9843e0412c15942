"""Predictions averaged over members, augmentations and noise, and how far they are apart."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, check_key, widen
from jaxnn._core.layer import Layer, LayerLike, as_layer
from jaxnn._core.programs import compiled
from jaxnn._core.types import Arrays, Data, PyTree
from jaxnn._training.data.arrays import example_of
from jaxnn._training.evaluation import axes_of_examples, evaluated_output, in_batches, inputs

Output = Callable[[Any], PyTree]


@checked
def predict_with_spread(
    model: LayerLike,
    params: Arrays,
    state: Arrays,
    x: Data,
    *,
    batch_size: int | None = None,
    output: Callable[[Any], PyTree] | None = None,
) -> tuple[PyTree, PyTree]:
    """What the members of an ensemble predict on the average, and how far they are apart.

    `mean_i f_i(x)` and `sqrt(mean_i (f_i(x) - mean)^2)` over the members `f_i`.

    Paper: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using
    Deep Ensembles, https://arxiv.org/abs/1612.01474

    Args:
        model: what `nn.ensemble` returns, or any layer whose output has an axis for members before
            that of the examples.
        params: its parameters, as `fit` with `members` returns them.
        state: its state.
        x: an array, or pytree of arrays, with the examples along axis 0.
        batch_size: how many examples at a time; None for all at once.
        output: what to average, a function of a member's output: `jax.nn.softmax` for the
            probabilities of classes. None for the output itself.

    Returns:
        `(mean, spread)`, each with the shape of one member's outputs.

    Raises:
        ValueError: `model` is no ensemble; the leaves of `x` have different lengths.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(nn.dense(16), nn.tanh, nn.dense(1))
        >>> x = jnp.linspace(-1, 1, 8)[:, None]
        >>> result = nn.fit(model, (x, x ** 2), members=5, loss=nn.losses.squared_error,
        ...                 optimizer=nn.optimizers.adam(1e-2), key=jax.random.key(0), epochs=300)
        >>> mean, spread = nn.predict_with_spread(
        ...     nn.ensemble(model, 5), result.params, result.state, jnp.array([[0.5], [3.0]]))
        >>> bool(spread[1, 0] > 5 * spread[0, 0])         # they disagree where nothing was seen
        True
    """
    model = as_layer(model, "predict_with_spread: model")
    x, size = inputs("predict_with_spread", x, batch_size)
    axes = axes_of_examples(partial(evaluated_output, model, params, state), example_of(x))
    if any(axis != 1 for axis in jax.tree.leaves(axes)):
        raise ValueError(
            f"predict_with_spread: model is {model!r}, expected nn.ensemble(layer, members)"
        )
    return compiled(_of_members, model, output, size)(params, state, x)  # type: ignore[no-any-return]


@checked
def predict_averaged(
    model: LayerLike,
    params: Arrays,
    state: Arrays,
    x: Arrays,
    *,
    key: jax.Array,
    samples: int,
    augment: Callable[[jax.Array, Any], Any] | None = None,
    train: bool = False,
    batch_size: int | None = None,
    output: Output | None = None,
) -> tuple[PyTree, PyTree]:
    """Test-time averaging: the mean prediction over augmentations or dropout, and the spread.

    `mean_i f(augment_i(x))` and `sqrt(mean_i (f(augment_i(x)) - mean)^2)` over the samples, or with
    `train` of the model with another noise for each.

    Paper: Gal and Ghahramani, Dropout as a Bayesian Approximation,
    https://arxiv.org/abs/1506.02142

    Args:
        model: a `Layer`, or a plain function of arrays.
        params: its parameters.
        state: its state, `{}` for none.
        x: an array, or pytree of arrays, with the examples along axis 0.
        key: a typed PRNG key.
        samples: how many predictions are averaged, at least 1.
        augment: `augment(key, x) -> x` of a batch, of the same shapes; None for `x` as it is.
        train: whether the model runs in training mode, with dropout (Monte Carlo dropout). Batch
            normalisation then takes the statistics of the batch.
        batch_size: how many examples at a time; None for all at once.
        output: what to average, a function of an output: `jax.nn.softmax` for the probabilities of
            classes. None for the output itself.

    Returns:
        `(mean, spread)`, each with the shape of the model's outputs.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: `samples` is less than 1; neither `augment` nor `train` makes samples differ;
            the leaves of `x` have different lengths.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(nn.dense(8), nn.dropout(0.5), nn.dense(1))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> mean, spread = nn.predict_averaged(
        ...     model, params, state, jnp.ones((5, 3)), key=jax.random.key(1), samples=20,
        ...     train=True)
        >>> mean.shape, bool((spread > 0).all())
        ((5, 1), True)
    """
    model = as_layer(model, "predict_averaged: model")
    check_key("predict_averaged", key)
    check_count("predict_averaged", "samples", samples)
    if augment is None and not train:
        raise ValueError(
            "predict_averaged: augment is None and train is False, expected one of them: all "
            "samples are the same"
        )
    x, size = inputs("predict_averaged", x, batch_size)
    predicted = compiled(_of_samples, model, output, size, samples, augment, train)
    return predicted(params, state, key, x)  # type: ignore[no-any-return]


def _of_members(
    model: Layer,
    output: Output | None,
    batch_size: int,
    params: PyTree,
    state: PyTree,
    x: PyTree,
) -> tuple[PyTree, PyTree]:
    def of_batch(x: PyTree) -> tuple[PyTree, PyTree]:
        return _mean_and_spread(output, evaluated_output(model, params, state, x))

    return in_batches(of_batch, x, batch_size)  # type: ignore[no-any-return]


def _of_samples(
    model: Layer,
    output: Output | None,
    batch_size: int,
    samples: int,
    augment: Callable[[jax.Array, Any], Any] | None,
    train: bool,
    params: PyTree,
    state: PyTree,
    key: jax.Array,
    x: PyTree,
) -> tuple[PyTree, PyTree]:
    def of_batch(batch: Any) -> tuple[PyTree, PyTree]:
        x, positions = batch

        def one(key: jax.Array) -> PyTree:
            augment_key, noise_key = jax.random.split(key)
            changed = x if augment is None else augment(augment_key, x)
            own_key = noise_key if train else None
            return model.apply(params, state, changed, key=own_key, train=train)[0]

        keys = jax.random.split(jax.random.fold_in(key, positions[0]), samples)
        return _mean_and_spread(output, lax.map(one, keys))

    positions = jnp.arange(len(jax.tree.leaves(x)[0]))
    return in_batches(of_batch, (x, positions), batch_size)  # type: ignore[no-any-return]


def _mean_and_spread(output: Output | None, y: PyTree) -> tuple[PyTree, PyTree]:
    """Those of predictions along a leading axis."""
    y = y if output is None else jax.vmap(output)(y)
    wide = jax.tree.map(widen, y)

    def averaged(function: Callable[..., jax.Array]) -> PyTree:
        return jax.tree.map(lambda w, leaf: function(w, axis=0).astype(leaf.dtype), wide, y)

    return averaged(jnp.mean), averaged(jnp.std)
