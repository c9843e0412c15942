"""Set-ups that are broken in one way, and healthy ones; thresholds were chosen on one half alone.

A broken set-up has the fault that must be named first, and the set-up with the cure that the fault
names. Those in HELD_OUT were not looked at while the thresholds were chosen.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

O, I = nn.optimizers, nn.initializers  # noqa: E741
CROSS_ENTROPY = nn.losses.softmax_cross_entropy
SQUARED = nn.losses.squared_error
N = 192


class Case(NamedTuple):
    """What is diagnosed."""

    model: Any
    data: Any
    loss: Any = CROSS_ENTROPY
    optimizer: Any = O.adam(1e-2)
    batch_size: int = 32


class Broken(NamedTuple):
    """A case with the name of its fault, and the same with the cure."""

    fault: str
    broken: Callable[[], Case]
    cured: Callable[[], Case]


# Data


def blobs(classes=3, features=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, N)
    centres = rng.normal(size=(classes, features)) * 1.5
    x = centres[labels] + rng.normal(size=(N, features))
    x = (x - x.mean(0)) / x.std(0)
    return x.astype(np.float32), labels.astype(np.int32)


def curve(features=5, noise=0.1, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, features)).astype(np.float32)
    y = np.sin(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3] + noise * rng.normal(size=(N, 1))
    return x, ((y - y.mean()) / y.std()).astype(np.float32)


def pictures(seed=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, N)
    x = rng.normal(size=(N, 8, 8, 1)) * 0.5
    x[:, 2:6, 3:5] += labels[:, None, None, None]
    return x.astype(np.float32), labels.astype(np.int32)


def sequences(seed=3, steps=12):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, steps, 3)).astype(np.float32)
    return x, (x[:, :, 0].sum(1) > 0).astype(np.int32)


def sentences(seed=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, N)
    x = rng.integers(0, 20, (N, 10))
    x[np.arange(N), rng.integers(0, 10, N)] = 20 + labels
    return x.astype(np.int32), labels.astype(np.int32)


def scaled(data, x=1.0, y=1.0, shift_x=0.0, shift_y=0.0):
    return np.float32(data[0] * x + shift_x), (
        np.float32(data[1] * y + shift_y) if (y, shift_y) != (1.0, 0.0) else data[1]
    )


# Models


def deep(depth, act=nn.relu, width=24, out=3, kernel_init=None, last=None, bias=I.zeros):
    kernel_init = kernel_init or I.he_normal()
    hidden = [
        layer
        for _ in range(depth)
        for layer in (nn.dense(width, kernel_init=kernel_init, bias_init=bias), act)
    ]
    return nn.serial(*hidden, nn.dense(out, kernel_init=last or I.lecun_normal()))


def recurrent(gain, out=2):
    cell = nn.rnn_cell(8, activation=nn.identity, recurrent_kernel_init=I.orthogonal(gain))
    return nn.serial(nn.recurrent(cell, last=True), nn.dense(out))


def mlp():
    return deep(2)


def residual(kernel_init, depth=12, norm=False):
    inside = (nn.layer_norm(),) if norm else ()
    block = nn.residual(nn.serial(*inside, nn.dense(24, kernel_init=kernel_init), nn.relu))
    return nn.serial(nn.dense(24), nn.stack(block, depth), nn.layer_norm(), nn.dense(3))


def rounded(x):
    return jnp.round(x)


def stopped(x):
    return jax.lax.stop_gradient(x)


def times_fifty(x):
    return 50 * x


def nothing(x):
    return 0 * x


def constant(x):
    return jnp.ones_like(x)


# Broken ones: half of each kind held out

TUNING = {
    "inputs times 1000": Broken(
        "unscaled_inputs",
        lambda: Case(mlp(), scaled(blobs(), x=1000)),
        lambda: Case(mlp(), blobs()),
    ),
    "labels times 1000": Broken(
        "unscaled_labels",
        lambda: Case(deep(2, out=1), scaled(curve(), y=1000), SQUARED),
        lambda: Case(deep(2, out=1), curve(), SQUARED),
    ),
    "deep relu, tiny kernels": Broken(
        "initialisation_shrinks",
        lambda: Case(deep(8, kernel_init=I.normal(0.02)), blobs()),
        lambda: Case(deep(8), blobs(), optimizer=O.adam(1e-3)),
    ),
    "deep relu, large kernels": Broken(
        "initialisation_grows",
        lambda: Case(deep(10, kernel_init=I.normal(0.6)), blobs()),
        lambda: Case(deep(10), blobs(), optimizer=O.adam(1e-3)),
    ),
    "tanh, large kernels": Broken(
        "saturated_units",
        lambda: Case(deep(3, nn.tanh, kernel_init=I.normal(3.0)), blobs()),
        lambda: Case(deep(3, nn.tanh, kernel_init=I.lecun_normal()), blobs()),
    ),
    "relu, biases of -8": Broken(
        "dead_units",
        lambda: Case(deep(3, bias=I.constant(-8.0)), blobs()),
        lambda: Case(deep(3), blobs()),
    ),
    "ten sigmoids": Broken(
        "vanishing_gradients",
        lambda: Case(deep(10, nn.sigmoid, kernel_init=I.glorot_normal()), blobs()),
        lambda: Case(deep(10), blobs(), optimizer=O.adam(1e-3)),
    ),
    "linear recurrence, gain 1.4": Broken(
        "exploding_gradients",
        lambda: Case(recurrent(1.4), sequences(steps=30), optimizer=O.sgd(1e-3)),
        lambda: Case(recurrent(1.0), sequences(steps=30), optimizer=O.adam(1e-3)),
    ),
    "adam, rate 1e-7": Broken(
        "rate_too_small",
        lambda: Case(mlp(), blobs(), optimizer=O.adam(1e-7)),
        lambda: Case(mlp(), blobs(), optimizer=O.adam(1e-2)),
    ),
    "adam, rate 3": Broken(
        "rate_too_large",
        lambda: Case(mlp(), blobs(), optimizer=O.adam(3.0)),
        lambda: Case(mlp(), blobs(), optimizer=O.adam(1e-2)),
    ),
    "last kernel of deviation 10": Broken(
        "output_scale",
        lambda: Case(deep(2, last=I.normal(10.0)), blobs()),
        lambda: Case(deep(2, last=I.zeros), blobs()),
    ),
    "gradient stopped": Broken(
        "no_gradient",
        lambda: Case(nn.serial(nn.dense(24), nn.relu, stopped, nn.dense(3)), blobs()),
        lambda: Case(nn.serial(nn.dense(24), nn.relu, nn.dense(3)), blobs()),
    ),
    "softmax and softmax cross-entropy": Broken(
        "probabilities_as_logits",
        lambda: Case(nn.serial(mlp(), nn.softmax), blobs()),
        lambda: Case(mlp(), blobs()),
    ),
    "one example a step, labels of noise": Broken(
        "gradient_noise",
        lambda: Case(deep(1, out=1), curve(noise=30.0), SQUARED, O.sgd(1e-3), 1),
        lambda: Case(deep(1, out=1), curve(noise=30.0), SQUARED, O.sgd(1e-2), 96),
    ),
    "inputs times 0": Broken(
        "cannot_overfit",
        lambda: Case(nn.serial(constant, mlp()), blobs()),
        lambda: Case(mlp(), blobs()),
    ),
}
HELD_OUT = {
    "inputs of mean 5000": Broken(
        "unscaled_inputs",
        lambda: Case(deep(2, nn.tanh, out=1), scaled(curve(), 50, shift_x=5000), SQUARED),
        lambda: Case(deep(2, nn.tanh, out=1), curve(), SQUARED),
    ),
    "labels of mean 300": Broken(
        "unscaled_labels",
        lambda: Case(deep(1, out=1), scaled(curve(), y=5, shift_y=300), SQUARED),
        lambda: Case(deep(1, out=1), curve(), SQUARED),
    ),
    "deep tanh, tiny kernels": Broken(
        "initialisation_shrinks",
        lambda: Case(deep(10, nn.tanh, kernel_init=I.normal(0.05)), blobs(seed=7)),
        lambda: Case(deep(10, nn.tanh, kernel_init=I.lecun_normal()), blobs(seed=7)),
    ),
    "residual, no normalisation": Broken(
        "initialisation_grows",
        lambda: Case(residual(I.normal(0.6)), blobs(seed=8), optimizer=O.adam(1e-3)),
        lambda: Case(residual(I.he_normal(), norm=True), blobs(seed=8), optimizer=O.adam(1e-3)),
    ),
    "sigmoid, large kernels": Broken(
        "saturated_units",
        lambda: Case(deep(2, nn.sigmoid, out=1, kernel_init=I.normal(8.0)), curve(), SQUARED),
        lambda: Case(deep(2, nn.sigmoid, out=1, kernel_init=I.glorot_normal()), curve(), SQUARED),
    ),
    "convolution, biases of -10": Broken(
        "dead_units",
        lambda: Case(convolutional(I.constant(-10.0)), pictures()),
        lambda: Case(convolutional(I.zeros), pictures()),
    ),
    "twelve sigmoids": Broken(
        "vanishing_gradients",
        lambda: Case(deep(12, nn.sigmoid, out=1, width=16), curve(), SQUARED),
        lambda: Case(deep(12, out=1, width=16), curve(), SQUARED, O.adam(1e-3)),
    ),
    "linear recurrence, gain 1.3": Broken(
        "exploding_gradients",
        lambda: Case(recurrent(1.3), sequences(5, steps=40), optimizer=O.sgd(1e-3)),
        lambda: Case(recurrent(1.0), sequences(5, steps=40), optimizer=O.adam(1e-3)),
    ),
    "sgd, rate 1e-6": Broken(
        "rate_too_small",
        lambda: Case(deep(1), blobs(seed=9), optimizer=O.sgd(1e-6)),
        lambda: Case(deep(1), blobs(seed=9), optimizer=O.sgd(1e-1)),
    ),
    "sgd, rate 30": Broken(
        "rate_too_large",
        lambda: Case(deep(2, out=1), curve(), SQUARED, O.sgd(30.0)),
        lambda: Case(deep(2, out=1), curve(), SQUARED, O.sgd(1e-2)),
    ),
    "logits times 50": Broken(
        "output_scale",
        lambda: Case(nn.serial(mlp(), times_fifty), blobs(seed=10), optimizer=O.adam(1e-3)),
        lambda: Case(mlp(), blobs(seed=10)),
    ),
    "rounded": Broken(
        "no_gradient",
        lambda: Case(nn.serial(nn.dense(24), rounded, nn.dense(3)), blobs(seed=11)),
        lambda: Case(nn.serial(nn.dense(24), nn.relu, nn.dense(3)), blobs(seed=11)),
    ),
    "sigmoid and sigmoid cross-entropy": Broken(
        "probabilities_as_logits",
        lambda: Case(binary(nn.sigmoid), two_classes(), nn.losses.sigmoid_binary_cross_entropy),
        lambda: Case(binary(nn.identity), two_classes(), nn.losses.sigmoid_binary_cross_entropy),
    ),
    "two examples a step, labels of noise": Broken(
        "gradient_noise",
        lambda: Case(deep(1, out=1), curve(noise=50.0, seed=6), SQUARED, O.sgd(1e-3), 2),
        lambda: Case(deep(1, out=1), curve(noise=50.0, seed=6), SQUARED, O.sgd(1e-2), 96),
    ),
    "the average over the batch": Broken(
        "cannot_overfit",
        lambda: Case(nn.serial(mlp(), lambda x: x - x + x.mean(0, keepdims=True)), blobs(seed=12)),
        lambda: Case(mlp(), blobs(seed=12)),
    ),
}


def convolutional(bias):
    return nn.serial(
        *(nn.conv(8, (3, 3), bias_init=bias), nn.relu, nn.conv(8, (3, 3), bias_init=I.zeros)),
        *(nn.relu, nn.global_avg_pool(), nn.dense(2)),
    )


def binary(last):
    return nn.serial(nn.dense(16), nn.relu, nn.dense(1), last)


def two_classes():
    x, labels = blobs(2, seed=13)
    return x, labels[:, None].astype(np.float32)


# Healthy ones

HEALTHY_TUNING = {
    "mlp": lambda: Case(mlp(), blobs(), optimizer=O.adam(1e-3)),
    "linear regression": lambda: Case(nn.dense(1), curve(), SQUARED, O.sgd(1e-1)),
    "tanh regression": lambda: Case(
        deep(2, nn.tanh, out=1, kernel_init=I.lecun_normal()), curve(), SQUARED, O.adam(3e-3)
    ),
    "residual with norms": lambda: Case(
        residual(I.he_normal(), norm=True), blobs(), optimizer=O.adamw(1e-3, weight_decay=1e-2)
    ),
    "convolution": lambda: Case(convolutional(I.zeros), pictures(), optimizer=O.adam(1e-3)),
    "lstm": lambda: Case(
        nn.serial(nn.recurrent(nn.lstm_cell(16), last=True), nn.dense(2)), sequences()
    ),
}
HEALTHY_HELD_OUT = {
    "transformer": lambda: Case(
        nn.serial(
            *(nn.embedding(22, 16), nn.transformer_block(nn.attention(2), nn.feed_forward(32))),
            *(nn.layer_norm(), lambda x: x.mean(1), nn.dense(2)),
        ),
        sentences(),
        optimizer=O.adam(1e-3),
    ),
    "batch norm": lambda: Case(
        nn.serial(nn.dense(32), nn.batch_norm(), nn.relu, nn.dense(3)),
        blobs(seed=20),
        optimizer=O.sgd(1e-1, momentum=0.9),
    ),
    "gelu": lambda: Case(
        deep(3, nn.gelu, kernel_init=I.lecun_normal()),
        blobs(seed=21),
        optimizer=O.adamw(1e-3, weight_decay=1e-4),
    ),
    "logistic regression": lambda: Case(nn.dense(3), blobs(seed=22), optimizer=O.sgd(1e-1)),
    "one layer of sigmoids": lambda: Case(
        deep(1, nn.sigmoid, out=1, kernel_init=I.glorot_normal()), curve(seed=23), SQUARED
    ),
    "bag of words": lambda: Case(
        nn.serial(nn.embedding(22, 16), lambda x: x.mean(1), nn.dense(2)), sentences(24)
    ),
}
