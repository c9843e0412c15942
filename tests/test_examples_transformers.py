"""The examples with transformers: a few steps in this process, and the scripts whole."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.scripts import losses_of_steps, module_of, printed


@pytest.fixture(scope="module")
def shakespeare():
    """The language model, made small."""
    module = module_of("shakespeare")
    module.CONTEXT, module.DEPTH, module.HEADS, module.WIDTH = 16, 2, 2, 8
    return module


@pytest.fixture(scope="module")
def vision():
    """The vision transformer, which needs scikit-learn, made small."""
    pytest.importorskip("sklearn")
    module = module_of("vision_transformer")
    module.DEPTH, module.HEADS, module.WIDTH = 2, 2, 8
    return module


TEXT = np.tile(np.array([0, 3, 1, 4, 2, 5, 4], np.int32), 20)


def test_windows_are_followed_by_their_next_characters(shakespeare):
    x, y = shakespeare.windows(TEXT)
    assert x.shape == y.shape == (8, 16)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(x.reshape(-1), TEXT[:128])


def test_a_few_steps_of_the_language_model_lower_the_loss(shakespeare):
    model = shakespeare.decoder(6)
    batch = shakespeare.windows(TEXT)
    losses = losses_of_steps(model, nn.losses.softmax_cross_entropy, batch, 30)
    assert losses[-1] < 0.7 * losses[0]


def test_the_decoder_that_writes_is_the_one_that_was_trained(shakespeare):
    model, writer = shakespeare.decoder(6), shakespeare.decoder(6, cache_length=20)
    tokens = jnp.asarray(TEXT[:40].reshape(2, 20))
    params, state = fast_jit(model.init)(jax.random.key(0), tokens)
    _, cache = jax.eval_shape(writer.init, jax.random.key(0), tokens)
    cache = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cache)
    expected, _ = fast_jit(model.apply)(params, state, tokens)
    got, _ = fast_jit(writer.apply)(params, cache, tokens)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_few_steps_of_the_vision_transformer_lower_the_loss(vision):
    (images, labels), _ = vision.load(0)
    model = vision.vision_transformer(10)
    batch = images[:32], labels[:32]
    losses = losses_of_steps(model, nn.losses.softmax_cross_entropy, batch, 30)
    assert losses[-1] < 0.8 * losses[0]


# The scripts whole


@pytest.mark.slow
def test_the_language_model_learns_a_text(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 200)
    out = printed("shakespeare", text, "--epochs", 12, "--length", 100)
    assert float(re.search(r"^Validation loss: (\S+) nats", out, re.MULTILINE)[1]) < 0.3
    assert "quick brown fox" in out


@pytest.mark.slow
@pytest.mark.usefixtures("vision")
def test_the_vision_transformer_learns():
    out = printed("vision_transformer")
    assert float(re.search(r"^Test accuracy: (.*)%$", out, re.MULTILINE)[1]) >= 95


@pytest.mark.slow
def test_fine_tuning_writes_a_model_and_then_an_adapter_of_it(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 300)
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    out = printed("finetune", text, "--output", whole, "--epochs", 6)
    assert loss_of(out) < 0.3
    assert "quick brown fox" in re.search("^After: (.*)", out, re.MULTILINE)[1]
    options = ("--rank", 4, "--dtype", "bfloat16", "--sharding", "fsdp", "--epochs", 1)
    out = printed("finetune", text, "--model", whole, "--output", adapter, *options)
    assert loss_of(out) < 0.3
    tensors = nn.load(adapter / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2
    assert all(np.any(np.asarray(tensor) != 0) for tensor in tensors.values())


def loss_of(out):
    return float(re.search(r"^Validation loss: (\S+) nats", out, re.MULTILINE)[1])
