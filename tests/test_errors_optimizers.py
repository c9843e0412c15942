"""Bad input to optimizers and regularizers: the message says what, what came, what was expected."""

import jax.numpy as jnp
import pytest

import jaxnn as nn

O = nn.optimizers  # noqa: E741
PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}


def update(optimizer, updates=PARAMS, params=PARAMS):
    return optimizer.update(updates, optimizer.init(PARAMS), params)


# Each row: a call, the error, what its message has. The first fragment is the argument.
OUT_OF_RANGE = {
    "sgd-rate": (lambda: O.sgd(-0.1), ["learning_rate", "-0.1", ">= 0"]),
    "sgd-rate-nan": (lambda: O.sgd(float("nan")), ["learning_rate", "nan", ">= 0"]),
    "sgd-rate-array": (lambda: O.sgd(jnp.float32(-1.0)), ["learning_rate", "-1.0", ">= 0"]),
    "sgd-momentum": (lambda: O.sgd(0.1, momentum=1.5), ["momentum", "1.5", "[0, 1]"]),
    "rmsprop-rate": (lambda: O.rmsprop(-1), ["learning_rate", "-1", ">= 0"]),
    "rmsprop-decay": (lambda: O.rmsprop(0.1, decay=2), ["decay", "2", "[0, 1]"]),
    "rmsprop-eps": (lambda: O.rmsprop(0.1, eps=-1.0), ["eps", "-1.0", ">= 0"]),
    "rmsprop-initial_scale": (
        lambda: O.rmsprop(0.1, initial_scale=-1.0),
        ["initial_scale", "-1.0", ">= 0"],
    ),
    "rmsprop-momentum": (lambda: O.rmsprop(0.1, momentum=-0.5), ["momentum", "-0.5", "[0, 1]"]),
    "adam-rate": (lambda: O.adam(-0.1), ["learning_rate", "-0.1", ">= 0"]),
    "adam-b1": (lambda: O.adam(0.1, b1=1.1), ["b1", "1.1", "[0, 1]"]),
    "adam-b2": (lambda: O.adam(0.1, b2=-0.1), ["b2", "-0.1", "[0, 1]"]),
    "adam-eps": (lambda: O.adam(0.1, eps=-1e-8), ["eps", "-1e-08", ">= 0"]),
    "adam-eps_root": (lambda: O.adam(0.1, eps_root=-1.0), ["eps_root", "-1.0", ">= 0"]),
    "adamw-rate": (lambda: O.adamw(-1, weight_decay=0.1), ["learning_rate", "-1", ">= 0"]),
    "adamw-b1": (lambda: O.adamw(0.1, 2, weight_decay=0.1), ["b1", "2", "[0, 1]"]),
    "adamw-decay": (lambda: O.adamw(0.1, weight_decay=-0.1), ["weight_decay", "-0.1", ">= 0"]),
    "add_decayed_weights": (
        lambda: O.add_decayed_weights(-0.1),
        ["weight_decay", "-0.1", ">= 0"],
    ),
    "scale_by_adam": (lambda: O.scale_by_adam(b1=7), ["b1", "7", "[0, 1]"]),
    "scale_by_rms": (lambda: O.scale_by_rms(7), ["scale_by_rms: decay", "7", "[0, 1]"]),
    "scale_by_stddev": (lambda: O.scale_by_stddev(7), ["scale_by_stddev: decay", "7", "[0, 1]"]),
    "scale_by_learning_rate": (lambda: O.scale_by_learning_rate(-1), ["learning_rate", "-1"]),
    "trace": (lambda: O.trace(1.5), ["trace: decay", "1.5", "[0, 1]"]),
    "clip": (lambda: O.clip(-1.0), ["clip: max_delta", "-1.0", ">= 0"]),
    "clip_by_global_norm": (
        lambda: O.clip_by_global_norm(-1.0),
        ["clip_by_global_norm: max_norm", "-1.0", ">= 0"],
    ),
    "l1": (lambda: nn.regularizers.l1(-1.0), ["l1: strength", "-1.0", ">= 0"]),
    "l2": (lambda: nn.regularizers.l2(-1.0), ["l2: strength", "-1.0", ">= 0"]),
    "elastic_net-l1": (
        lambda: nn.regularizers.elastic_net(-1.0, 0.1),
        ["elastic_net: l1_strength", "-1.0", ">= 0"],
    ),
    "elastic_net-l2": (
        lambda: nn.regularizers.elastic_net(0.1, -1.0),
        ["elastic_net: l2_strength", "-1.0", ">= 0"],
    ),
}

