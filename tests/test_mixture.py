"""Mixtures of experts and low-rank adaptation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import mixture as reference
from tests.parameters import each_value_once

X = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)


def scaled_experts(factors):
    """Experts that multiply by a number each."""
    return lambda slots: slots * jnp.asarray(factors, jnp.float32)[:, None, None]


def mixture(logits, x=None, **options):
    """Features of one, experts that multiply by 1, 10, 100 ..."""
    logits = jnp.asarray(logits, jnp.float32)
    x = jnp.ones((len(logits), 1)) if x is None else x
    experts = scaled_experts(10.0 ** np.arange(logits.shape[1]))
    mixed = functools.partial(nn.functional.mixture_of_experts, experts=experts, **options)
    return fast_jit(mixed)(x, logits).ravel()


# Routing


def test_gates_of_several_experts_add_up_to_1_and_that_of_one_is_its_probability():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.2]]))
    np.testing.assert_allclose(mixture(logits, top_k=1), 0.5)
    np.testing.assert_allclose(mixture(logits, top_k=2), (0.5 + 3) / 0.8, rtol=1e-6)
    np.testing.assert_allclose(mixture(logits, top_k=3), 0.5 + 3 + 20, rtol=1e-6)


def test_a_full_expert_drops_the_later_tokens():
    logits = 50 * jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(mixture(logits, top_k=1), [1, 1, 10, 1])
    np.testing.assert_allclose(mixture(logits, top_k=1, capacity=2), [1, 1, 10, 0])
    np.testing.assert_allclose(mixture(logits, top_k=1, capacity=1), [1, 0, 10, 0])


COUNTS = np.array([True, False, True, True, False, True, True])


@each_value_once
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("top_k", "capacity"), [(1, 2), (2, None), (2, 1)])
def test_tokens_that_do_not_count_leave_no_trace(top_k, capacity, bad):
    """Values and gradients are NumPy's of the others alone, in float64."""
    rng = np.random.default_rng(0)
    logits = np.stack([rng.permutation(4) for _ in COUNTS]) + rng.uniform(0, 0.5, (7, 4))
    kernel, dy = rng.standard_normal((4, 3, 2)), rng.standard_normal((7, 2))
    arrays = rng.standard_normal((7, 3)), logits
    y, pullback = reference.mixture_of_linear_experts(
        *(a[COUNTS] for a in arrays), kernel, top_k, capacity
    )
    balance, pull_balance = reference.expert_balance(logits[COUNTS], top_k)
    expected = y, *pullback(dy[COUNTS]), balance, *pull_balance(1.0)

    @fast_jit
    def derived(x, logits, kernel):
        def mixed(x, logits, kernel):
            def experts(slots):
                return jnp.einsum("ecf,efo->eco", slots, kernel)

            return nn.functional.mixture_of_experts(
                x, logits, experts, top_k=top_k, capacity=capacity, where=COUNTS
            )

        def of_balance(logits):
            return nn.functional.expert_balance(logits, top_k=top_k, where=COUNTS)

        y, pullback = jax.vjp(mixed, x, logits, kernel)
        balance, dlogits = jax.value_and_grad(of_balance)(logits)
        return y, *pullback(jnp.asarray(dy, y.dtype)), balance, dlogits

    holed = (np.where(COUNTS[:, None], a, bad).astype(np.float32) for a in arrays)
    for got, wanted in zip(derived(*holed, kernel.astype(np.float32)), expected, strict=True):
        if len(np.shape(got)) == 2:
            np.testing.assert_array_equal(got[~COUNTS], 0)
            got = got[COUNTS]
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_padding_reaches_no_gradient_of_the_layer(key):
    layer = nn.mixture_of_experts(nn.dense(4), 3, top_k=1, capacity_factor=1.0)
    counts = np.arange(8) < np.array([[8], [3]])
    params, state = layer.init(key, X)

    @fast_jit
    def derived(x):
        def total(params):
            y, new_state = layer.apply(params, state, x, train=True, where=counts)
            return jnp.sum(jnp.sin(y)) + new_state["balance_loss"]

        return jax.value_and_grad(total)(params)

    holed = jnp.where(counts[..., None], X, np.nan)
    jax.tree.map(np.testing.assert_array_equal, derived(holed), derived(X))


