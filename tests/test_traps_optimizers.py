"""What went wrong in other libraries, in optimizers and metrics, does not here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.optimizers import (
    adam,
    adamw,
    apply_updates,
    chain,
    clip,
    clip_by_global_norm,
    global_norm,
    rmsprop,
    sgd,
)
from tests.parameters import each_value_once, quick_first

O = nn.optimizers  # noqa: E741
LOW = [jnp.bfloat16, jnp.float16]


def walk(optimizer, gradients, dtype, steps):
    """The updates of each step by the same gradients."""

    def step(state, _):
        updates, state = optimizer.update(gradients.astype(dtype), state)
        return state, updates

    start = optimizer.init(jnp.zeros(gradients.shape, dtype))
    return jax.lax.scan(step, start, length=steps)[1]


# Low precision


@each_value_once
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(
    "optimizer",
    [adam(0.1), rmsprop(0.1, decay=0.999, eps=1e-12, bias_correction=True)],
    ids=["adam", "rmsprop"],
)
def test_adam_in_bf16_where_b2_rounds_to_one(optimizer, dtype):
    gradients = jnp.array([1e-3, -1e-2, 1.0])
    updates = walk(optimizer, gradients, dtype, 50)
    assert updates.dtype == dtype
    rounding = float(jnp.finfo(dtype).eps)
    expected = np.broadcast_to([-0.1, 0.1, -0.1], (50, 3))
    np.testing.assert_allclose(updates.astype(jnp.float32), expected, rtol=rounding)


@each_value_once
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(
    "optimizer",
    [
        adam(0.1),
        adam(0.1, nesterov=True),
        adam(0.1, amsgrad=True),
        rmsprop(0.1),
        nn.optimizers.amsgrad(0.1),
        nn.optimizers.adamax(0.1),
        nn.optimizers.radam(0.1, threshold=0.0),
        nn.optimizers.adabelief(0.1),
        nn.optimizers.adopt(0.1, eps=1e-8),
        nn.optimizers.scale_by_adadelta(eps=1e-8),
        nn.optimizers.scale_by_adan(),
        nn.optimizers.scale_by_ademamix(),
    ],
)
def test_adam_in_fp16_where_eps_is_zero(optimizer, dtype):
    assert jnp.float16(1e-8) == 0
    updates = walk(optimizer, jnp.array([0.0, 6e-8]), dtype, 3)
    assert np.isfinite(updates.astype(jnp.float32)).all()
    assert (updates[:, 0] == 0).all()


def test_squares_that_vanish_or_overflow_in_fp16():
    gradients = jnp.array([1e-4, 6e4])  # squares 1e-8 and 3.6e9: zero and infinity in float16
    updates = walk(adam(0.1), gradients, jnp.float16, 3)
    np.testing.assert_allclose(updates.astype(jnp.float32), -0.1, rtol=1e-3)


@quick_first(2)
@pytest.mark.parametrize("name", ["lars", "lamb", "novograd", "adafactor", "muon"])
def test_norms_of_leaves_that_overflow_or_vanish_in_fp16(name):
    optimizer = getattr(nn.optimizers, name)(0.1)
    params = {"kernel": jnp.full((2, 2), 6e4, jnp.float16), "bias": jnp.full(2, 1e-7, jnp.float16)}
    updates, state = optimizer.update(params, optimizer.init(params), params)
    for leaf in jax.tree.leaves((updates, state)):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    assert (updates["kernel"] < 0).all()


def test_a_global_norm_that_overflows_in_fp16():
    gradients = jnp.full(4, 6e4, jnp.float16)
    assert global_norm(gradients) == pytest.approx(1.2e5, rel=1e-2)
    updates, _ = clip_by_global_norm(1.0).update(gradients, ())
    np.testing.assert_allclose(updates.astype(jnp.float32), 0.5, rtol=1e-3)
    assert updates.dtype == jnp.float16


@pytest.mark.parametrize("eps_in_sqrt", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_centered_rmsprop_when_the_variance_rounds_below_zero(eps_in_sqrt):
    optimizer = rmsprop(0.1, centered=True, eps_in_sqrt=eps_in_sqrt)
    gradients = jnp.asarray(np.random.default_rng(0).uniform(1, 5000, 200), jnp.float32)
    state = optimizer.init(gradients)
    for _ in range(150):  # not in one program, where XLA may fuse the rounding away
        updates, state = optimizer.update(gradients, state)
        assert np.isfinite(updates).all()


# Definitions


def test_eps_and_eps_root():
    g = jnp.array([1e-4])
    for optimizer, expected in [
        (adam(1.0, eps=1e-2, eps_root=0.0), -1e-4 / (1e-4 + 1e-2)),
        (adam(1.0, eps=0.0, eps_root=1e-4), -1e-4 / np.sqrt(1e-8 + 1e-4)),
        (rmsprop(1.0, decay=0.0, eps=1e-4), -1e-4 / np.sqrt(1e-8 + 1e-4)),
        (rmsprop(1.0, decay=0.0, eps=1e-2, eps_in_sqrt=False), -1e-4 / (1e-4 + 1e-2)),
    ]:
        updates, _ = optimizer.update(g, optimizer.init(g))
        np.testing.assert_allclose(updates, [expected], rtol=1e-5)


def test_weight_decay_leaves_out_biases_and_scales():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "temperature": jnp.float32(1.0)}
    optimizer = adamw(0.1, weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    assert (updates["bias"] == 0).all()
    assert updates["temperature"] == 0


def test_weight_decay_has_no_default():
    with pytest.raises(TypeError, match="weight_decay"):
        adamw(0.1)


def test_weight_decay_is_decoupled_from_the_moments():
    params = jnp.full((1, 1), 3.0)
    optimizer = adamw(0.1, weight_decay=0.5)
    _, (moments, *_) = optimizer.update(jnp.zeros((1, 1)), optimizer.init(params), params)
    assert moments.mu == 0
    assert moments.nu == 0


# Clipping


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_global_norm_clip_of_zero_gradients(max_norm):
    def clipped(tree):
        return clip_by_global_norm(max_norm).update(tree, ())[0]

    zeros = {"a": jnp.zeros(2), "b": jnp.zeros((2, 2))}
    tangents = jax.tree.map(jnp.ones_like, zeros)
    values, forward = jax.jvp(clipped, (zeros,), (tangents,))
    _, pullback = jax.vjp(clipped, zeros)
    (backward,) = pullback(tangents)
    for leaf in jax.tree.leaves(values):
        assert (leaf == 0).all()
    for leaf in jax.tree.leaves((forward, backward)):
        assert (leaf == 1).all()


def test_the_global_norm_has_a_derivative_at_zero():
    assert (jax.grad(global_norm)(jnp.zeros(3)) == 0).all()
    assert jax.jvp(global_norm, (jnp.zeros(3),), (jnp.ones(3),))[1] == 0


def test_the_derivative_through_a_clip_of_large_gradients():
    g = jnp.array([3.0, 4.0])
    jacobian = jax.jacobian(lambda g: clip_by_global_norm(1.0).update(g, ())[0])(g)
    u = np.array([0.6, 0.8])
    np.testing.assert_allclose(jacobian, (np.eye(2) - np.outer(u, u)) / 5, atol=1e-6)


# Dtypes


@quick_first(1)
@pytest.mark.parametrize("dtype", [*LOW, jnp.float32])
def test_a_learning_rate_of_a_wider_dtype_does_not_promote(dtype, x64):
    params = jnp.ones((2, 2), dtype)
    for rate in (
        np.float64(0.1),
        jnp.float64(0.1),
        lambda count: jnp.float64(0.1),
        nn.schedules.cosine_decay_schedule(jnp.float64(0.1), 10),
    ):
        optimizer = adamw(rate, weight_decay=jnp.float64(0.1))
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        assert updates.dtype == dtype
        assert apply_updates(params, updates).dtype == dtype


def test_updates_of_a_wider_dtype_do_not_promote():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    moved = apply_updates(params, {"w": jnp.full(2, 0.5, jnp.float32)})
    assert moved["w"].dtype == jnp.bfloat16
    assert (moved["w"] == 1.5).all()


def test_mu_and_nu_do_not_share_a_buffer():
    for optimizer in (adam(0.1), rmsprop(0.1, centered=True)):
        state = optimizer.init({"a": jnp.ones(3), "b": jnp.ones(3)})
        leaves = jax.tree.leaves(state)
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
        jax.jit(lambda s: jax.tree.map(jnp.copy, s), donate_argnums=0)(state)


# Trees


@pytest.mark.parametrize("optimizer", [adam(0.1), rmsprop(0.1), sgd(0.1, 0.9)])
@pytest.mark.parametrize("gradients", [{"a": jnp.ones(2), "b": None}, {"a": jnp.ones(2)}])
def test_none_in_the_place_of_an_array_does_not_pass_silently(optimizer, gradients):
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match="'b'"):
        optimizer.update(gradients, optimizer.init(params))
    with pytest.raises(ValueError, match="'b'"):
        apply_updates(params, gradients)


def test_the_order_of_the_params_dict_does_not_matter():
    sorted_params = {"a": jnp.ones((2, 2)), "b": jnp.full((2, 2), 2.0)}
    params = dict(reversed(sorted_params.items()))
    assert list(params) != list(sorted_params)
    optimizer = chain(clip(1.5), adamw(0.1, weight_decay=0.1, mask={"b": True, "a": False}))
    state = jax.jit(optimizer.init)(params)
    updates, _ = jax.jit(optimizer.update)(params, state, sorted_params)
    eager, _ = optimizer.update(params, optimizer.init(params), params)
    for name in params:
        np.testing.assert_allclose(updates[name], eager[name], rtol=1e-6)
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["b"], -0.12, rtol=1e-5)


# Tracers


def test_hyperparameter_checks_tolerate_tracers():
    def loss_after_a_step(hyper):
        optimizer = chain(
            clip_by_global_norm(hyper["norm"]), adamw(hyper["rate"], weight_decay=hyper["decay"])
        )
        params = jnp.ones((2, 2))
        updates, _ = optimizer.update(2 * params, optimizer.init(params), params)
        return jnp.sum(apply_updates(params, updates) ** 2)

    def of(rate):
        return loss_after_a_step({"norm": 1.0 + rate, "rate": rate, "decay": rate})

    rates = jnp.array([0.1, 0.2])
    expected = [jax.jit(of)(rate) for rate in rates]
    np.testing.assert_allclose(jax.jit(jax.vmap(of))(rates), expected, rtol=1e-6)
    assert (jax.jit(jax.vmap(jax.grad(of)))(rates) < 0).all()


# Accumulation


def accumulated(every, gradients, weights, values=None, **options):
    """The updates of each call, and what reached the optimizer inside, as its last state."""

    def update(updates, state, params=None, *, value=None, grad=None, weight=None, **extra):
        return updates, {"value": value, "grad": grad, "weight": weight}

    nothing = {"value": jnp.zeros(()), "grad": jnp.zeros(1), "weight": jnp.zeros(())}
    seen = O.Optimizer(lambda params: nothing, update)
    optimizer = O.accumulate(seen, every, **options)
    state, moves = optimizer.init(jnp.zeros(1)), []
    values = gradients if values is None else values
    for g, weight, value in zip(gradients, weights, values, strict=True):
        g = jnp.array([g], jnp.float32)
        move, state = optimizer.update(
            g, state, weight=jnp.float32(weight), grad=g, value=jnp.float32(value)
        )
        moves.append(float(move[0]))
    return moves, {name: float(x.sum()) for name, x in state.inner_opt_state.items()}


def test_accumulated_means_are_weighted_by_what_they_were_divided_by():
    # The mean of 1 over three tokens and of 9 over one: (3 * 1 + 1 * 9) / 4.
    moves, seen = accumulated(2, [1.0, 9.0], [3.0, 1.0], [2.0, 10.0])
    assert moves == [0.0, 3.0]
    assert seen == {"value": 4.0, "grad": 3.0, "weight": 4.0}
    g, w = np.random.default_rng(0).normal(size=7), [5.0, 0.0, 2.0, 128.0, 1.0, 0.0, 3.0]
    moves, _ = accumulated(7, g, w)
    np.testing.assert_allclose(moves[-1], np.average(g, weights=w), rtol=1e-5)


def test_equal_weights_give_the_mean_of_all_bit_for_bit():
    g = np.random.default_rng(1).normal(size=5)
    assert accumulated(5, g, [128.0] * 5)[0] == accumulated(5, g, [1.0] * 5)[0]


def test_sums_of_gradients_have_no_weights():
    moves, seen = accumulated(2, [1.0, 9.0], [3.0, 1.0], use_grad_mean=False)
    assert moves == [0.0, 10.0]
    assert seen == {"value": 10.0, "grad": 10.0, "weight": 4.0}


def test_a_mini_batch_of_weight_zero_counts_for_nothing_even_if_nan():
    assert accumulated(3, [1.0, np.nan, 4.0], [2.0, 0.0, 1.0])[0] == [0.0, 0.0, 2.0]


def test_weights_that_are_all_zero_give_no_update_and_leave_the_state():
    optimizer = O.accumulate(adamw(0.1, weight_decay=0.1), 2)
    params = jnp.ones((1, 1))
    state = optimizer.init(params)
    _, state = optimizer.update(params, state, params, weight=1.0)
    _, state = optimizer.update(params, state, params, weight=1.0)
    before = state
    for _ in range(2):
        move, state = optimizer.update(params * jnp.nan, state, params, weight=0.0)
        assert move == 0
    jax.tree.map(np.testing.assert_array_equal, state, before)


@pytest.mark.parametrize("weight", [-1.0, np.nan, jnp.ones(2), "abc"])
def test_weights_that_are_none(weight):
    optimizer = O.accumulate(sgd(0.1), 2)
    with pytest.raises((TypeError, ValueError), match="accumulate: weight"):
        optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), weight=weight)


def test_plateaus_within_accumulate_see_the_mean_of_all_values():
    optimizer = O.accumulate(O.reduce_on_plateau(0.5, patience=1), 2)
    state = optimizer.init(jnp.ones(1))
    for value, weight in ((8.0, 1.0), (0.0, 3.0), (0.0, 1.0), (3.0, 3.0)):
        move, state = optimizer.update(jnp.ones(1), state, value=value, weight=weight)
    assert move == 0.5  # 2, then 2.25


def test_a_line_search_within_accumulate_is_refused():
    with pytest.raises(ValueError, match=r"accumulate: optimizer .* line search"):
        O.accumulate(O.chain(O.lbfgs()), 2).init(jnp.ones(1))
    O.accumulate(O.lbfgs(), 1).init(jnp.ones(1))


PASSING_ON = {
    "chain": lambda inner: chain(clip(100.0), inner),
    "masked": lambda inner: O.masked(inner, True),
    "partition": lambda inner: O.partition({"*": inner}),
    "lookahead": lambda inner: O.lookahead(inner, 5, 0.5),
    "sam": lambda inner: O.sam(inner, sync_period=1),
    # It moves to the mean of two.
    "schedule_free": lambda inner: O.schedule_free(chain(inner, O.scale(2.0)), 0.1, b1=1.0),
    "apply_if_finite": lambda inner: O.apply_if_finite(inner, 3),
    "dynamic_loss_scale": lambda inner: O.dynamic_loss_scale(inner, 1.0),
    "params_ema": lambda inner: O.params_ema(inner),
    "inject_hyperparams": lambda inner: O.inject_hyperparams(lambda rate: inner)(0.1),
    "accumulate": lambda inner: O.accumulate(inner, 1),
}


@quick_first(4)
@pytest.mark.parametrize("wrap", PASSING_ON.values(), ids=PASSING_ON)
def test_wrappers_pass_the_weight_on(wrap):
    optimizer = wrap(O.accumulate(sgd(1.0), 2))
    params = {"w": jnp.zeros(1)}
    state = optimizer.init(params)
    for g, weight in ((1.0, 3.0), (9.0, 1.0)):
        grads = {"w": jnp.array([g])}
        updates, state = optimizer.update(grads, state, params, weight=weight)
    np.testing.assert_allclose(updates["w"], -3.0, rtol=1e-6)


def test_keywords_reach_a_transformation_that_names_them_alone():
    def update(updates, state, params=None, *, value):
        return value, state

    optimizer = chain(O.Optimizer(lambda params: (), update))
    assert optimizer.update(1.0, ((),), value=3.0, weight=1.0)[0] == 3.0


# Shapes


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
@pytest.mark.parametrize("options", [{}, {"consistent_rms": 0.2}])
def test_muon_of_a_matrix_without_elements(shape, options):
    optimizer, w = O.muon(0.1, **options), jnp.ones(shape)
    updates, _ = optimizer.update(w, optimizer.init(w), w)
    assert updates.shape == shape


def test_a_schedule_of_several_numbers_is_refused():
    with pytest.raises(ValueError, match=r"learning_rate\(0\) has shape \(3,\), expected a number"):
        O.sgd(lambda count: jnp.ones(3))


# Metrics


def test_long_sums_in_a_bf16_loop():
    metric = nn.metrics.mean()

    def step(sums, value):
        return metric.update(sums, value[None]), None

    sums, _ = jax.lax.scan(step, metric.init(), jnp.ones(1000, jnp.bfloat16))
    assert sums.total.value == 1000
    assert sums.weight.value == 1000


def test_a_padded_last_batch_is_not_counted():
    metric = nn.metrics.accuracy()
    logits, labels = jnp.eye(3), jnp.array([0, 1, 0])
    padded = jnp.concatenate([logits, jnp.full((2, 3), jnp.nan)]), jnp.array([0, 1, 0, 0, 0])
    whole = metric.update(metric.init(), logits, labels)
    with_padding = metric.update(metric.init(), *padded, jnp.array([1.0, 1.0, 1.0, 0.0, 0.0]))
    assert with_padding == whole


def test_devices_with_unequal_weights_are_not_averaged():
    metric = nn.metrics.mean()
    values, weights = jnp.array([[1.0, 1.0], [4.0, 0.0]]), jnp.array([[1.0, 1.0], [1.0, 0.0]])

    def on_device(v, w):
        return metric.compute(jax.lax.psum(metric.update(metric.init(), v, None, w), "devices"))

    means = jax.vmap(on_device, axis_name="devices")(values, weights)
    np.testing.assert_allclose(means, [2.0, 2.0])  # the mean of the two means would be 2.5


def test_predictions_with_an_axis_too_many_are_refused():
    metric = nn.metrics.accuracy(threshold=0.5)
    with pytest.raises(ValueError, match=r"\(3, 1\).*\(3,\)"):
        metric.update(metric.init(), jnp.ones((3, 1)), jnp.ones(3))


# Means of means


def test_accumulation_weighs_mini_batches_by_what_they_count():
    """Means of 1 over 3 tokens and 9 over 1: 5 without weights, 3 is the mean of all four."""
    optimizer = nn.optimizers.accumulate(sgd(1.0), every=2)
    for weights, expected in (((3.0, 1.0), 3.0), ((None, None), 5.0), ((0.0, 2.0), 9.0)):
        state = optimizer.init(jnp.zeros(1))
        for g, weight in zip((1.0, 9.0), weights, strict=True):
            updates, state = optimizer.update(jnp.full(1, g), state, weight=weight)
        np.testing.assert_allclose(updates, [-expected], rtol=1e-6)
        assert float(state.acc_weight) == 0


def test_accumulation_of_nothing_that_counts_is_an_update_of_zero():
    optimizer = nn.optimizers.accumulate(sgd(1.0), every=2)
    state = optimizer.init(jnp.zeros(1))
    for _ in range(2):
        updates, state = optimizer.update(jnp.full(1, 7.0), state, weight=0.0)
    np.testing.assert_array_equal(updates, [0])


@pytest.mark.slow
def test_accumulation_in_training_is_one_large_batch_whatever_is_padding():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 3)).astype(np.float32)
    labels = np.array([0, -1, -1, -1, 1, 0, 1, -1], np.int32)
    loss = nn.losses.ignoring(nn.losses.softmax_cross_entropy, -1)
    options = {"loss": loss, "key": jax.random.key(0), "epochs": 1, "shuffle": False}
    results = [
        nn.fit(nn.dense(2), (x, labels), optimizer=o, batch_size=b, progress=False, **options)
        for o, b in ((sgd(0.5), 8), (nn.optimizers.accumulate(sgd(0.5), 4), 2))
    ]
    np.testing.assert_allclose(
        results[0].params["kernel"], results[1].params["kernel"], rtol=1e-5, atol=1e-7
    )


def test_a_plateau_of_negative_losses_reduces_the_rate():
    """(1 - rtol) times a negative best is above it: everything was better."""
    optimizer = chain(sgd(1.0), nn.optimizers.reduce_on_plateau(0.5, patience=2, rtol=0.1))
    state = optimizer.init(jnp.ones(1))
    for loss in (-1.0, -1.0, -1.05, -1.0):
        updates, state = optimizer.update(jnp.ones(1), state, value=loss)
    np.testing.assert_allclose(updates, [-0.5])
    for loss in (-2.0, -3.0, -4.0):
        updates, state = optimizer.update(jnp.ones(1), state, value=loss)
    np.testing.assert_allclose(updates, [-0.5])


# The end of counts, and numbers that are none

LAST = jnp.int32(2**31 - 1)


def test_lbfgs_fills_all_of_its_memory_at_the_end_of_counts():
    optimizer, w = nn.optimizers.scale_by_lbfgs(memory_size=3), jnp.ones(2)
    curvature = jnp.array([1.0, 4.0])
    state = optimizer.init(w)._replace(count=LAST - 1)
    for _ in range(5):
        updates, state = optimizer.update(curvature * w, state, w)
        w = w - 0.1 * updates
    assert (state.weights_memory > 0).all()
    assert len(set(state.diff_params_memory[:, 0].tolist())) == 3
    assert state.count > LAST - 3


def test_sophia_estimates_as_often_at_the_end_of_counts():
    ones = jnp.ones(1)

    def estimate(grads, state, params=None, **extra):
        return ones, state + 1

    estimator = nn.optimizers.Optimizer(lambda params: jnp.int32(0), estimate)
    optimizer = nn.optimizers.scale_by_sophia(update_interval=4, hessian_diagonal_fn=estimator)
    state = optimizer.init(ones)._replace(count=LAST - 2)
    for _ in range(12):
        _, state = optimizer.update(ones, state, ones)
    assert state.hessian_fn_state == 3


def test_noise_is_new_at_the_end_of_counts():
    optimizer = nn.optimizers.add_noise(1.0, 0.0, jax.random.key(0))
    state, seen = optimizer.init(jnp.zeros(1))._replace(count=LAST - 1), set()
    for _ in range(4):
        updates, state = optimizer.update(jnp.zeros(1), state)
        seen.add(float(updates[0]))
    assert len(seen) == 4


def test_normalizing_by_nothing_leaves_zeros():
    optimizer = nn.optimizers.normalize_by_update_norm(eps=0.0)
    zeros = jnp.zeros(2)
    np.testing.assert_array_equal(optimizer.update(zeros, optimizer.init(zeros))[0], 0)


@pytest.mark.parametrize("name", ["reduce_on_plateau", "lbfgs"])
def test_states_begin_without_infinities(name):
    optimizer, w = getattr(nn.optimizers, name)(), jnp.ones(2)

    def loss(w):
        return jnp.sum(w**2)

    with jax.debug_infs(True):
        state = jax.jit(optimizer.init)(w)
        _, state = jax.jit(
            lambda w, state: optimizer.update(
                2 * w, state, w, value=loss(w), grad=2 * w, value_fn=loss
            )
        )(w, state)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
