"""What is peculiar to single optimizers, and where they differ from those of optax and torch."""

import inspect
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.optimizers import MuonDimensionNumbers, adam, adamw, apply_updates
from tests.compiling import fast_jit
from tests.numpy_reference import optimizers_by_leaf as reference
from tests.optimizer_cases import usual_promotion
from tests.parameters import quick_first

# Drop-in for optax

# Where our parameters are not those of optax, by function: the docstrings say why.
STATED = {
    "adamw": {"weight_decay", "mask"},
    "nadam": {"nesterov"},
    "nadamw": {"weight_decay", "mask", "nesterov"},
    "lars": {"weight_decay_mask"},
    "scale_by_learning_rate": {"learning_rate"},
    "adafactor": {"dtype_momentum"},
    # The same by another name, or made when it is needed.
    "adopt": {"clip_value_fn"},
    "scale_by_adopt": {"clip_value_fn"},
    "scale_by_factored_rms": {"decay_rate_fn"},
    "sophia": {"hessian_diagonal_fn"},
    "lbfgs": {"linesearch"},
    "chain": {"args"},
    "named_chain": {"args"},
    "scale_by_backtracking_linesearch": {"verbose"},
    "global_norm": {"updates"},
    # More may be left out, or said.
    "add_noise": {"key", "seed"},
    "freeze": {"mask"},
    "masked": {"mask_compatible_extra_args"},
    "partition": {"param_labels", "mask_compatible_extra_args"},
    "sam": {"adv_optimizer", "opaque_mode"},
}
FUNCTIONS = [
    name for name in nn.optimizers.__all__ if inspect.isfunction(getattr(nn.optimizers, name))
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_are_those_of_optax_in_order_with_their_defaults(name):
    optax = pytest.importorskip("optax")
    theirs = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    if theirs is None:
        assert name not in STATED
        return
    ours = inspect.signature(getattr(nn.optimizers, name)).parameters
    positional = [
        p for p, parameter in ours.items() if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    different = set()
    for place, (p, parameter) in enumerate(inspect.signature(theirs).parameters.items()):
        is_here = parameter.kind is parameter.KEYWORD_ONLY or positional[place : place + 1] == [p]
        if p not in ours or not is_here or ours[p].default != parameter.default:
            different.add(p)
    assert different == STATED.get(name, set())


def test_extra_keywords_inside_optax_want_its_type():
    optax = pytest.importorskip("optax")
    w = jnp.array([1.0, -2.0])
    ours = optax.GradientTransformationExtraArgs(*nn.optimizers.sophia(0.1))
    with usual_promotion():
        chained = optax.chain(optax.clip(1.0), ours)
        updates, _ = chained.update(w, chained.init(w), w, obj_fn=lambda w: jnp.sum(w**2))
    np.testing.assert_allclose(updates, [-0.1, 0.1], rtol=1e-6)


# Where optax differs


def walk(optimizer, gradients, start=0.0):
    """The updates by given gradients of a vector with one element."""
    w = jnp.full(1, start)
    state = optimizer.init(w)
    walked = []
    for g in gradients:
        updates, state = optimizer.update(jnp.full(1, g), state, w)
        w = apply_updates(w, updates)
        walked.append(updates.item())
    return walked


def test_adadelta_descends_without_a_rate():
    assert walk(nn.optimizers.adadelta(), [1.0])[0] < 0


def test_adan_looks_ahead_by_b2():
    eps_free = {"eps": 0.0, "eps_root": 0.0}
    _, second = walk(nn.optimizers.adan(1.0, 0.5, 0.75, 0.5, **eps_free), [1.0, 3.0])
    m, v = (0.25 * 1 + 0.5 * 3) / 0.75, 0.25 * 2 / (1 - 0.75**2)
    n = (0.25 * 1 + 0.5 * (3 + 0.75 * 2) ** 2) / 0.75
    assert second == pytest.approx(-(m + 0.75 * v) / np.sqrt(n), rel=1e-6)


def test_rprop_moves_at_the_first_step():
    assert walk(nn.optimizers.rprop(0.25), [1.0, 1.0, -1.0, -1.0]) == pytest.approx(
        [-0.25, -0.3, 0.0, 0.15]
    )


def test_amsgrad_of_torch_forgets_that_the_first_gradient_was_large():
    large_then_small = [100.0] + [1.0] * 30
    ours = walk(nn.optimizers.amsgrad(1.0, b1=0.0), large_then_small)
    of_torch = walk(adam(1.0, b1=0.0, amsgrad=True), large_then_small)
    assert ours[-1] == pytest.approx(-0.01, rel=1e-3)
    assert of_torch[-1] == pytest.approx(-np.sqrt((1 - 0.999**31) / (0.001 * 100**2)), rel=1e-3)


def test_adam_is_nesterov_or_amsgrad():
    for optimizer in (
        lambda **kw: adam(0.1, **kw),
        lambda **kw: adamw(0.1, weight_decay=0.1, **kw),
    ):
        with pytest.raises(ValueError, match="nesterov and amsgrad are True"):
            optimizer(nesterov=True, amsgrad=True)


@pytest.mark.parametrize("b2", [0.999, 0.9999])
def test_radam_in_float32_counts_right(b2):
    walked = walk(nn.optimizers.radam(1.0, b2=b2), [1.0] * 8)
    last = 2 / (1 - b2) - 1
    expected = []
    for t in range(1, 9):
        rho = last - 2 * t * b2**t / (1 - b2**t)
        square = (rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho)
        expected.append(-1.0 if rho < 5 else -np.sqrt(square))
    np.testing.assert_allclose(walked, expected, rtol=1e-3)
    assert walked[4] == pytest.approx(-1.0, rel=1e-5)
    assert abs(walked[5]) < 0.03


# Weight decay


DECAYING = {
    "adadelta": "weight_decay_mask",
    "adamaxw": "mask",
    "adan": "mask",
    "ademamix": "mask",
    "lamb": "mask",
    "lars": "weight_decay_mask",
    "lion": "mask",
    "nadamw": "mask",
    "novograd": "mask",
    "prodigy": "mask",
}


@quick_first(3)
@pytest.mark.parametrize("constructor", DECAYING)
def test_decay_leaves_out_biases_and_scales_unless_told_otherwise(constructor):
    w = {"kernel": jnp.array([[3.0, 1.0]]), "bias": jnp.array([3.0, 1.0]), "scale": jnp.float32(3)}
    g = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), w)

    def moves(weight_decay, **kwargs):
        make = getattr(nn.optimizers, constructor)
        optimizer = make(learning_rate=0.1, weight_decay=weight_decay, **kwargs)
        updates, _ = optimizer.update(g, optimizer.init(w), w)
        return updates

    without, decayed = moves(0.0), moves(0.5)
    assert (decayed["kernel"] != without["kernel"]).all()
    for name in ("bias", "scale"):
        np.testing.assert_allclose(decayed[name], without[name], rtol=1e-6)
    only_bias = moves(0.5, **{DECAYING[constructor]: "bias"})
    assert (only_bias["bias"] != without["bias"]).all()
    np.testing.assert_allclose(only_bias["kernel"], without["kernel"], rtol=1e-6)