INCOMPATIBLE = {
    "sgd-nesterov": (lambda: O.sgd(0.1, nesterov=True), ["nesterov", "momentum"]),
    "sgd-averaged": (lambda: O.sgd(0.1, averaged=True), ["averaged", "momentum"]),
    "rmsprop-nesterov": (lambda: O.rmsprop(0.1, nesterov=True), ["nesterov", "momentum"]),
    "chain-state": (
        lambda: O.chain(O.clip(1.0), O.clip(1.0)).update(PARAMS, ((),)),
        ["chain: state", "1", "2"],
    ),
    "apply_updates": (
        lambda: O.apply_updates(PARAMS, {"kernel": jnp.ones((2, 2))}),
        ["apply_updates: updates", "lacks 'bias'"],
    ),
    "adam-structure": (
        lambda: update(O.adam(0.1), {"kernel": jnp.ones((2, 2))}),
        ["adam: updates", "lacks 'bias'"],
    ),
    "rmsprop-structure": (
        lambda: update(O.rmsprop(0.1), {"kernel": jnp.ones((2, 2))}),
        ["scale_by_rms: updates", "lacks 'bias'"],
    ),
    "trace-structure": (
        lambda: update(O.sgd(0.1, 0.9), {**PARAMS, "scale": jnp.ones(2)}),
        ["trace: ", "lacks 'scale'"],
    ),
    "decay-structure": (
        lambda: update(O.add_decayed_weights(0.1), {"kernel": jnp.ones((2, 2))}),
        ["add_decayed_weights: updates", "lacks 'bias'"],
    ),
    "decay-no-params": (
        lambda: update(O.adamw(0.1, weight_decay=0.1), params=None),
        ["add_decayed_weights: params", "None"],
    ),
    "mask-glob": (
        lambda: update(O.adamw(0.1, weight_decay=0.1, mask="*/kernal")),
        ["'*/kernal'", "nearest", "kernel"],
    ),
    "mask-tree": (
        lambda: update(O.add_decayed_weights(0.1, {"kernel": True})),
        ["lacks 'bias'"],
    ),
    "mask-callable": (
        lambda: update(O.add_decayed_weights(0.1, lambda params: {"kernel": True})),
        ["lacks 'bias'"],
    ),
    "penalty-glob": (
        lambda: nn.regularizers.l2(0.1, where="scale")(PARAMS),
        ["'scale'", "nearest", "bias"],
    ),
}

WRONG_TYPE = {
    "chain-none": (lambda: O.chain(O.clip(1.0), None), ["chain: transformation 1", "None"]),
    "chain-constructor": (lambda: O.chain(O.adam), ["chain: transformation 0", "Optimizer"]),
    "adamw-no-decay": (lambda: O.adamw(0.1), ["weight_decay"]),
    "unknown-keyword": (lambda: O.adam(0.1, beta1=0.9), ["beta1"]),
    "rate-text": (lambda: O.adam("0.1"), ["learning_rate", "'0.1'", "number"]),
    "rate-none": (lambda: O.adam(None), ["learning_rate", "None", "number"]),
    "schedule-number": (lambda: O.scale_by_schedule(0.1), ["step_size_fn", "0.1", "schedule"]),
}


def assert_says(error, fragments):
    missing = [fragment for fragment in fragments if fragment not in str(error.value)]
    assert not missing, f"{missing} not in {str(error.value)!r}"


@pytest.mark.parametrize(("call", "fragments"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_out_of_range(call, fragments):
    with pytest.raises(ValueError, match="expected") as error:
        call()
    assert_says(error, fragments)


@pytest.mark.parametrize(("call", "fragments"), INCOMPATIBLE.values(), ids=INCOMPATIBLE)
def test_incompatible(call, fragments):
    with pytest.raises(ValueError, match=r".") as error:
        call()
    assert_says(error, fragments)


@pytest.mark.parametrize(("call", "fragments"), WRONG_TYPE.values(), ids=WRONG_TYPE)
def test_wrong_type(call, fragments):
    with pytest.raises(TypeError) as error:
        call()
    assert_says(error, fragments)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0])
def test_the_ends_of_the_ranges_are_allowed(value):
    O.adam(value, b1=value, b2=value, eps=value, eps_root=value)
    O.sgd(value, momentum=value)
    O.rmsprop(value, decay=value, eps=value, initial_scale=value, momentum=value)
    O.chain(O.clip(value), O.clip_by_global_norm(value), O.add_decayed_weights(value))
