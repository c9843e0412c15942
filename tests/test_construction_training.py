"""Equal calls of the constructors of optimizers, schedules, metrics and penalties: equal objects.

Each public constructor is called with the least it needs, so that a new one is checked as well.
"""

import functools
import gc
import inspect
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.optimizers import inject_hyperparams

PARAMS = {
    "kernel": np.array([[1.0, -2.0], [0.5, 3.0]], "float32"),
    "bias": np.ones((1, 2), "float32"),
}


def value_fn(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def half(count):
    return 0.5


def whole_set_metric(predictions, targets, weights):
    return jnp.sum(predictions * weights)


# What a constructor needs, by the name of the argument; functions make what is an object itself.
NEEDED = {
    "b1": 0.9,
    "base_optimizer": lambda: nn.optimizers.sgd(0.5),
    "base_params": lambda: PARAMS,
    "boundaries": lambda: [10],
    "classes": 3,
    "clipping": 0.5,
    "cosine_kwargs": lambda: [
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 9}
    ],
    "decay": 0.5,
    "decay_rate": 0.5,
    "decay_steps": 100,
    "end_value": 0.5,
    "eta": 0.5,
    "every": 2,
    "fast_optimizer": lambda: nn.optimizers.sgd(0.5),
    "function": whole_set_metric,
    "gamma": 0.5,
    "init_value": 0.5,
    "inner": lambda: nn.optimizers.sgd(0.5),
    "interpolate_type": "linear",
    "k": 2,
    "key": lambda: jax.random.key(0),
    "l1_strength": 0.5,
    "l2_strength": 0.5,
    "learning_rate": 0.5,
    "mask": "kernel",
    "max_backtracking_steps": 5,
    "projection": lambda: nn.optimizers.projection_simplex,
    "max_consecutive_errors": 2,
    "max_delta": 0.5,
    "max_linesearch_steps": 5,
    "max_norm": 0.5,
    "optimizer": lambda: nn.optimizers.sgd(0.5),
    "peak_value": 0.5,
    "power": 0.5,
    "schedules": lambda: [nn.schedules.constant_schedule(0.5), nn.schedules.step_decay(0.5, 3)],
    "slow_step_size": 0.5,
    "stable_steps": 20,
    "step_size": 2,
    "step_size_fn": half,
    "strength": 0.5,
    "sync_period": 2,
    "threshold": 0.5,
    "transforms": lambda: {"kernel": nn.optimizers.adam(0.5), "*": nn.optimizers.freeze()},
    "transition_steps": 100,
    "value": 0.5,
    "value_fn": value_fn,
    "warmup_steps": 10,
    "weight_decay": 0.5,
}
BESIDES = {  # what a call needs that has a default
    "metrics.accuracy": {"threshold": 0.5},
    "metrics.confusion_matrix": {"classes": 3},
    "metrics.f1": {"threshold": 0.5},
    "metrics.iou": {"threshold": 0.5},
    "metrics.matthews_correlation": {"threshold": 0.5},
    "metrics.precision": {"threshold": 0.5},
    "metrics.recall": {"threshold": 0.5},
}
# Made anew in each call.
HAVE_ARRAYS = {
    "optimizers.add_noise",
    "optimizers.scale_by_mup",
    "optimizers.stochastic_rounding",
}
MAKE_CONSTRUCTORS = {"optimizers.inject_hyperparams"}

CONSTRUCTORS = {
    f"{module}.{name}": value
    for module in ("optimizers", "schedules", "metrics", "regularizers")
    for name in getattr(nn, module).__all__
    if getattr(value := getattr(getattr(nn, module), name), "is_constructor", False)
}
every_constructor = pytest.mark.parametrize("name", sorted(CONSTRUCTORS.keys() - MAKE_CONSTRUCTORS))
every_equal_constructor = pytest.mark.parametrize(
    "name", sorted(CONSTRUCTORS.keys() - MAKE_CONSTRUCTORS - HAVE_ARRAYS)
)


def call_of(name):
    """The arguments of a call, made anew."""
    needed = [
        parameter.name
        for parameter in inspect.signature(CONSTRUCTORS[name]).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
    ]
    given = {parameter: NEEDED[parameter] for parameter in needed} | BESIDES.get(name, {})
    is_maker = {"value_fn", "function", "step_size_fn"}
    return {
        parameter: value() if callable(value) and parameter not in is_maker else value
        for parameter, value in given.items()
    }


def make(name, **changed):
    return CONSTRUCTORS[name](**{**call_of(name), **changed})


def functions_of(made):
    return tuple(made) if isinstance(made, tuple) else (made,)


def used(name, made):
    """What the functions return."""
    if name.startswith("schedules."):
        return made(3)
    if name.startswith("regularizers."):
        return made(PARAMS)
    if name.startswith("metrics."):
        return made.init()
    if not isinstance(made, nn.optimizers.Optimizer):
        return None
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    keywords = {"value": value_fn(PARAMS), "grad": grads, "value_fn": value_fn}
    return made.update(grads, made.init(PARAMS), PARAMS, **keywords)


def dtypes_used(name, made):
    return jax.tree.map(lambda leaf: leaf.dtype, jax.eval_shape(lambda: used(name, made)))


