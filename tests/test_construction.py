"""Equal calls of a constructor give equal objects, and keep nothing alive."""

import functools
import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.construction import constructor


@constructor
def box(value=None, *more, option=0, **named):
    """A function that returns what it was made of."""

    def opened():
        return value, more, option, named

    return opened


def double(x):
    return 2 * x


def power(x, n):
    return x**n


EQUAL = [
    (lambda: box(1), lambda: box(value=1)),
    (lambda: box(1), lambda: box(1, option=0)),
    (lambda: box([1, [2.5, "a"]]), lambda: box([1, [2.5, "a"]])),
    (lambda: box({"a": (1, None)}), lambda: box({"a": (1, None)})),
    (lambda: box(float("nan")), lambda: box(float("nan"))),
    (lambda: box(double), lambda: box(double)),
    (lambda: box(functools.partial(power, n=2)), lambda: box(functools.partial(power, n=2))),
    (lambda: box(np.float32(2)), lambda: box(np.float32(2))),
    (lambda: box(np.dtype("int8"), a=slice(3)), lambda: box(np.dtype("int8"), a=slice(3))),
    (lambda: nn.serial(nn.dense(4), double), lambda: nn.serial(nn.dense(4), double)),
    (lambda: nn.mlp([8, 2]), lambda: nn.mlp([8, 2])),
]

DIFFERENT = [
    (lambda: box(1), lambda: box(True)),
    (lambda: box(1), lambda: box(1.0)),
    (lambda: box(0.0), lambda: box(-0.0)),
    (lambda: box(complex(0.0, 0.0)), lambda: box(complex(0.0, -0.0))),
    (lambda: box((1, (0.0,))), lambda: box((1, (-0.0,)))),
    (lambda: box({"a": [1]}), lambda: box({"a": [True]})),
    (lambda: box({"a": 1, "b": 2}), lambda: box({"b": 2, "a": 1})),
    (lambda: box((1, 2)), lambda: box([1, 2])),
    (lambda: box((1, 2)), lambda: box(1, 2)),
    (lambda: box(np.float32(2)), lambda: box(2.0)),
    (lambda: box(np.float32(0.0)), lambda: box(np.float32(-0.0))),
    (lambda: box(double), lambda: box(lambda x: 2 * x)),
    (lambda: box(functools.partial(power, n=2)), lambda: box(functools.partial(power, n=2.0))),
    (lambda: nn.dense(4), lambda: nn.dense(4, use_bias=False)),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_equal_calls_give_equal_objects(first, second):
    one = first()
    assert second() == one
    assert hash(second()) == hash(one)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_types_and_signs_are_told_apart(first, second):
    one = first()
    assert second() != one


@pytest.mark.parametrize("array", [jnp.ones(2), np.ones(2), (1, [jnp.ones(())])])
def test_what_is_made_of_arrays_is_made_anew(array):
    one = box(array)
    assert box(array) != one


def test_a_list_that_is_changed_later_changes_nothing():
    features = [1, 2]
    one = box(features)
    features.append(3)
    assert one()[0] == [1, 2]
    assert box([1, 2]) == one
    assert box(features) != one


def test_a_layer_lives_as_long_as_one_of_its_functions():
    apply = nn.dense(7).apply
    gc.collect()
    assert nn.dense(7).apply is apply


def test_what_is_made_is_collected():
    layer = nn.dense(7919)
    alive = weakref.ref(layer.apply)
    del layer
    gc.collect()
    assert alive() is None


def test_a_function_that_refers_to_the_layer_made_of_it_is_collected():
    def function(x):
        return x

    function.layer = nn.serial(nn.dense(3), function)
    alive = weakref.ref(function)
    del function
    gc.collect()
    assert alive() is None


def test_what_wraps_a_layer_does_not_live_as_long_as_that():
    layer = nn.dense(5)
    alive = weakref.ref(nn.remat(layer).apply)
    gc.collect()
    assert alive() is None


def test_the_name_of_a_layer_that_is_wrapped_stays():
    layer = nn.dense(5)
    nn.remat(layer)
    assert repr(layer) == "dense(5)"


def test_a_traced_argument_is_not_kept():
    leaks = []

    def function(rate):
        leaks.append(weakref.ref(nn.serial(nn.dropout(rate)).apply))
        return rate

    jax.jit(function)(0.5)
    gc.collect()
    assert leaks[0]() is None


def test_a_jit_of_ones_own_traces_once():
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def output(layer, params, x):
        traced.append(layer)
        return layer.apply(params, {}, x)[0]

    first = nn.serial(nn.dense(3), nn.relu)
    params, _ = first.init(jax.random.key(0), jnp.ones((1, 2)))
    output(first, params, jnp.ones((1, 2)))
    output(nn.serial(nn.dense(3), nn.relu), params, jnp.ones((1, 2)))
    assert len(traced) == 1


def test_threads_that_make_the_same_get_the_same():
    made = []
    start = threading.Barrier(8)

    def make():
        start.wait()
        made.append(box("of several threads"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [made[0]] * 8


def test_an_argument_too_many_is_refused_in_pythons_words():
    with pytest.raises(TypeError, match=r"dense\(\) missing 1 required positional argument"):
        nn.dense()
    with pytest.raises(TypeError, match=r"dense\(\) got an unexpected keyword argument 'size'"):
        nn.dense(4, size=3)


# nn.pure


def test_pure_gets_the_keywords_that_it_declares():
    def call(params, x, *, key, train, mask=None):
        return x, key, train, mask

    layer = nn.pure(lambda key, x: {}, call)
    x, key = jnp.ones(2), jax.random.key(0)
    (_, *given), state = layer.apply({}, {}, x, key=key, train=True, mask="mask")
    assert given == [key, True, "mask"]
    assert state == {}
    with pytest.raises(TypeError, match="unexpected keyword argument 'masks'"):
        layer.apply({}, {}, x, masks=None)


def test_pure_is_the_inverse_of_stateless():
    layer = nn.dense(3)
    again = nn.pure(lambda key, x: layer.init(key, x)[0], nn.stateless(layer))
    params, state = again.init(jax.random.key(0), jnp.ones((1, 2)))
    x = jnp.ones((4, 2))
    assert jnp.array_equal(again.apply(params, state, x)[0], layer.apply(params, {}, x)[0])


@pytest.mark.parametrize(
    ("init", "call", "name"),
    [
        (None, lambda params, x: x, "init"),
        (lambda key: {}, lambda params, x: x, "init"),
        (lambda key, x: {}, nn.dense(3), "call"),
        (lambda key, x: {}, nn.dense, "call"),
        (lambda key, x: {}, lambda x: x, "call"),
    ],
)
def test_pure_refuses_what_is_no_such_function(init, call, name):
    with pytest.raises(TypeError, match=f"pure: {name} is"):
        nn.pure(init, call)
