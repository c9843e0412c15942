"""Wrappers around wrappers: each pair works, or says which goes inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.parameters import each_value_once

WRAPPERS = {
    "lora": lambda layer: nn.lora(layer, 2),
    "frozen": nn.frozen,
    "mixed_precision": nn.mixed_precision,
    "ensemble": lambda layer: nn.ensemble(layer, 2),
    "remat": nn.remat,
    "stack": lambda layer: nn.stack(layer, 2),
    "weight_norm": nn.weight_norm,
    "spectral_norm": nn.spectral_norm,
}
NORMS = ("weight_norm", "spectral_norm")
COPIES = ("ensemble", "stack")
REFUSED = {
    **{("lora", inner): "expected nn.lora inside of nn.stack or nn.ensemble" for inner in COPIES},
    **{
        (norm, inner): f"expected {norm} inside of nn.stack or nn.ensemble"
        for norm in NORMS
        for inner in COPIES
    },
    **{(norm, "lora"): f"expected nn.lora around nn.{norm}" for norm in NORMS},
    **{(norm, "frozen"): f"nn.frozen, .* goes around nn.{norm}" for norm in NORMS},
    **{(norm, "weight_norm"): "where chooses 'scale/kernel' of shape" for norm in NORMS},
    ("stack", "ensemble"): "expected an output of the shape and dtype of its input",
}
X = jnp.ones((3, 4))


@each_value_once
@pytest.mark.parametrize("outer", WRAPPERS)
@pytest.mark.parametrize("inner", WRAPPERS)
def test_a_wrapper_around_a_wrapper(outer, inner):
    layer = WRAPPERS[outer](WRAPPERS[inner](nn.dense(4)))

    def run(key):
        params, state = layer.init(key, X)
        return state, layer.apply(params, state, X, key=key, train=True)

    with jax.debug_key_reuse(False):
        if message := REFUSED.get((outer, inner)):
            with pytest.raises(ValueError, match=message):
                jax.eval_shape(run, jax.random.key(0))
            return
        state, (y, new_state) = jax.eval_shape(run, jax.random.key(0))
    assert y.shape == (2,) * [outer, inner].count("ensemble") + X.shape
    assert new_state == state


def test_the_correction_of_a_frozen_quantised_layer_is_trained_alone(key):
    layer = nn.lora(nn.frozen(nn.quantized(nn.dense(5))), 2)
    params, state = layer.init(key, X)
    assert params["layer"] == {}
    assert jax.tree.map(jnp.shape, params["up"]) == {"kernel": (2, 5)}
    base, _ = nn.quantized(nn.dense(5)).apply(state["layer"]["params"], state["layer"]["state"], X)
    params["up"]["kernel"] = jnp.full((2, 5), 0.5)
    y, _ = layer.apply(params, state, X)
    corrected = np.asarray(X) @ np.asarray(params["down"]["kernel"]).sum(1, keepdims=True) * 0.5
    np.testing.assert_allclose(y, base + corrected, rtol=1e-4, atol=1e-5)


def test_around_a_whole_frozen_model_says_how_to_freeze_its_params(key):
    layer = nn.lora(nn.frozen(nn.serial(nn.dense(5))), 2, where="*/kernel")
    with pytest.raises(ValueError, match=r"lora: .* goes around single layers; .* 'layer/\*'"):
        layer.init(key, X)


def test_the_correction_of_a_frozen_layer_is_trained_alone_and_merged(key):
    layer = nn.lora(nn.frozen(nn.dense(5)), 2)
    params, state = layer.init(key, X)
    assert sorted(params) == ["down", "layer", "up"]
    assert params["layer"] == {}
    params["up"]["kernel"] = jnp.full((2, 5), 0.5)
    y, _ = layer.apply(params, state, X)
    kernel = state["layer"]["params"]["kernel"] + params["down"]["kernel"] @ params["up"]["kernel"]
    np.testing.assert_allclose(y, X @ kernel, rtol=1e-5)
    with pytest.raises(ValueError, match=r"merge_lora: .* expected 'kernel': nn\.unfreeze_params"):
        nn.merge_lora(params)
    merged = nn.merge_lora(nn.unfreeze_params(params, state, "layer")[0])
    np.testing.assert_allclose(merged["kernel"], kernel, rtol=1e-6)
