"""The forms of attention: each feature in small blocks, and what the forms are for."""

import functools
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.functional import _attention_forms
from tests.compiling import fast_jit
from tests.parameters import quick_first
from tests.table.attention import attention_rows
from tests.table.rows import rng_for
from tests.test_gradients import case_of, check, derived

attend = nn.functional.dot_product_attention
FORMS = ("unrolled", "nested")
ROWS = [row for row in attention_rows() if row.variant != "dropout"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_attention_forms, "block_size", lambda form, keys: 2)


def arguments(queries=5, keys=5, features=4, dtype=np.float32):
    rng = np.random.default_rng(0)
    sizes = (queries, 2), (keys, 1), (keys, 1)
    return [jnp.asarray(rng.standard_normal((2, *size, features)), dtype) for size in sizes]


@quick_first(6)
@pytest.mark.parametrize(
    ("form", "row"),
    [
        pytest.param(
            form,
            row,
            id=f"{form}-{row.case(row.shapes[0])}",
            marks=[] if i in (1, 5, 8) or form == "unrolled" else pytest.mark.slow,
        )
        for form, (i, row) in product(FORMS, enumerate(ROWS))
    ],
)
def test_features(form, row):
    """Values and both modes of differentiation against NumPy in float64."""
    rng = rng_for(row.case(row.shapes[0]))
    case = case_of(
        functools.partial(row.function, implementation=form, **row.options),
        functools.partial(row.reference, **row.options),
        row.draw(rng, row.shapes[0]),
        rng,
    )
    with jax.enable_x64(True):
        check(case, derived({row.name: case})[row.name])


@quick_first(1)
@pytest.mark.parametrize("form", FORMS)
def test_the_offset_may_be_traced(form):
    query, key, value = arguments(3, 7)

    @fast_jit
    def run(offset):
        options = {"is_causal": True, "window": (2, 0), "query_offset": offset}
        return attend(query, key, value, implementation=form, **options)

    expected = attend(query, key, value, is_causal=True, window=(2, 0), query_offset=4)
    np.testing.assert_allclose(run(4), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_hidden_has_no_effect(form):
    query, key, value = arguments(4)  # fewer queries than keys: the last key is not seen

    @fast_jit
    def gradients(key, value):
        def loss(*a):
            return jnp.sum(attend(*a, is_causal=True, query_offset=0, implementation=form))

        return jax.value_and_grad(loss, (0, 1, 2))(query, key, value)

    bad = (a.at[:, 4].set(jnp.nan) for a in (key, value))
    for got, expected in zip(
        *map(jax.tree.leaves, (gradients(*bad), gradients(key, value))), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@quick_first(1)
@pytest.mark.parametrize("form", FORMS)
def test_a_dropped_weight_is_0_and_the_others_are_scaled(form):
    query, key, _ = arguments()
    value = jnp.broadcast_to(jnp.eye(5)[:, None], (2, 5, 1, 5))  # so that y are the weights
    options = {"is_causal": True, "implementation": form}
    weights = attend(query, key, value, **options)
    dropped = attend(query, key, value, dropout_rate=0.5, dropout_key=jax.random.key(3), **options)
    kept = np.asarray(dropped) != 0
    np.testing.assert_allclose(dropped, np.where(kept, 2 * weights, 0), rtol=1e-5)
    seen = np.tri(5, dtype=bool)[None, :, None]
    assert 0.3 < kept[np.broadcast_to(seen, kept.shape)].mean() < 0.7
    assert not np.array_equal(kept[:, 4, :, :2], kept[:, 4, :, 2:4])  # blocks differ


@pytest.mark.slow
def test_second_derivatives_and_vmap_of_nested():
    def gradient(form, q, k, v):
        def loss(q):
            return jnp.sum(attend(q, k, v, is_causal=True, implementation=form) ** 2)

        return jax.grad(loss)(q)

    @fast_jit
    def run(*a):
        results = []
        for form in ("whole", "nested"):
            of = functools.partial(gradient, form)
            product = jax.jvp(lambda q, of=of: of(q, *a[1:]), a[:1], a[:1])[1]
            reverse = jax.grad(lambda q, of=of: jnp.sum(jnp.sin(of(q, *a[1:]))))(a[0])
            results.append((product, reverse, jax.vmap(of)(*a)))
        return results

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), *run(*arguments(4, 4))
    )


def test_long_sequences_take_little_memory(monkeypatch):
    monkeypatch.undo()
    length = 2304
    x = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)

    def loss(q, k, v):
        return jnp.sum(attend(q, k, v, is_causal=True))

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * length**2  # not 8 times that


def test_windows_make_less_work(monkeypatch):
    monkeypatch.undo()
    x = jax.ShapeDtypeStruct((1, 512, 1, 8), jnp.float32)

    def flops(**options):
        lowered = jax.jit(functools.partial(attend, **options)).lower(x, x, x)
        return lowered.cost_analysis()["flops"]

    assert flops(window=(16, 0)) < flops(window=(16, 0), implementation="whole") / 3
    assert flops(is_causal=True) < flops() * 0.8


def test_errors():
    q, k, v = arguments()
    for options, message in (
        ({"soft_cap": 0.0}, "soft_cap is 0.0"),
        ({"sinks": jnp.zeros(3)}, r"sinks has shape \(3,\), expected shape \(2,\)"),
        ({"implementation": "flash"}, "implementation is 'flash', expected"),
    ):
        with pytest.raises(ValueError, match=f"^dot_product_attention: {message}"):
            attend(q, k, v, **options)
