"""Bad input to optimizers and regularizers: the message says what, what came, what was expected."""

import jax
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
    "sgd-rate-nan": (lambda: O.sgd(float("nan")), ["sgd: learning_rate is nan", "finite"]),
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
    "adagrad-eps": (lambda: O.adagrad(0.1, eps=-1.0), ["scale_by_rss: eps", "-1.0", ">= 0"]),
    "adadelta-rho": (lambda: O.adadelta(rho=2), ["scale_by_adadelta: rho", "2", "[0, 1]"]),
    "amsgrad-b2": (lambda: O.amsgrad(0.1, b2=2), ["scale_by_amsgrad: b2", "2", "[0, 1]"]),
    "adamax-b1": (lambda: O.adamax(0.1, b1=2), ["scale_by_adamax: b1", "2", "[0, 1]"]),
    "nadam-b1": (lambda: O.nadam(0.1, b1=2), ["adam: b1", "2", "[0, 1]"]),
    "radam-b2": (lambda: O.radam(0.1, b2=2), ["scale_by_radam: b2", "2", "[0, 1]"]),
    "adabelief-eps": (lambda: O.adabelief(0.1, eps=-1), ["scale_by_belief: eps", "-1", ">= 0"]),
    "yogi-b1": (lambda: O.yogi(0.1, b1=2), ["scale_by_yogi: b1", "2", "[0, 1]"]),
    "adan-b3": (lambda: O.adan(0.1, b3=2), ["scale_by_adan: b3", "2", "[0, 1]"]),
    "adopt-b2": (lambda: O.adopt(0.1, b2=2), ["scale_by_adopt: b2", "2", "[0, 1]"]),
    "ademamix-b3": (lambda: O.ademamix(0.1, b3=2), ["scale_by_ademamix: b3", "2", "[0, 1]"]),
    "soap-b2": (lambda: O.soap(0.1, b2=2), ["scale_by_soap: b2", "2", "[0, 1]"]),
    "soap-frequency": (
        lambda: O.soap(0.1, precondition_frequency=0),
        ["scale_by_soap: precondition_frequency", "0", "at least 1"],
    ),
    "prodigy-betas": (lambda: O.prodigy(betas=(0.9, 2)), ["prodigy: betas[1]", "2", "[0, 1]"]),
    "prodigy-rate": (lambda: O.prodigy(-1.0), ["prodigy: learning_rate", "-1.0", ">= 0"]),
    "sophia-interval": (
        lambda: O.sophia(0.1, update_interval=0),
        ["scale_by_sophia: update_interval", "0", ">= 1"],
    ),
    "lion-b2": (lambda: O.lion(0.1, b2=2), ["scale_by_lion: b2", "2", "[0, 1]"]),
    "lion-decay": (lambda: O.lion(0.1, weight_decay=-1), ["weight_decay", "-1", ">= 0"]),
    "sign_sgd": (lambda: O.sign_sgd(-1.0), ["learning_rate", "-1.0", ">= 0"]),
    "rprop": (lambda: O.rprop(0.1, eta_plus=-1), ["scale_by_rprop: eta_plus", "-1", ">= 0"]),
    "lars": (
        lambda: O.lars(0.1, trust_coefficient=-1),
        ["scale_by_trust_ratio: trust_coefficient", "-1", ">= 0"],
    ),
    "lamb-b1": (lambda: O.lamb(0.1, b1=2), ["adam: b1", "2", "[0, 1]"]),
    "novograd-b2": (lambda: O.novograd(0.1, b2=2), ["scale_by_novograd: b2", "2", "[0, 1]"]),
    "adafactor-rate": (
        lambda: O.adafactor(decay_rate=-1.0),
        ["scale_by_factored_rms: decay_rate", "-1.0", ">= 0"],
    ),
    "clip_by_block_rms": (
        lambda: O.clip_by_block_rms(-1.0),
        ["clip_by_block_rms: threshold", "-1.0", ">= 0"],
    ),
    "scale_by_param_block_rms": (
        lambda: O.scale_by_param_block_rms(-1.0),
        ["scale_by_param_block_rms: min_scale", "-1.0", ">= 0"],
    ),
    "muon-beta": (lambda: O.muon(0.1, beta=2), ["scale_by_muon: beta", "2", "[0, 1]"]),
    "muon-steps": (lambda: O.muon(0.1, ns_steps=0), ["scale_by_muon: ns_steps", "0", "1"]),
    "muon-coefficients": (
        lambda: O.muon(0.1, "cubic"),
        ["muon: ns_coeffs", "'cubic'", "'standard'"],
    ),
    "muon-coefficients-shape": (
        lambda: O.scale_by_muon((1.0, 2.0)).init(PARAMS),
        ["ns_coeffs", "(2,)", "(3,)"],
    ),
    "muon-preconditioning": (
        lambda: O.muon(0.1, preconditioning="none"),
        ["muon: preconditioning", "'none'", "'aol'"],
    ),
    "lion-mode": (
        lambda: O.scale_by_lion(mode="soft"),
        ["scale_by_lion: mode", "'soft'", "'hard'"],
    ),
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
    "trust_ratio-no-params": (
        lambda: update(O.scale_by_trust_ratio(), params=None),
        ["scale_by_trust_ratio: params", "None"],
    ),
    "novograd-no-params": (
        lambda: update(O.novograd(0.1), params=None),
        ["scale_by_novograd: params", "None"],
    ),
    "prodigy-no-params": (
        lambda: update(O.prodigy(), params=None),
        ["prodigy: params", "None"],
    ),
    "trust_ratio-params": (
        lambda: update(O.scale_by_trust_ratio(), params={"kernel": jnp.ones((2, 2))}),
        ["scale_by_trust_ratio: ", "params lacks 'bias'"],
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
    "chain-none": (lambda: O.chain(O.clip(1.0), None), ["chain: transformations[1]", "None"]),
    "chain-constructor": (lambda: O.chain(O.adam), ["chain: transformations[0]", "Optimizer"]),
    "adamw-no-decay": (lambda: O.adamw(0.1), ["weight_decay"]),
    "unknown-keyword": (lambda: O.adam(0.1, beta1=0.9), ["beta1"]),
    "rate-text": (lambda: O.adam("0.1"), ["learning_rate", "'0.1'", "number"]),
    "rate-none": (lambda: O.adam(None), ["learning_rate", "None", "number"]),
    "rprop-schedule": (
        lambda: O.rprop(lambda count: 0.1),
        ["rprop: learning_rate", "number"],
    ),
    "rprop-complex": (
        lambda: update(O.rprop(0.1), jax.tree.map(lambda p: p.astype(complex), PARAMS)),
        ["scale_by_rprop", "complex", "real"],
    ),
    "sophia-estimator": (
        lambda: O.sophia(0.1, hessian_diagonal_fn=7),
        ["scale_by_sophia: hessian_diagonal_fn", "7", "Optimizer"],
    ),
    "hutchinson-seed": (
        lambda: O.hutchinson_estimator_diag_hessian(0),
        ["hutchinson_estimator_diag_hessian: random_seed", "jax.random.key"],
    ),
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