# Prodigy


def test_prodigy_stays_where_it_is_while_gradients_are_zero():
    optimizer = nn.optimizers.prodigy()
    w = jnp.ones(3)
    updates, state = optimizer.update(jnp.zeros(3), optimizer.init(w), w)
    assert (updates == 0).all()
    assert state.estim_lr == jnp.float32(1e-6)


def test_prodigy_remembers_a_copy_of_the_params():
    w = jnp.ones(3)
    assert (
        nn.optimizers.prodigy().init(w).params0.unsafe_buffer_pointer() != w.unsafe_buffer_pointer()
    )


def test_the_rate_that_prodigy_tells_is_the_one_it_found():
    optimizer = nn.optimizers.prodigy(0.5)
    before = optimizer.init(jnp.ones(1))
    assert optimizer.update.learning_rates(before, before)[""] == pytest.approx(5e-7)


# Adafactor


@quick_first(1)
@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((4, 3), (3,), (4,)), ((3, 4), (3,), (4,)), ((2, 5, 3), (2, 3), (2, 5)), ((1, 4), (1,), (1,))],
)
def test_adafactor_factors_the_two_largest_axes(shape, rows, columns):
    optax = pytest.importorskip("optax")
    g = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    kwargs = {"min_dim_size_to_factor": 2}
    ours, theirs = (o.scale_by_factored_rms(**kwargs) for o in (nn.optimizers, optax))
    state = ours.init(g)
    is_factored = shape != (1, 4)
    assert state.v_row.shape == (rows if is_factored else (1,))
    assert state.v_col.shape == (columns if is_factored else (1,))
    assert state.v.shape == ((1,) if is_factored else shape)
    with usual_promotion():
        expected, _ = theirs.update(g, theirs.init(g), g)
    np.testing.assert_allclose(ours.update(g, state)[0], expected, rtol=1e-5)


