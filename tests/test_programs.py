"""Compiled programs are shared by equal calls, and the oldest make room for new ones."""

import functools
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxnn as nn
from jaxnn._core import programs
from jaxnn._core.programs import compiled


@pytest.fixture
def few(monkeypatch):
    """A cache of its own, for two programs."""
    monkeypatch.setattr(programs, "MOST_PROGRAMS", 2)
    monkeypatch.setattr(programs, "_programs", type(programs._programs)())


def output(layer, params, x):
    return layer.apply(params, {}, x)[0]


def scaled(factor, x):
    return factor * x


def test_equal_calls_share_a_program(few):
    assert compiled(output, nn.dense(3)) is compiled(output, nn.dense(3))
    assert compiled(output, nn.dense(3)) is not compiled(output, nn.dense(4))
    assert compiled(scaled, 1) is not compiled(scaled, 1.0)
    assert compiled(scaled, 0.0) is not compiled(scaled, -0.0)
    assert compiled(scaled, 1) is not compiled(scaled, 1, donate_argnums=0)


def test_the_least_recently_used_goes_first(few):
    first, second = compiled(scaled, 1), compiled(scaled, 2)
    assert compiled(scaled, 1) is first
    compiled(scaled, 3)
    assert compiled(scaled, 1) is first
    assert compiled(scaled, 2) is not second


def test_half_of_them_go_where_memory_maps_run_out(few, monkeypatch):
    monkeypatch.setattr(programs, "MOST_PROGRAMS", 99)
    kept = [compiled(scaled, number) for number in range(8)]
    assert [compiled(scaled, number) for number in range(8)] == kept
    monkeypatch.setattr(programs, "MOST_MAPS", 1)
    compiled(scaled, 8)
    assert len(programs._programs) == 5
    assert compiled(scaled, 7) is kept[7]


def test_the_parts_of_a_program_live_as_long_as_it(few):
    layer = nn.serial(nn.dense(3), lambda x: x)
    alive = weakref.ref(layer.apply)
    params, _ = layer.init(jax.random.key(0), jnp.ones((1, 2)))
    compiled(output, layer)(params, jnp.ones((1, 2)))
    del layer
    gc.collect()
    assert alive() is not None
    compiled(scaled, 1)
    compiled(scaled, 2)
    gc.collect()
    assert alive() is None


def test_what_holds_an_array_is_never_taken_for_something_else(few):
    first, second = (compiled(scaled, jnp.full(2, value)) for value in (1.0, 2.0))
    assert float(first(1.0)[0]) == 1
    assert float(second(1.0)[0]) == 2


def test_a_partial_with_an_array_is_known_by_identity(few):
    weights = functools.partial(scaled, jnp.ones(2))
    other = functools.partial(scaled, jnp.zeros(2))

    def call(function, x):
        return function(x)

    assert compiled(call, weights) is compiled(call, weights)
    assert compiled(call, weights) is not compiled(call, other)


def test_fit_keeps_a_bounded_number_of_models_alive(few):
    x = jnp.ones((4, 2))
    alive = []
    for _ in range(3):
        model = nn.serial(nn.dense(2), lambda x: x)
        nn.fit(
            model,
            (x, x),
            loss=nn.losses.squared_error,
            optimizer=nn.optimizers.sgd(0.1),
            key=jax.random.key(0),
            epochs=1,
            progress=False,
        )
        alive.append(weakref.ref(model.apply))
        del model
    gc.collect()
    assert [reference() is None for reference in alive] == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("function", ["fit", "training_run"])
def test_another_rate_compiles_nothing_in_a_second_process(function, tmp_path):
    """Where the rate is an argument of the run; with JAX's cache of compiled programs."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    script = Path(__file__).with_name("compiled_rate.py")
    results = []
    for rate in ("0.1", "0.03"):
        done = subprocess.run(
            [sys.executable, str(script), function, rate],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        compiled_programs, weight = done.stdout.split()
        results.append((int(compiled_programs), float(weight)))
    (first, weight), (second, other_weight) = results
    assert first > 0
    assert second == 0
    assert weight != other_weight
