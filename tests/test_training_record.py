"""What the history shows of the optimizer: learning rate, gradient norm, update norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.layer import child_key
from jaxnn.optimizers._rates import learning_rates
from tests.compiling import fast_jit
from tests.optimizer_wrapper_cases import usual_promotion
from tests.parameters import quick_first

O = nn.optimizers  # noqa: E741
ALL = ("learning_rate", "gradient_norm", "update_norm")

HALVING = nn.schedules.exponential_decay(0.8, 1, 0.5)


# The learning rate of each kind of optimizer

PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
OPTAX = {"inject_hyperparams", "multi_transform", "plain", "chained"}


def of_optax(name):
    optax = pytest.importorskip("optax")
    return {
        "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(HALVING),
        "multi_transform": lambda: optax.multi_transform(
            {
                "a": optax.inject_hyperparams(optax.sgd)(0.1),
                "b": optax.inject_hyperparams(optax.sgd)(0.2),
            },
            {"kernel": "a", "bias": "b"},
        ),
        "plain": lambda: optax.adam(0.1),
        "chained": lambda: O.chain(optax.clip(1.0), O.sgd(0.3)),
    }[name]()


def after_half(library):
    return library.chain(library.sgd(0.4), library.reduce_on_plateau(0.5, patience=1))


# Each row: an optimizer, and its learning rates in three steps.
RATES = {
    "number": (lambda: O.sgd(0.1), [0.1] * 3),
    "array": (lambda: O.adamw(jnp.float32(0.1), weight_decay=0.1), [0.1] * 3),
    "schedule": (lambda: O.rmsprop(HALVING, momentum=0.9), [0.8, 0.4, 0.2]),
    "chain": (lambda: O.chain(O.clip(1.0), O.adam(HALVING)), [0.8, 0.4, 0.2]),
    "plateau": (lambda: after_half(O), [0.4, 0.2, 0.1]),
    "masked": (lambda: O.masked(O.sgd(HALVING), "kernel"), [0.8, 0.4, 0.2]),
    "accumulate": (lambda: O.accumulate(O.sgd(HALVING), 2), [0.8, 0.8, 0.4]),
    "apply_if_finite": (lambda: O.apply_if_finite(O.sgd(HALVING), 2), [0.8, 0.4, 0.2]),
    "lookahead": (lambda: O.lookahead(O.sgd(HALVING), 2, 0.5), [0.8, 0.4, 0.2]),
    "params_ema": (lambda: O.params_ema(O.sgd(HALVING)), [0.8, 0.4, 0.2]),
    "schedule_free": (lambda: O.schedule_free_sgd(0.4, warmup_steps=4), [0.0, 0.1, 0.2]),
    "sam": (lambda: O.sam(O.sgd(HALVING)), [0.8, 0.4, 0.2]),
    "inject_hyperparams": (lambda: O.inject_hyperparams(O.adam)(HALVING), [0.8, 0.4, 0.2]),
    "partition-frozen": (lambda: O.partition({"k*": O.sgd(HALVING), "*": O.freeze()}), [0.8, 0.4]),
    "optax-inject_hyperparams": (lambda: of_optax("inject_hyperparams"), [0.8, 0.4, 0.2]),
    "optax-chained": (lambda: of_optax("chained"), [0.3] * 3),
}


def watched(optimizer, steps=3):
    """The learning rates of some steps, by group."""
    params, state, seen = PARAMS, optimizer.init(PARAMS), []
    for _ in range(steps):
        before = state
        extra = {"value": 1.0, "value_fn": lambda p: jnp.sum(p["kernel"]) + jnp.sum(p["bias"])}
        update = O.chain(optimizer).update
        with usual_promotion():
            updates, (state,) = update(PARAMS, (before,), params, **extra)
        params = O.apply_updates(params, updates)
        seen.append(learning_rates(optimizer, before, state))
    return seen


@quick_first(6)
@pytest.mark.parametrize(("make", "expected"), RATES.values(), ids=RATES)
def test_the_learning_rate_is_known(make, expected):
    seen = watched(make(), len(expected))
    np.testing.assert_allclose([rates[""] for rates in seen], expected, rtol=1e-6)
    assert all(set(rates) == {""} for rates in seen)


def test_each_part_of_a_partition_has_its_rate():
    optimizer = O.chain(
        O.partition({"k*": O.sgd(0.4), "*": O.adam(HALVING)}), O.reduce_on_plateau(0.5, 1)
    )
    first, second = watched(optimizer, 2)
    assert set(first) == {"k*", "*"}
    np.testing.assert_allclose([first["k*"], second["k*"]], [0.4, 0.2])
    np.testing.assert_allclose([first["*"], second["*"]], [0.8, 0.2])
    nested = O.partition({"k*": O.partition({"ke*": O.sgd(0.1)}), "*": O.sgd(0.2)})
    assert set(watched(nested, 1)[0]) == {"k*", "*"}


@pytest.mark.parametrize("make", [lambda: of_optax("plain"), lambda: of_optax("multi_transform")])
def test_an_unknown_learning_rate_is_refused_where_it_is_asked_for(make):
    optimizer = make()
    assert watched(optimizer, 1) == [{}]
    step = nn.train_step(lambda p, s, b, k: (jnp.sum(p["bias"]), (s, {})), optimizer, record=ALL)
    start = nn.train_state(PARAMS, {}, optimizer, jax.random.key(0))
    with usual_promotion(), pytest.raises(ValueError, match=r"record: .*inject_hyperparams"):
        jax.eval_shape(step, start, None)


# In training

MODEL = nn.dense(1)
X = jnp.asarray(np.random.default_rng(0).standard_normal((10, 3)), jnp.float32)
DATA = (X, X[:, :1] - 2 * X[:, 1:2])


def by_hand(optimizer, epochs, batch_size):
    """What there is to see at each step: by `train_step` and by own arithmetic."""

    def loss_fn(params, state, batch, key):
        x, y = batch
        return jnp.mean((MODEL.apply(params, {}, x)[0] - y) ** 2), (state, {})

    params, _ = MODEL.init(child_key(jax.random.key(0), "init"), X[:1])
    now = nn.train_state(params, {}, optimizer, jax.random.key(0))
    step = nn.train_step(loss_fn, optimizer, record=ALL)

    @fast_jit
    def watched_step(now, batch):
        following, metrics = step(now, batch)
        grads = jax.grad(lambda p: loss_fn(p, {}, batch, None)[0])(now.params)
        moves = jax.tree.map(jnp.subtract, following.params, now.params)
        return following, metrics, O.global_norm(grads), O.global_norm(moves)

    rows = []
    for _ in range(epochs):
        for i in range(0, len(X), batch_size):
            batch = jax.tree.map(lambda leaf, i=i: leaf[i : i + batch_size], DATA)
            now, metrics, gradient_norm, update_norm = watched_step(now, batch)
            assert set(metrics) == {"loss", *ALL}
            np.testing.assert_allclose(metrics["gradient_norm"], gradient_norm, rtol=1e-5)
            np.testing.assert_allclose(metrics["update_norm"], update_norm, rtol=1e-4)
            rows.append({name: float(metrics[name]) for name in ALL})
    return rows


OPTIMIZER = O.chain(O.clip_by_global_norm(0.5), O.adam(HALVING))
train = functools.partial(
    nn.training_run,
    MODEL,
    loss=nn.losses.squared_error,
    optimizer=OPTIMIZER,
    epochs=2,
    batch_size=4,
    shuffle=False,
)


def test_the_history_has_the_mean_of_each_over_the_steps_of_an_epoch():
    rows = by_hand(OPTIMIZER, 2, 4)  # of 4, 4 and 2 examples
    expected = {name: np.mean(np.reshape([r[name] for r in rows], (2, 3)), 1) for name in ALL}
    assert expected["gradient_norm"][0] > 0.5  # before clipping

    _, _, history = fast_jit(train(record=ALL))(jax.random.key(0), DATA)
    seen = []
    result = nn.fit(
        *(MODEL, DATA),
        loss=nn.losses.squared_error,
        optimizer=OPTIMIZER,
        key=jax.random.key(0),
        epochs=2,
        batch_size=4,
        shuffle=False,
        record=ALL,
        callbacks=[lambda event: seen.append(event.metrics)],
        progress=False,
    )
    for name in ALL:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-5)
        np.testing.assert_allclose(result.history[name], expected[name], rtol=1e-5)
        np.testing.assert_allclose([row[name] for row in seen], expected[name], rtol=1e-5)
    np.testing.assert_allclose(history["learning_rate"][0], np.mean([0.8, 0.4, 0.2]), rtol=1e-6)


def test_nothing_is_watched_unless_asked_for():
    def history_of(**kwargs):
        return jax.eval_shape(train(**kwargs), jax.random.key(0), DATA)[2]

    assert set(history_of()) == {"loss"}
    assert set(history_of(record=["update_norm"])) == {"loss", "update_norm"}
    groups = O.partition({"kernel": O.sgd(0.1), "*": O.sgd(0.2)})
    assert set(history_of(optimizer=groups, record=ALL[:1])) == {
        *("loss", "learning_rate/kernel", "learning_rate/*")
    }


def test_what_is_not_watched_costs_nothing():
    optimizer = O.sgd(0.1)
    start = nn.train_state(jnp.ones(2), {}, optimizer, jax.random.key(0))

    def operations(**kwargs):
        step = nn.train_step(lambda p, s, b, k: (jnp.sum(p**2), (s, {})), optimizer, **kwargs)
        return str(jax.make_jaxpr(step)(start, None))

    assert "sqrt" not in operations()
    assert "sqrt" in operations(record=["gradient_norm"])


def test_a_sweep_shows_the_rate_of_each_run():
    swept = train(optimizer=O.sgd, record=("learning_rate",))
    rates = jnp.array([0.1, 0.2])
    _, _, history = fast_jit(jax.vmap(swept, (None, None, 0)))(jax.random.key(0), DATA, rates)
    np.testing.assert_allclose(history["learning_rate"], [[0.1, 0.1], [0.2, 0.2]], rtol=1e-6)


def fit_with(**kwargs):
    nn.fit(
        *(MODEL, DATA),
        loss=nn.losses.squared_error,
        optimizer=O.sgd(0.1),
        key=jax.random.key(0),
        epochs=1,
        **kwargs,
    )


@pytest.mark.parametrize("record", [["loss"], ("gradient_norm", "lr")])
@pytest.mark.parametrize(
    "function",
    [
        lambda record: nn.train_step(lambda *_: None, O.sgd(0.1), record=record),
        lambda record: train(record=record),
        lambda record: fit_with(record=record),
    ],
    ids=["train_step", "training_run", "fit"],
)
def test_unknown_names_are_refused(function, record):
    with pytest.raises(ValueError, match=r": record is .*, expected a sequence of names among"):
        function(record)


def test_metrics_of_the_same_name_are_refused():
    with pytest.raises(ValueError, match="'update_norm', expected another"):
        fit_with(metrics={"update_norm": nn.metrics.mean()})