def hyperparameters(name):
    """The arguments that are floats."""
    given = call_of(name)
    parameters = inspect.signature(CONSTRUCTORS[name]).parameters
    values = {p: given.get(p, parameter.default) for p, parameter in parameters.items()}
    return [p for p, value in values.items() if isinstance(value, float)]


@every_equal_constructor
def test_equal_calls_are_equal_objects(name):
    one = make(name)
    assert make(name) == one
    assert functions_of(make(name)) == functions_of(one)
    assert hash(make(name)) == hash(one)


@every_constructor
def test_the_name_is_the_call(name):
    made = make(name)
    text = made.__qualname__ if inspect.isfunction(made) else repr(made)
    assert text.startswith(f"{name.split('.')[1]}(")


@every_constructor
def test_types_and_signs_of_hyperparameters_are_told_apart(name):
    for parameter in hyperparameters(name):
        for values in ((1, 1.0), (0.0, -0.0), (np.float32(0.5), 0.5)):
            try:
                one, other = (make(name, **{parameter: value}) for value in values)
            except (TypeError, ValueError, ZeroDivisionError):  # it is out of range
                continue
            assert one != other


@pytest.fixture(scope="module")
def _only_what_is_new_is_looked_through():
    """A hundred garbage collections, each through the objects of the test alone."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@every_constructor
@pytest.mark.usefixtures("_only_what_is_new_is_looked_through")
def test_a_traced_hyperparameter_is_never_kept(name):
    alive = []
    for parameter in hyperparameters(name):

        def traced(value, parameter=parameter):
            made = functions_of(make(name, **{parameter: value}))
            alive.extend(map(weakref.ref, filter(callable, made)))
            return value

        jax.eval_shape(traced, jnp.float32(0.5))
    gc.collect()
    assert [ref() for ref in alive] == [None] * len(alive)


@every_equal_constructor
def test_what_is_made_in_a_traced_function_in_double_precision_works_outside_in_single(name):
    made = []

    def traced(x):
        made.append(make(name))
        return x

    with jax.enable_x64(True):
        jax.eval_shape(traced, 1.0)
    outside = make(name)
    assert outside == made[0]
    afresh = CONSTRUCTORS[name].__wrapped__(**call_of(name))
    assert dtypes_used(name, outside) == dtypes_used(name, afresh)


# Constructors that constructors make


def test_injected_hyperparameters():
    one = inject_hyperparams(nn.optimizers.adam)(0.5, b1=nn.schedules.step_decay(0.9, 10))
    gc.collect()
    again = inject_hyperparams(nn.optimizers.adam)(0.5, b1=nn.schedules.step_decay(0.9, 10))
    assert again == one
    assert repr(one) == "inject_hyperparams(adam)(0.5, b1=step_decay(0.9, 10))"
    assert inject_hyperparams(nn.optimizers.adam, "eps")(0.5) != inject_hyperparams(
        nn.optimizers.adam
    )(0.5)


def test_injected_hyperparameters_are_collected():
    optimizer = inject_hyperparams(nn.optimizers.adam)(0.5)
    alive = weakref.ref(optimizer.update)
    del optimizer
    gc.collect()
    assert alive() is None


# What equal objects are for


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.optimizers.adamw(nn.schedules.step_decay(0.1, 10), weight_decay=0.1, mask="k*"),
        lambda: nn.optimizers.masked(nn.optimizers.accumulate(nn.optimizers.sgd(0.1), 2), "bias"),
        lambda: inject_hyperparams(nn.optimizers.sgd)(0.1),
    ],
)
def test_a_jitted_update_traces_once_for_equal_optimizers(make):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def update(optimizer, grads, state, params):
        traced.append(optimizer)
        return optimizer.update(grads, state, params)

    first = make()
    update(first, PARAMS, first.init(PARAMS), PARAMS)
    again = make()
    update(again, PARAMS, again.init(PARAMS), PARAMS)
    assert len(traced) == 1


def test_of_optax():
    optax = pytest.importorskip("optax")
    theirs = optax.clip(1.0)
    one = nn.optimizers.chain(theirs, nn.optimizers.sgd(0.1))
    assert nn.optimizers.chain(theirs, nn.optimizers.sgd(0.1)) == one
    assert nn.optimizers.chain(optax.clip(1.0), nn.optimizers.sgd(0.1)) != one
    chained = optax.chain(optax.clip(1.0), nn.optimizers.sgd(0.5))
    updates, _ = chained.update(PARAMS, chained.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["bias"], [[-0.5, -0.5]])


@pytest.mark.parametrize(
    "take",
    [
        nn.optimizers.masked,
        lambda optimizer, _: nn.optimizers.chain(optimizer),
        lambda optimizer, _: nn.train_step(value_fn, optimizer),
    ],
)
def test_an_uncalled_constructor_is_refused(take):
    with pytest.raises(TypeError, match=r"is the constructor adam, expected an Optimizer: call it"):
        take(nn.optimizers.adam, "*")
    injected = inject_hyperparams(nn.optimizers.adam)
    with pytest.raises(TypeError, match=r"call it, inject_hyperparams\(adam\)\(\.\.\.\)"):
        take(injected, "*")
