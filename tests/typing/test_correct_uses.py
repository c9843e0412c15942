"""Uses of jaxnn that mypy and pyright, both strict, must accept; and that work."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn.typing import (
    Activation,
    LayerLike,
    OptimizerLike,
    Padding,
    PyTree,
    ScalarOrSchedule,
    Schedule,
)

Params = dict[str, jax.Array]
KEY = jax.random.key(0)
X = jnp.linspace(-1, 1, 12).reshape(4, 3)


@pytest.fixture(autouse=True)
def promotion() -> Iterator[None]:
    """Dtypes and ranks are promoted, as users have it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# Layers and cells by hand


def scale_init(key: jax.Array, x: jax.Array) -> tuple[Params, Params]:
    return {"scale": jnp.ones(x.shape[-1])}, {}


def scale_apply(
    params: Params,
    state: Params,
    x: jax.Array,
    *,
    key: jax.Array | None = None,
    train: bool = False,
    shift: float = 0.0,
) -> tuple[jax.Array, Params]:
    return x * params["scale"] + shift, state


def test_layers_by_hand() -> None:
    layer = nn.Layer(scale_init, scale_apply)
    params, state = layer.init(KEY, X)
    y, state = layer.apply(params, state, X, train=True, shift=1.0)
    assert y.shape == (4, 3)
    shifted = layer._replace(  # pyright: ignore[reportPrivateUsage]
        apply=functools.partial(scale_apply, shift=2.0)
    )
    init, apply = shifted
    assert apply(*init(KEY, X), X)[0][0, 0] == 1.0
    identity = nn.Layer(
        init=lambda key, x: ({}, {}),
        apply=lambda params, state, x, key=None, train=False: (x, state),
    )
    assert identity.apply({}, {}, X)[0] is X
    plain = nn.pure(lambda key, x: {}, lambda params, x, key=None: x)
    assert nn.stateless(plain)({}, X, train=True) is X


def test_a_cell_by_hand() -> None:
    def step(
        params: Params,
        carry: jax.Array,
        x_t: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        return carry + x_t, carry + x_t

    cell = nn.Cell(
        init=lambda key, x_t: {},
        initial_carry=lambda params, batch_shape, dtype: jnp.zeros((*batch_shape, 3), dtype),
        step=step,
    )
    carry = cell.initial_carry({}, (2,), jnp.float32)
    carry, _ = cell.step({}, carry, jnp.ones((2, 3)), train=True)
    model = nn.recurrent(cell)
    assert model.apply(*model.init(KEY, X[None]), X[None])[0].shape == (1, 4, 3)


# Functions where a layer is expected


class Pair(NamedTuple):
    left: jax.Array
    right: jax.Array


def both(x: jax.Array) -> Pair:
    return Pair(x, x)


def product(pair: Pair) -> jax.Array:
    return pair.left * pair.right


def power(x: jax.Array, exponent: float = 1.0) -> jax.Array:
    return x**exponent


def test_functions_as_layers() -> None:
    model = nn.serial(
        nn.dense(4),
        nn.relu,
        jnp.tanh,
        jax.jit(jnp.sin),
        lambda x: x + 1,
        both,
        product,
        lambda x: (x, x),
        lambda xs: {"sum": xs[0] + xs[1]},
        lambda named: named["sum"],
        functools.partial(power, exponent=2.0),
        nn.serial(hidden=nn.dense(3), activation=nn.silu, out=nn.residual(jnp.square)),
    )
    assert model.apply(*model.init(KEY, X), X)[0].shape == (4, 3)


def block(
    layer: LayerLike, activation: Activation = nn.relu, padding: Padding = "SAME"
) -> nn.Layer:
    conv = nn.conv(2, (3, 3), padding=padding)
    return nn.serial(conv, activation, nn.residual(layer, shortcut=nn.dense(2)))


@pytest.mark.slow
def test_layers_of_layers() -> None:
    images = jnp.ones((2, 5, 5, 1))
    for padding in ("VALID", 1, [(0, 1), (1, 0)]):
        block(nn.dense(2), nn.gelu, padding).init(KEY, images)
    model = nn.compose(
        lambda f, x: f.out(nn.relu(f.hidden(x)) + x), hidden=nn.dense(3), out=nn.dense(1)
    )
    for layer in (nn.remat(model), nn.mixed_precision(model), nn.stack(nn.dense(3), 2)):
        layer.init(KEY, X)


# Transformations


def test_transformations_of_a_layer() -> None:
    model = nn.serial(nn.dense(4), nn.relu, nn.dense(1))
    params, state = jax.jit(model.init)(KEY, X)
    keys = jax.random.split(KEY, 2)
    many, _ = jax.vmap(model.init, in_axes=(0, None))(keys, X)
    assert jax.tree.leaves(many)[0].shape[0] == 2
    shapes = jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((4, 3), jnp.float32))
    assert jax.tree.leaves(shapes)[0].dtype == jnp.float32
    predict = nn.stateless(model)

    def loss(params: PyTree) -> jax.Array:
        return jnp.mean(predict(params, X) ** 2)

    gradient = jax.jit(jax.grad(loss))(params)
    y, _ = jax.jit(model.apply, static_argnames="train")(params, state, X, train=True)
    assert len(jax.tree.leaves(gradient)) == 4
    assert y.shape == (4, 1)