def test_nothing_that_counts_gives_zeros():
    x, nothing = jnp.ones((3, 2)), np.zeros(3, bool)
    np.testing.assert_array_equal(mixture(x, where=nothing), 0)
    assert nn.functional.expert_balance(x, where=nothing) == 0


def test_first_choices_come_before_second_ones():
    # Token 0 has expert 1 as its second choice, token 1 as its first: with room for one it is 1's.
    logits = jnp.log(jnp.array([[0.6, 0.4], [0.2, 0.8]]))
    y = mixture(logits, top_k=2, capacity=1)
    np.testing.assert_allclose(y, [0.6, 8.0], rtol=1e-6)


def test_a_token_does_not_see_the_others_without_a_capacity(key):
    layer = nn.mixture_of_experts(nn.dense(4), 4)
    params, state = fast_jit(layer.init)(key, X)
    apply = fast_jit(layer.apply)
    whole, _ = apply(params, state, X)
    alone = [apply(params, state, X[:, t : t + 1])[0] for t in range(X.shape[1])]
    np.testing.assert_allclose(whole, np.concatenate(alone, axis=1), rtol=1e-5, atol=1e-6)


def test_dropped_tokens_have_zero_outputs_and_gradients(key):
    layer = nn.mixture_of_experts(nn.dense(4), 4, top_k=1, capacity_factor=0.25)
    params, state = fast_jit(layer.init)(key, X)

    @fast_jit
    def derived(x):
        y, pullback = jax.vjp(lambda x: layer.apply(params, state, x)[0], x)
        return y, *pullback(jnp.ones_like(y))

    y, dx = derived(X.reshape(-1, 4))
    dropped = np.all(np.asarray(y) == 0, axis=-1)
    assert 12 <= dropped.sum() < 16  # each of 4 experts takes one of 16 tokens at most
    np.testing.assert_array_equal(np.any(np.asarray(dx) != 0, axis=-1), ~dropped)


def test_the_balance_loss_is_1_when_even_and_grows_when_uneven():
    even = 50 * jnp.eye(4)
    for top_k, worst in ((1, 4.0), (2, 2.0)):
        one_for_all = jnp.tile(jnp.array([[50.0, 49.0, 0.0, 0.0]]), (4, 1))
        uneven = nn.functional.expert_balance(one_for_all, top_k=top_k)
        assert worst * 0.7 < uneven <= worst
    np.testing.assert_allclose(nn.functional.expert_balance(even, top_k=1), 1.0)
    np.testing.assert_allclose(nn.functional.expert_balance(jnp.zeros((4, 4)), top_k=2), 1.0)


def test_training_with_the_balance_loss_spreads_the_tokens(key):
    layer = nn.mixture_of_experts(nn.dense(4), 4, top_k=1)
    x = np.random.default_rng(1).normal(1, 1, (64, 4)).astype(np.float32)
    params, state = fast_jit(layer.init)(key, x)
    router = {"kernel": params["router"]["kernel"].at[:, 0].add(1.0)}  # all tokens to expert 0
    params = params | {"router": router}

    def balance(params):
        return layer.apply(params, state, x, train=True)[1]["balance_loss"]

    @fast_jit
    def step(params):
        value, gradients = jax.value_and_grad(balance)(params)
        return value, jax.tree.map(lambda p, g: p - 0.3 * g, params, gradients)

    values = []
    for _ in range(50):
        value, params = step(params)
        values.append(value)
    assert values[0] > 2.5
    assert values[-1] < 1.5


def test_evaluation_leaves_the_balance_loss_alone(key):
    layer = nn.mixture_of_experts(nn.dense(4), 2)
    params, state = fast_jit(layer.init)(key, X)
    assert state == {"balance_loss": 0}
    _, trained = fast_jit(functools.partial(layer.apply, train=True))(params, state, X)
    _, evaluated = fast_jit(layer.apply)(params, trained, X)
    assert trained["balance_loss"] > 0.9
    assert evaluated["balance_loss"] == trained["balance_loss"]


def test_experts_drop_differently(key):
    layer = nn.mixture_of_experts(nn.dropout(0.5), 2, top_k=2)
    x = jnp.ones((1, 64))
    params, state = layer.init(key, x)
    with pytest.raises(ValueError, match="needs a key"):
        layer.apply(params, state, x, train=True)
    params = params | {"router": {"kernel": jnp.zeros((64, 2))}}
    y, _ = layer.apply(params, state, x, key=key, train=True)
    assert set(np.unique(y)) == {0.0, 1.0, 2.0}  # one mask for both would leave 0 and 2