def test_adafactor_without_a_rate_moves_in_proportion_to_the_weights():
    optimizer = nn.optimizers.adafactor()
    w = jnp.array([3.0, -4.0])
    updates, _ = optimizer.update(jnp.array([0.1, 7.0]), optimizer.init(w), w)
    np.testing.assert_allclose(updates, -np.sqrt(12.5) * np.ones(2), rtol=1e-5)


# Muon


def random_matrix(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def singular_values(x):
    return np.linalg.svd(np.asarray(x, np.float64), compute_uv=False)


@pytest.mark.parametrize("shape", [(4, 4), (8, 3), (3, 8)])
def test_muon_makes_singular_values_about_one(shape):
    g = random_matrix(*shape)
    optimizer = nn.optimizers.scale_by_muon()
    updates, _ = optimizer.update(g, optimizer.init(g))
    assert ((singular_values(updates) > 0.65) & (singular_values(updates) < 1.25)).all()
    left, _, right = np.linalg.svd(np.asarray(g), full_matrices=False)
    aligned = left.T @ np.asarray(updates) @ right.T
    np.testing.assert_allclose(aligned, np.diag(np.diag(aligned)), atol=1e-3)


def test_muon_of_a_convolution_kernel_is_that_of_its_matrix():
    g = random_matrix(3, 3, 4, 6)
    numbers = MuonDimensionNumbers((0, 1, 2), 3)
    of_kernel = nn.optimizers.scale_by_muon(weight_dimension_numbers=numbers)
    of_matrix = nn.optimizers.scale_by_muon()
    flat = g.reshape(36, 6)
    updates, _ = of_kernel.update({"k": g}, of_kernel.init({"k": g}))
    expected, _ = of_matrix.update(flat, of_matrix.init(flat))
    np.testing.assert_allclose(updates["k"].reshape(36, 6), expected, rtol=1e-4, atol=1e-5)


def test_muon_of_a_batch_is_that_of_each_matrix():
    g = random_matrix(4, 3, 2)
    batched = nn.optimizers.scale_by_muon(weight_dimension_numbers=MuonDimensionNumbers(-1, 0))
    plain = nn.optimizers.scale_by_muon()
    updates, _ = batched.update(g, batched.init(g))
    for i in range(3):
        matrix = g[:, i].T
        expected, _ = plain.update(matrix, plain.init(matrix))
        np.testing.assert_allclose(updates[:, i].T, expected, rtol=1e-4, atol=1e-5)


def test_soap_has_a_basis_for_each_axis_that_is_not_too_long(x64):
    gradients = np.random.default_rng(0).normal(size=(12, 3, 5, 4)) * np.linspace(0.1, 3, 4)
    options = {"precondition_frequency": 3, "max_precond_dim": 4}
    optimizer = nn.optimizers.scale_by_soap(**options)
    init, update = reference.soap(-1.0, **options)
    _, steps = fast_jit(jax.lax.scan, static_argnums=0)(
        lambda state, g: optimizer.update(g, state)[::-1], optimizer.init(gradients[0]), gradients
    )
    state = init(gradients[0])
    for g, step in zip(gradients, steps, strict=True):
        expected, state = update(g, state, g)
        np.testing.assert_allclose(step, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["adafactor", "muon", "soap"])
def test_matrix_without_elements_gets_updates_without_elements(name):
    optimizer, params = getattr(nn.optimizers, name)(0.1), jnp.zeros((0, 3))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert updates.shape == (0, 3)


MUON_PARAMS = {
    "embedding": random_matrix(5, 4),
    "hidden": {"kernel": random_matrix(4, 3), "bias": random_matrix(3)},
}


def by_tree():
    return {"embedding": None, "hidden": {"kernel": MuonDimensionNumbers(), "bias": None}}


def by_function(params):
    return {
        "embedding": None,
        "hidden": jax.tree.map(
            lambda p: MuonDimensionNumbers() if p.ndim == 2 else None, params["hidden"]
        ),
    }


@pytest.mark.parametrize("numbers", [by_tree(), by_function], ids=["tree", "function"])
def test_muon_leaves_to_adam_what_it_is_told_to(numbers):
    optimizer = nn.optimizers.muon(0.1, muon_weight_dimension_numbers=numbers)
    of_adam = nn.optimizers.nadam(0.1)
    updates, state = optimizer.update(MUON_PARAMS, optimizer.init(MUON_PARAMS), MUON_PARAMS)
    expected, _ = of_adam.update(MUON_PARAMS, of_adam.init(MUON_PARAMS))
    np.testing.assert_allclose(updates["embedding"], expected["embedding"], rtol=1e-5)
    np.testing.assert_allclose(updates["hidden"]["bias"], expected["hidden"]["bias"], rtol=1e-5)
    assert not np.allclose(updates["hidden"]["kernel"], expected["hidden"]["kernel"])
    assert len(jax.tree.leaves(state.inner_states["muon"].inner_state[0].mu)) == 1


def test_muon_takes_a_subtree():
    numbers = {"embedding": MuonDimensionNumbers(), "hidden": None}
    optimizer = nn.optimizers.muon(0.1, muon_weight_dimension_numbers=numbers)
    state = optimizer.init(MUON_PARAMS)
    assert len(jax.tree.leaves(state.inner_states["adam"].inner_state[0].mu)) == 2


def test_adam_in_muon_decays_its_matrices():
    w = {"conv": random_matrix(2, 2, 2), "bias": random_matrix(2)}
    zeros = jax.tree.map(jnp.zeros_like, w)
    optimizer = nn.optimizers.muon(0.1, adam_weight_decay=0.5)
    updates, _ = optimizer.update(zeros, optimizer.init(w), w)
    np.testing.assert_allclose(updates["conv"], -0.05 * w["conv"], rtol=1e-5)
    assert (updates["bias"] == 0).all()


@pytest.mark.parametrize(
    ("numbers", "shape"),
    [(MuonDimensionNumbers(), (3,)), (MuonDimensionNumbers(0, 0), (3, 3))],
)
def test_muon_refuses_what_is_no_matrix(numbers, shape):
    optimizer = nn.optimizers.scale_by_muon(weight_dimension_numbers=numbers)
    g = jnp.ones(shape)
    with pytest.raises(ValueError, match="expected different axes of a matrix"):
        optimizer.update(g, optimizer.init(g))


def test_muon_of_torch_but_for_its_bfloat16(monkeypatch, x64):
    torch = pytest.importorskip("torch")
    from torch.optim import _muon

    def in_float64(g, coefficients, steps, eps):
        x = g.T if g.size(0) > g.size(1) else g
        x = x / x.norm().clamp(min=eps)
        a, b, c = coefficients
        for _ in range(steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.T if g.size(0) > g.size(1) else x

    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", in_float64)
    w = np.random.default_rng(0).standard_normal((5, 3))
    theirs = torch.from_numpy(w.T.copy()).requires_grad_()
    optimizer_of_torch = torch.optim.Muon([theirs], 0.1, weight_decay=0.3, nesterov=False)
    optimizer = nn.optimizers.muon(0.1, weight_decay=0.3, nesterov=False, eps=1e-30)
    ours = jnp.asarray(w)
    state = optimizer.init(ours)
    for _ in range(5):
        g = np.sin(np.asarray(ours))
        theirs.grad = torch.from_numpy(g.T.copy())
        optimizer_of_torch.step()
        updates, state = optimizer.update(jnp.asarray(g), state, ours)
        ours = apply_updates(ours, updates)
    np.testing.assert_allclose(ours.T, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)


# Sophia


def quadratic(w):
    curvature = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    return 0.5 * w @ curvature @ w


def test_hutchinson_is_right_in_the_mean():
    estimator = nn.optimizers.hutchinson_estimator_diag_hessian(jax.random.key(3))
    w = jnp.ones(2)

    def step(state, _):
        estimate, state = estimator.update(w, state, w, obj_fn=quadratic)
        return state, estimate

    _, estimates = jax.lax.scan(step, estimator.init(w), length=400)
    assert set(np.unique(estimates)) == {1.0, 2.0, 3.0, 4.0}
    np.testing.assert_allclose(estimates.mean(0), [3.0, 2.0], atol=0.15)


def test_hutchinson_draws_the_signs_of_optax():
    optax = pytest.importorskip("optax")
    w = {"a": jnp.ones(5), "b": jnp.ones((2, 2))}

    def objective(w):
        return jnp.sum(w["a"]) ** 2 * jnp.sum(w["b"]) ** 2

    ours = nn.optimizers.hutchinson_estimator_diag_hessian()
    with jax.legacy_prng_key("allow"), usual_promotion():
        theirs = optax.contrib.hutchinson_estimator_diag_hessian()
        states = [ours.init(w), theirs.init(w)]
        for _ in range(3):
            (a, states[0]), (b, states[1]) = (
                o.update(w, s, w, obj_fn=objective)
                for o, s in zip((ours, theirs), states, strict=True)
            )
            jax.tree.map(np.testing.assert_allclose, a, b)


def test_sophia_estimates_every_so_often_by_either_keyword():
    optimizer = nn.optimizers.sophia(0.1, update_interval=2)
    w = jnp.array([1.0, -2.0])

    @fast_jit
    def step(w, state):
        g = jax.grad(quadratic)(w)
        updates, state = optimizer.update(g, state, w, value_fn=quadratic)
        return apply_updates(w, updates), state

    states = [optimizer.init(w)]
    for _ in range(4):
        w, state = step(w, states[-1])
        states.append(state)
    changed = [not np.array_equal(after[0].nu, before[0].nu) for before, after in pairwise(states)]
    assert changed == [True, False, True, False]


@pytest.mark.parametrize("keyword", ["obj_fn", "value_fn"])
def test_sophia_of_a_part_of_the_params(keyword):
    optimizer = nn.optimizers.masked(nn.optimizers.sophia(0.1), "a")
    w = {"a": jnp.array([1.0, -2.0]), "b": jnp.ones(1)}
    objective = {keyword: lambda w: quadratic(w["a"] * w["b"])}
    updates, _ = optimizer.update(w, optimizer.init(w), w, **objective)
    np.testing.assert_allclose(updates["a"], [-0.1, 0.1], rtol=1e-6)
    assert updates["b"] == 1


def test_sophia_wants_an_objective():
    optimizer = nn.optimizers.sophia(0.1)
    w = jnp.ones(2)
    with pytest.raises(ValueError, match="obj_fn is None, expected"):
        optimizer.update(w, optimizer.init(w), w)


@pytest.mark.slow
def test_sophia_prints_its_win_rate(capsys):
    optimizer = nn.optimizers.scale_by_sophia(verbose=True, print_win_rate_every_n_steps=1)
    w = jnp.ones(2)
    optimizer.update(w, optimizer.init(w), w, obj_fn=quadratic)
    jax.effects_barrier()
    assert "win rate: 0.0" in capsys.readouterr().out
