"""`partition`, `masked`, `freeze` and weight decay: who moves how is chosen by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._core.paths import leaf_paths
from jaxnn.optimizers._by_path import MaskedNode
from tests.compiling import fast_jit
from tests.optimizer_wrapper_cases import assert_trees_close, signature, usual_promotion

O = nn.optimizers  # noqa: E741

PARAMS = {
    "encoder": ({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, (), {"scale": jnp.ones(2)}),
    "head": {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)},
}
PATHS = leaf_paths(PARAMS)


def moved(optimizer, params=PARAMS):
    """By how much each leaf moves by gradients of ones, by path."""
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert signature(updates) == signature(params)
    return {
        path: float(leaf.ravel()[0])
        for path, leaf in zip(leaf_paths(updates), jax.tree.leaves(updates), strict=True)
    }


# Who is chosen

MASKS = {
    "glob": "*/kernel",
    "globs": ("encoder/0/kernel", "head/k*"),
    "predicate": lambda path, leaf: path.endswith("kernel") and leaf.ndim == 2,
    "tree": {
        "encoder": ({"kernel": True, "bias": False}, (), {"scale": False}),
        "head": {"kernel": True, "bias": False},
    },
    "function": lambda params: jax.tree.map(lambda leaf: leaf.ndim == 2, params),
    "function-to-glob": lambda params: "*/kernel",
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_every_kind_of_mask(mask):
    kernels = {path: float(path.endswith("kernel")) for path in PATHS}
    assert moved(O.masked(O.scale(-1.0), mask)) == {p: 1 - 2 * k for p, k in kernels.items()}
    assert moved(O.freeze(mask)) == {p: 1 - k for p, k in kernels.items()}
    assert moved(O.add_decayed_weights(2.0, mask)) == {p: 1 + 2 * k for p, k in kernels.items()}


def test_a_mask_may_say_one_thing_for_a_subtree():
    expected = {path: float(path.startswith("head")) for path in PATHS}
    assert moved(O.freeze({"encoder": True, "head": False})) == expected
    assert moved(O.freeze(lambda params: {"encoder": True, "head": False})) == expected
    labels = {"encoder": "still", "head": "moving"}
    for given in (labels, lambda params: labels):
        optimizer = O.partition({"still": O.freeze(), "moving": O.identity()}, given)
        assert moved(optimizer) == expected


@pytest.mark.parametrize("mask", [True, False])
def test_one_boolean_for_all(mask):
    assert moved(O.freeze(mask)) == dict.fromkeys(PATHS, float(not mask))


def test_freeze_freezes_all():
    assert moved(O.freeze()) == moved(O.set_to_zero()) == dict.fromkeys(PATHS, 0.0)


def test_a_partition_by_glob():
    optimizer = O.partition({"head/*": O.scale(-1.0), "*/bias": O.scale(-2.0), "*": O.freeze()})
    assert moved(optimizer) == {
        "encoder/0/bias": -2,
        "encoder/0/kernel": 0,
        "encoder/2/scale": 0,
        "head/bias": -1,
        "head/kernel": -1,
    }


def test_the_first_pattern_counts_whatever_the_order_of_the_tree():
    optimizer = O.partition({"zzz*": O.scale(1.0), "*": O.scale(2.0)})
    params = {"aaa": jnp.ones(1), "zzz": jnp.ones(1)}
    updates, state = fast_jit(optimizer.update)(params, optimizer.init(params), params)
    updates, _ = fast_jit(optimizer.update)(updates, state, params)  # the state's keys are sorted
    assert updates == {"aaa": 4, "zzz": 1}


# Trees without leaves


@pytest.mark.parametrize("empty", [(), [], {}])
def test_an_empty_tree_is_no_list_of_globs(empty):
    for optimizer in (
        O.masked(O.sgd(0.1), empty),
        O.masked(O.sgd(0.1), lambda params: empty),
        O.freeze(empty),
        O.partition({"a": O.sgd(0.1)}, empty),
        O.adamw(0.1, weight_decay=0.1, mask=empty),
        O.muon(0.1, weight_decay_mask=empty, muon_weight_dimension_numbers=empty),
    ):
        assert optimizer.update(empty, optimizer.init(empty), empty)[0] == empty


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_muon_on_a_bare_array_has_a_part_without_leaves(shape):
    w = jnp.ones(shape)
    masked, plain = O.muon(0.1, weight_decay_mask=True), O.muon(0.1)
    updates, _ = masked.update(w, masked.init(w), w)
    np.testing.assert_array_equal(updates, plain.update(w, plain.init(w), w)[0])


# Errors


def init(optimizer):
    return optimizer.init(PARAMS)


REFUSED = {
    "partition-unmatched": (
        lambda: init(O.partition({"head/*": O.sgd(0.1), "*/kernel": O.sgd(0.1)})),
        ValueError,
        ["no pattern matches 'encoder/0/bias', 'encoder/2/scale'", "'head/*'", "'*' matches all"],
    ),
    "partition-matches-nothing": (
        lambda: init(O.partition({"haed/*": O.sgd(0.1), "*": O.freeze()})),
        ValueError,
        ["partition: 'haed/*'", "nearest are head/"],
    ),
    "partition-hidden": (
        lambda: init(O.partition({"*": O.freeze(), "head/*": O.sgd(0.1)})),
        ValueError,
        ["'head/*' matches only what the patterns before it do"],
    ),
    "partition-empty": (
        lambda: init(O.partition({})),
        ValueError,
        ["partition: transforms is empty, expected an optimizer for each part"],
    ),
    "partition-label": (
        lambda: init(O.partition({"a": O.sgd(0.1)}, {"encoder": "a", "head": "b"})),
        ValueError,
        ["param_labels has 'b' for 'head'", "['a']"],
    ),
    "partition-labels": (
        lambda: init(O.partition({"a": O.sgd(0.1)}, {"encoder": "a"})),
        ValueError,
        ["partition: param_labels: ", "it lacks 'head/bias'"],
    ),
    "partition-list": (
        lambda: O.partition([O.sgd(0.1)]),
        TypeError,
        ["partition: transforms is [", "expected a dict"],
    ),
    "partition-key": (
        lambda: O.partition({1: O.sgd(0.1)}),
        TypeError,
        ["has the key 1", "expected a glob"],
    ),
    "masked-matches-nothing": (
        lambda: init(O.masked(O.sgd(0.1), "head/kernal")),
        ValueError,
        ["masked: mask: 'head/kernal'", "nearest are head/kernel"],
    ),
    "masked-tree": (
        lambda: init(O.masked(O.sgd(0.1), {"encoder": True})),
        ValueError,
        ["masked: mask: ", "it lacks 'head/bias'"],
    ),
    "masked-updates": (
        lambda: O.masked(O.sgd(0.1), "*").update(PARAMS["head"], MASKED, PARAMS),
        ValueError,
        ["masked: updates and params", "lacks 'encoder/0/bias'"],
    ),
    "mask-of-numbers": (
        lambda: init(O.masked(O.sgd(0.1), {"encoder": True, "head": 1.5})),
        TypeError,
        ["masked: mask is {", "1.5", "expected globs"],
    ),
    "mask-function-of-numbers": (
        lambda: init(O.masked(O.sgd(0.1), lambda params: params)),
        TypeError,
        ["masked: mask: it has", "'encoder/0/bias'", "True or False"],
    ),
    "mask-nan": (lambda: O.freeze(float("nan")), TypeError, ["freeze: mask is nan", "booleans"]),
    "muon-numbers": (
        lambda: init(O.muon(0.1, muon_weight_dimension_numbers={})),
        ValueError,
        ["weight_dimension_numbers", "it lacks 'encoder/0/bias'"],
    ),
    "muon-numbers-kind": (
        lambda: init(O.muon(0.1, muon_weight_dimension_numbers=3)),
        TypeError,
        ["muon: muon_weight_dimension_numbers has 3", "MuonDimensionNumbers"],
    ),
    "muon-axis": (
        lambda: O.scale_by_muon(weight_dimension_numbers=O.MuonDimensionNumbers(0, 5)).update(
            jnp.ones((2, 3)), O.scale_by_muon().init(jnp.ones((2, 3)))
        ),
        ValueError,
        ["output_axis=5", "2 axes, expected different axes"],
    ),
    "freeze": (lambda: init(O.freeze("nothing")), ValueError, ["'nothing'", "nearest"]),
}
MASKED = O.masked(O.sgd(0.1), True).init(PARAMS)


@pytest.mark.parametrize(("call", "error", "fragments"), REFUSED.values(), ids=REFUSED)
def test_refused(call, error, fragments):
    with pytest.raises(error) as raised:
        call()
    missing = [fragment for fragment in fragments if fragment not in str(raised.value)]
    assert not missing, f"{missing} not in {str(raised.value)!r}"


# State


def test_frozen_leaves_cost_no_state():
    optimizer = O.partition({"head/*": O.adam(1e-3), "*": O.freeze()})
    sizes = {
        path: leaf.size
        for path, leaf in zip(
            leaf_paths(optimizer.init(PARAMS)), jax.tree.leaves(optimizer.init(PARAMS)), strict=True
        )
    }
    head = sum(leaf.size for leaf in jax.tree.leaves(PARAMS["head"]))
    assert sum(sizes.values()) == 1 + 2 * head
    assert not any("encoder" in path for path in sizes)


def test_the_compiler_drops_the_gradients_of_frozen_leaves():
    x = jnp.ones((8, 64))
    params = {"encoder": jnp.ones((64, 64)), "head": jnp.ones((64, 1))}
    optimizer = O.partition({"head": O.sgd(0.1), "*": O.freeze()})

    def step(params, state):
        grads = jax.grad(lambda p: jnp.sum(jnp.tanh(x @ p["encoder"]) @ p["head"]))(params)
        return optimizer.update(grads, state, params)

    compiled = jax.jit(step).lower(params, optimizer.init(params)).compile()
    flops_of_encoder_gradient = 2 * 8 * 64 * 64
    assert compiled.cost_analysis()["flops"] < 1.5 * flops_of_encoder_gradient  # forward alone


def test_states_are_those_of_optax():
    optax = pytest.importorskip("optax")
    mask = {"encoder": False, "head": True}
    labels = {"encoder": "a", "head": "b"}
    for make in (
        lambda o: o.masked(o.adam(0.1), mask),
        lambda o: o.partition({"a": o.adam(0.1), "b": o.sgd(0.1, 0.9)}, labels),
    ):
        with usual_promotion():
            theirs = make(optax).init(PARAMS)
        assert leaf_paths(make(O).init(PARAMS)) == leaf_paths(theirs)


def test_init_takes_shapes_and_steps_take_tracers():
    optimizer = O.partition({"head/*": O.adamw(0.1, weight_decay=0.1), "*": O.sgd(0.1, 0.9)})
    shapes = jax.eval_shape(lambda: PARAMS)
    state = optimizer.init(shapes)
    assert_trees_close(state, optimizer.init(PARAMS), rtol=0, atol=0)
    updates, new_state = jax.eval_shape(optimizer.update, shapes, state, shapes)
    assert signature(updates) == signature(shapes)
    assert signature(new_state) == signature(state)


def test_updates_without_params():
    optimizer = O.partition({"head/*": O.sgd(1.0), "*": O.freeze()})
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS))
    assert (updates["head"]["kernel"] == -1).all()
    assert (updates["encoder"][0]["kernel"] == 0).all()


# What is passed on


def test_extra_keywords_reach_the_part_as_it_is():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra, params=params)
        return updates, state

    spy = O.Optimizer(lambda params: (), update)
    optimizer = O.partition({"head/*": spy, "*": O.freeze()})

    def value_fn(params):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))

    optimizer.update(
        PARAMS,
        optimizer.init(PARAMS),
        PARAMS,
        value=3.0,
        grad=PARAMS,
        value_fn=value_fn,
        grad_fn=lambda params, i: jax.grad(value_fn)(params),
    )
    part = {
        "encoder": ({"kernel": MaskedNode(), "bias": MaskedNode()}, (), {"scale": MaskedNode()})
    }
    part["head"] = PARAMS["head"]
    assert seen["value"] == 3.0
    for name in ("grad", "params"):
        assert jax.tree.structure(seen[name]) == jax.tree.structure(part)
    halved = jax.tree.map(lambda leaf: leaf / 2, seen["params"])
    assert seen["value_fn"](seen["params"]) == value_fn(PARAMS)
    assert seen["value_fn"](halved) == value_fn(PARAMS) - value_fn(PARAMS["head"]) / 2
    assert jax.tree.structure(seen["grad_fn"](halved, 0)) == jax.tree.structure(part)


def test_masking_of_extra_keywords_can_be_left_out():
    def update(updates, state, params=None, *, grad, **extra):
        assert jax.tree.structure(grad) == jax.tree.structure(PARAMS)
        return updates, state

    optimizer = O.masked(
        O.Optimizer(lambda params: (), update), "head/*", mask_compatible_extra_args=False
    )
    optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, grad=PARAMS)


def test_sam_of_a_part_goes_up_in_that_part_alone():
    def loss(params):
        return jnp.sum(params["head"] * params["encoder"]) + jnp.sum(params["head"] ** 2) / 2

    params = {"encoder": jnp.array([3.0]), "head": jnp.array([4.0])}
    optimizer = O.partition({"head": O.sam(O.sgd(1.0), rho=0.5), "*": O.freeze()})
    updates, _ = optimizer.update(
        jax.grad(loss)(params), optimizer.init(params), params, value_fn=loss
    )
    np.testing.assert_allclose(updates["head"], -(3 + 4.5))
    assert updates["encoder"] == 0


# Together with others


def test_partitions_nest():
    inner = O.partition({"*/bias": O.scale(-2.0), "*": O.scale(-3.0)})
    optimizer = O.partition({"head/*": inner, "*": O.freeze()})
    head = {"head/bias": -2.0, "head/kernel": -3.0}
    assert moved(optimizer) == {path: head.get(path, 0.0) for path in PATHS}


def test_ours_in_optax_and_optax_in_ours():
    optax = pytest.importorskip("optax")
    labels = {"encoder": "a", "head": "b"}
    grads = jax.tree.map(lambda leaf: 2 * leaf, PARAMS)

    def two_updates(optimizer):
        state = optimizer.init(PARAMS)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, PARAMS)
        return updates

    def all_of(a, b):
        return {
            "ours in optax": two_updates(
                optax.multi_transform(
                    {
                        "a": a.masked(a.adam(0.1), {"encoder": True, "head": False}),
                        "b": a.freeze(True),
                    },
                    labels,
                )
            ),
            "optax in ours": two_updates(
                b.partition(
                    {"a": optax.adam(0.1), "b": optax.chain(optax.trace(0.9), optax.scale(-0.1))},
                    labels,
                )
            ),
        }

    with usual_promotion():
        mixed = fast_jit(lambda: all_of(O, O))()
        expected = fast_jit(lambda: all_of(optax, optax))()
    assert_trees_close(mixed, expected, rtol=2e-5)


def test_a_partition_trains_its_part():
    x = jnp.linspace(-1, 1, 32)[:, None]
    train = nn.training_run(
        nn.serial(encoder=nn.dense(8), activation=nn.tanh, head=nn.dense(1)),
        loss=nn.losses.squared_error,
        optimizer=lambda rate: O.partition({"head/*": O.adam(rate), "*": O.freeze()}),
        epochs=20,
    )
    run = fast_jit(jax.vmap(train, in_axes=(None, None, 0)))
    params, _, history = run(jax.random.key(0), (x, x**2), jnp.array([0.0, 0.1]))
    np.testing.assert_array_equal(*params["encoder"]["kernel"])
    assert not np.allclose(*params["head"]["kernel"])
    assert history["loss"][1, -1] < 0.5 * history["loss"][0, -1]