@pytest.mark.slow
def test_in_a_stack_the_balance_losses_are_one_array(key):
    block = nn.residual(nn.serial(nn.layer_norm(), nn.mixture_of_experts(nn.dense(4), 3)))
    model = nn.stack(nn.remat(block), 2)
    params, state = fast_jit(model.init)(key, X)

    def loss(params):
        y, new_state = model.apply(params, state, X, train=True)
        (balance,) = jax.tree.leaves(new_state)
        assert balance.shape == (2,)
        return jnp.sum(y) + jnp.sum(balance)

    gradients = fast_jit(jax.grad(loss))(params)
    assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(gradients["layer"][1]["router"]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.mixture_of_experts(nn.dense(4), 0), ValueError, "experts is 0"),
        (lambda: nn.mixture_of_experts(nn.dense(4), 2.0), TypeError, "experts is 2.0"),
        (lambda: nn.mixture_of_experts(nn.dense(4), 2, top_k=3), ValueError, "top_k is 3"),
        (
            lambda: nn.mixture_of_experts(nn.dense(4), 2, capacity_factor=-1.0),
            ValueError,
            "capacity_factor is -1.0",
        ),
        (
            lambda: nn.mixture_of_experts(nn.batch_norm(), 2).init(jax.random.key(0), X),
            ValueError,
            r"batch_norm\(\) has state",
        ),
        (lambda: mixture(jnp.zeros((3, 2)), jnp.ones((4, 1))), ValueError, r"\(4, 1\).*\(3, 2\)"),
        (lambda: mixture(jnp.zeros((3, 2)), top_k=5), ValueError, "top_k is 5"),
        (lambda: mixture(jnp.zeros((3, 2)), capacity=0), ValueError, "capacity is 0"),
        (lambda: nn.functional.expert_balance(jnp.zeros(3)), ValueError, r"shape \(3,\)"),
        (
            lambda: nn.functional.expert_balance(jnp.zeros((3, 2)), where=jnp.ones(3)),
            TypeError,
            "expert_balance: where has dtype float32, expected bool",
        ),
        (
            lambda: mixture(jnp.zeros((3, 2)), where=np.ones(2, bool)),
            ValueError,
            r"mixture_of_experts: where has shape \(2,\)",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Low-rank adaptation


def with_random_correction(params, key):
    """`up` away from the zeros that it begins with."""
    up = params["up"]["kernel"]
    return params | {"up": {"kernel": jax.random.normal(key, up.shape)}}


def test_lora_begins_as_the_layer_it_adapts(key):
    layer = nn.lora(nn.dense(5), 2)
    params, state = layer.init(key, X)
    y, _ = layer.apply(params, state, X)
    np.testing.assert_array_equal(y, nn.dense(5).apply(params["layer"], {}, X)[0])


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_merged_lora_computes_the_same(scale, key):
    layer = nn.lora(nn.dense(5), 2, scale=scale)
    params, state = layer.init(key, X)
    params = with_random_correction(params, jax.random.key(1))
    y, _ = layer.apply(params, state, X)
    merged, _ = nn.dense(5).apply(nn.merge_lora(params, scale=scale), {}, X)
    np.testing.assert_allclose(merged, y, rtol=1e-5, atol=1e-6)
    assert not np.allclose(y, nn.dense(5).apply(params["layer"], {}, X)[0])


@pytest.mark.slow
def test_merging_a_whole_model_with_stacks(key):
    def model(dense):
        block = nn.residual(nn.serial(nn.layer_norm(), dense(4), nn.tanh))
        return nn.serial(embed=nn.dense(4), blocks=nn.stack(block, 3), out=dense(2))

    plain, adapted = model(nn.dense), model(lambda n: nn.lora(nn.dense(n), 1))
    params, state = adapted.init(key, X)
    block, out = params["blocks"]["layer"], params["out"]
    block = block[0], with_random_correction(block[1], jax.random.key(1)), block[2]
    out = with_random_correction(out, jax.random.key(2))
    params = params | {"blocks": {"layer": block}, "out": out}
    merged = nn.merge_lora(params)
    assert jax.tree.structure(merged) == jax.tree.structure(plain.init(key, X)[0])
    expected, _ = adapted.apply(params, state, X)
    np.testing.assert_allclose(plain.apply(merged, {}, X)[0], expected, rtol=1e-5, atol=1e-5)


def test_merging_a_model_without_lora_changes_nothing(key):
    params, _ = nn.serial(nn.dense(3), nn.relu).init(key, X)
    jax.tree.map(np.testing.assert_array_equal, nn.merge_lora(params), params)


@pytest.mark.parametrize(
    ("layer", "message"),
    [(nn.relu, "no kernel"), (nn.serial(nn.dense(2)), "no kernel")],
)
def test_lora_needs_a_kernel_of_two_axes(layer, message, key):
    with pytest.raises(ValueError, match=f"lora: .* has {message}"):
        nn.lora(layer, 2).init(key, X)


@pytest.mark.parametrize(("rank", "error"), [(0, ValueError), (1.5, TypeError)])
def test_lora_rank(rank, error):
    with pytest.raises(error, match=f"lora: rank is {rank}"):
        nn.lora(nn.dense(2), rank)


@pytest.mark.slow
def test_lora_of_kernels_of_a_whole_model_by_path(key):
    model = nn.serial(
        mix=nn.residual(nn.attention(2)), norm=nn.layer_norm(), out=nn.dense(3, use_bias=False)
    )
    x = jax.random.normal(jax.random.key(2), (2, 5, 4))
    axis = (-2, -1)
    where = ["mix/*query/kernel", "mix/*value/kernel"]
    adapted = nn.lora(model, 2, where=where, axis=axis, scale=0.5)
    params, state = adapted.init(key, x)
    assert sorted(params["down"]) == sorted(params["up"])
    assert len(params["down"]) == 2
    before, _ = model.apply(params["layer"], state, x)
    np.testing.assert_allclose(adapted.apply(params, state, x)[0], before, rtol=1e-6)
    keys = iter(jax.random.split(jax.random.key(3), 2))
    params["up"] = jax.tree.map(lambda up: jax.random.normal(next(keys), up.shape), params["up"])
    after, _ = adapted.apply(params, state, x)
    assert not np.allclose(after, before, atol=1e-2)
    merged = nn.merge_lora(params, scale=0.5, axis=axis)
    assert jax.tree.structure(merged) == jax.tree.structure(params["layer"])
    np.testing.assert_allclose(model.apply(merged, state, x)[0], after, rtol=1e-5)
    for path, up in params["up"].items():
        leaf, base = merged, params["layer"]
        for name in path.split("/"):
            leaf, base = (t[int(name)] if isinstance(t, tuple) else t[name] for t in (leaf, base))
        delta = 0.5 * np.asarray(params["down"][path], np.float64) @ np.asarray(up, np.float64)
        np.testing.assert_allclose(leaf - base, delta.reshape(base.shape), atol=1e-5)
    with pytest.raises(ValueError, match="lora: where"):
        nn.lora(model, 2, where="nothing*").init(key, x)


def test_lora_of_kernels_in_stacks_has_a_correction_for_each_layer(key):
    model = nn.stack(nn.serial(inner=nn.stack(nn.dense(4), 3), out=nn.dense(4)), 2)
    adapted = nn.lora(model, 2, where="*kernel", scale=0.5)
    params, state = adapted.init(key, X[:, :4])
    shapes = {path: down.shape for path, down in params["down"].items()}
    assert shapes == {"inner/kernel": (2, 3, 4, 2), "out/kernel": (2, 4, 2)}
    assert len(np.unique(params["down"]["inner/kernel"])) == 2 * 3 * 4 * 2
    rng = np.random.default_rng(0)
    params["up"] = {path: rng.normal(size=up.shape) for path, up in params["up"].items()}
    merged = nn.merge_lora(params, scale=0.5)
    for path in ("inner", "out"):
        down, up = (np.asarray(params[name][f"{path}/kernel"], float) for name in ("down", "up"))
        expected = params["layer"][path]["kernel"] + 0.5 * np.einsum("...ir,...ro->...io", down, up)
        np.testing.assert_allclose(merged[path]["kernel"], expected, rtol=1e-5, atol=1e-6)
    y, _ = adapted.apply(params, state, X[:, :4])
    np.testing.assert_allclose(y, model.apply(merged, state, X[:, :4])[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"lora: where chooses 'inner/bias'.*shape \(4,\)"):
        nn.lora(model, 2, where="inner/*").init(key, X[:, :4])
