"""Layers over spatial axes see a batch: images without channels are not one image of many rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

LAYERS = {
    "conv": nn.conv(4, (3, 3)),
    "conv_transpose": nn.conv_transpose(4, (3, 3)),
    "depthwise_conv": nn.depthwise_conv((3, 3)),
    "separable_conv": nn.separable_conv(4, (3, 3)),
    "max_pool": nn.max_pool((2, 2)),
    "avg_pool": nn.avg_pool((2, 2)),
    "lp_pool": nn.lp_pool((2, 2)),
    "adaptive_max_pool": nn.adaptive_max_pool((2, 2)),
    "adaptive_avg_pool": nn.adaptive_avg_pool((2, 2)),
    "upsample": nn.upsample((2, 2)),
    "pixel_shuffle": nn.pixel_shuffle((2, 2)),
    "pixel_unshuffle": nn.pixel_unshuffle((2, 2)),
}


def run(layer, x):
    """Initialise and apply without computing anything."""
    return jax.eval_shape(
        lambda key, x: layer.apply(*layer.init(key, x), x)[0], jax.random.key(0), x
    )


@pytest.mark.parametrize("name", LAYERS)
def test_images_without_channels_are_refused(name):
    assert run(LAYERS[name], jnp.ones((8, 6, 6, 4))).shape[0] == 8
    message = (
        r"x has shape \(8, 6, 4\), expected \(batch, height, width, channels\): x\[..., None\]"
    )
    with pytest.raises(ValueError, match=f"(?:{name}|depthwise_conv): {message}"):
        run(LAYERS[name], jnp.ones((8, 6, 4)))


def test_a_layer_that_is_initialised_with_a_batch_refuses_one_image(key):
    layer = nn.conv(2, (3,))
    params, state = layer.init(key, jnp.ones((1, 5, 3)))
    with pytest.raises(
        ValueError, match=r"x has shape \(5, 3\), expected \(batch, time, channels\)"
    ):
        layer.apply(params, state, jnp.ones((5, 3)))


def test_fit_says_what_its_images_lack(key):
    model = nn.serial(nn.conv(2, (3, 3)), nn.flatten(), nn.dense(2))
    data = np.ones((8, 4, 4), np.float32), np.zeros(8, np.int32)
    with pytest.raises(ValueError, match=r"x\[..., None\] adds an axis of channels"):
        nn.fit(
            model,
            data,
            loss=nn.losses.softmax_cross_entropy,
            optimizer=nn.optimizers.sgd(0.1),
            epochs=1,
            key=key,
            progress=False,
        )


def test_batch_norm_does_not_train_on_one_example(key):
    layer, x = nn.batch_norm(), jnp.array([1.0, 2.0])
    params, state = layer.init(key, x)
    assert layer.apply(params, state, x)[0].shape == x.shape
    with pytest.raises(
        ValueError, match=r"batch_norm: x has shape \(2,\), expected an axis of the"
    ):
        layer.apply(params, state, x, train=True)


def test_an_element_of_a_decoder_has_a_batch_too(key):
    model = nn.serial(nn.embedding(5, 4), nn.conv(3, (1,)))
    cell = nn.autoregressive(model)
    params = cell.init(key, jnp.int32(0))
    one, many = cell.initial_carry(params, (), jnp.float32), cell.initial_carry(params, (2,), float)
    y = cell.step(params, one, jnp.int32(3))[1]
    np.testing.assert_array_equal(y, cell.step(params, many, jnp.array([3, 1]))[1][0])
    tokens = jnp.array([[3, 1, 4]])
    np.testing.assert_allclose(
        nn.recurrent(cell).apply(params, {}, tokens)[0], model.apply(params, {}, tokens)[0], 1e-6
    )
