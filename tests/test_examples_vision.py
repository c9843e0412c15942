"""The examples with images: a few steps in this process, and the scripts as users run them."""

import re

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests.scripts import losses_of_steps, module_of, printed


@pytest.fixture(scope="module")
def residual_cnn():
    """The script, which needs scikit-learn."""
    pytest.importorskip("sklearn")
    return module_of("residual_cnn")


@pytest.fixture(scope="module")
def unet():
    """The script."""
    return module_of("unet")


@pytest.mark.slow
def test_a_few_steps_of_the_residual_network_lower_the_loss(residual_cnn):
    (images, labels), _, _ = residual_cnn.load(seed=0)
    assert images.shape == (1280, 8, 8, 1)
    model = residual_cnn.residual_network(width=4)
    batch = images[:32], labels[:32]
    losses = losses_of_steps(model, nn.losses.softmax_cross_entropy, batch, 20)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_a_few_steps_of_the_unet_lower_the_loss(unet):
    batch = unet.discs(np.random.default_rng(0), 4, 16)
    model = unet.unet(channels=2, depth=1)
    losses = losses_of_steps(model, nn.losses.sigmoid_binary_cross_entropy, batch, 20)
    assert losses[-1] < 0.7 * losses[0]


def test_the_unet_keeps_the_size_of_the_image(unet):
    model = unet.unet(channels=2, depth=2)
    x = jax.ShapeDtypeStruct((3, 8, 16, 1), "float32")
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    y, _ = jax.eval_shape(model.apply, params, state, x)
    assert y == x
    inner = params["body"]["inside"]["inside"]
    assert inner[0]["kernel"].shape == (3, 3, 4, 8)


def test_discs_are_seen_through_the_noise(unet):
    images, masks = unet.discs(np.random.default_rng(0), 50, 24)
    assert images.shape == masks.shape == (50, 24, 24, 1)
    assert set(np.unique(masks)) == {0, 1}
    np.testing.assert_allclose(np.std(images[masks == 0]), 0.5, rtol=0.05)
    np.testing.assert_allclose(np.mean(images[masks == 1] ** 2), 1 + 0.5**2, rtol=0.05)


def test_intersection_over_union(unet):
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert unet.intersection_over_union(a, b) == 1 / 3
    assert unet.intersection_over_union(a, a) == 1


# The scripts whole


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("residual_cnn")
def test_the_residual_network_learns(seed):
    text = printed("residual_cnn", "--seed", seed)
    assert float(re.search(r"^Test accuracy: (.*)%$", text, re.MULTILINE)[1]) >= 98.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_unet_finds_what_no_threshold_finds(seed):
    text = printed("unet", "--seed", seed)
    threshold, network = map(float, re.findall(r"^IoU .*: (.*)$", text, re.MULTILINE))
    assert threshold < 0.5
    assert network > 0.85


@pytest.mark.slow
def test_the_scripts_run_for_a_moment(residual_cnn):
    assert "Test accuracy" in printed("residual_cnn", "--epochs", 1, "--width", 4)
    assert "IoU of the U-Net" in printed("unet", "--epochs", 1, "--channels", 2)