# Optimizers


def test_optimizers_of_optax_and_by_hand() -> None:
    def update(
        grads: PyTree, opt_state: tuple[()], params: PyTree = None
    ) -> tuple[PyTree, tuple[()]]:
        return jax.tree.map(jnp.negative, grads), opt_state

    by_hand = nn.optimizers.Optimizer(init=lambda params: (), update=update)
    with_lambdas = nn.optimizers.Optimizer(
        init=lambda params: (),
        update=lambda grads, opt_state, params=None, **extra: (grads, opt_state),
    )
    optimizers: list[OptimizerLike] = [
        by_hand,
        with_lambdas,
        optax.adam(1e-3),
        nn.optimizers.adam(1e-3),
        nn.optimizers.chain(nn.optimizers.clip(1.0), optax.sgd(0.1)),
        nn.optimizers.partition({"*": optax.sgd(0.1)}),
    ]
    params = {"w": jnp.ones(2)}
    for optimizer in optimizers:
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        assert nn.optimizers.apply_updates(params, updates)["w"].shape == (2,)
    nn.optimizers.adam(1e-3).update(params, nn.optimizers.adam(1e-3).init(params), value=1.0)


def test_schedules_as_learning_rates() -> None:
    def mine(count: jax.Array) -> jax.Array:
        return 0.1 / (1 + count)

    cosine: Schedule = nn.schedules.cosine_decay_schedule(0.1, 100)
    joined = nn.schedules.join_schedules([cosine, mine, lambda count: 0.1], [10, 20])
    rates: list[ScalarOrSchedule] = [0.1, jnp.float32(0.1), np.float32(0.1), cosine, joined, mine]
    rates += [optax.constant_schedule(0.1), lambda count: 0.1]
    for rate in rates:
        assert nn.optimizers.sgd(rate).init({"w": jnp.ones(2)})
    assert float(joined(3)) > 0


# Losses, metrics, training


def test_metrics_by_hand() -> None:
    def update(
        count: jax.Array,
        predictions: jax.Array,
        targets: jax.Array | None = None,
        weights: jax.Array | None = None,
    ) -> jax.Array:
        return count + len(predictions)

    count = nn.metrics.Metric(
        init=lambda: jnp.zeros(()), update=update, compute=lambda count: count
    )
    assert count.compute(count.update(count.init(), X, weights=jnp.ones(4))) == 4
    assert nn.metrics.mean(nn.losses.absolute_error).init()


@pytest.mark.slow  # mypy and pyright read it always
def test_training(tmp_path: Path) -> None:
    model = nn.serial(nn.dense(4), nn.tanh, nn.dense(3))
    result = nn.fit(
        model,
        (X, X),
        loss=functools.partial(nn.losses.huber_loss, delta=2.0),
        optimizer=optax.adam(1e-2),
        key=KEY,
        epochs=1,
        batch_size=2,
        validation=(X, X),
        metrics={"error": nn.metrics.mean_absolute_error()},
        regularizer=nn.regularizers.l2(1e-4, where="*/kernel"),
        callbacks=[nn.callbacks.csv_log(tmp_path / "log.csv"), lambda event: event.epoch > 5],
        progress=False,
    )
    assert result.history["loss"].shape == (1,)
    nn.fit(
        lambda h: nn.serial(nn.dropout(h["rate"]), nn.dense(3)),
        (X, X),
        loss=nn.losses.squared_error,
        optimizer=lambda h: nn.optimizers.sgd(h["learning_rate"]),
        hyperparams={"learning_rate": 1e-3, "rate": jnp.float32(0.1)},
        key=KEY,
        epochs=1,
        progress=False,
    )
    nn.save(tmp_path / "params.safetensors", result.params)
    params = nn.load(tmp_path / "params.safetensors", result.params)
    assert nn.predict(model, params, result.state, X).shape == (4, 3)
    scores = nn.evaluate(model, params, result.state, (X, X), loss=nn.losses.squared_error)
    assert float(scores["loss"]) > 0
    train = nn.training_run(
        model,
        loss=lambda predictions, y: (predictions - y) ** 2,
        optimizer=lambda rate: nn.optimizers.sgd(rate),
        epochs=1,
    )
    _, _, history = jax.jit(train)(KEY, (X, X), 0.1)
    assert history["loss"].shape == (1,)
    swept = nn.sweep(
        nn.training_run(
            model,
            loss=nn.losses.squared_error,
            optimizer=lambda given: nn.optimizers.sgd(given["rate"]),
            epochs=1,
        ),
        KEY,
        {"rate": nn.log_uniform(1e-3, 1e-1)},
        (X, X),
        samples=2,
        progress=False,
    )
    assert swept.best("loss", mode="min", epoch="best") in (0, 1)


def test_a_loop_of_ones_own() -> None:
    def loss_fn(
        params: Params, state: Params, batch: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[Params, dict[str, jax.Array]]]:
        error = jnp.mean((params["w"] - batch) ** 2)
        return error, (state, {"error": error})

    optimizer = nn.optimizers.sgd(0.1)
    step = jax.jit(nn.train_step(loss_fn, optimizer))
    now = nn.train_state({"w": jnp.zeros(3)}, {}, optimizer, KEY)
    now, metrics = step(now, X)
    assert metrics["error"] == metrics["loss"]
