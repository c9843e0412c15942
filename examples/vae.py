"""A variational autoencoder: handwritten digits that nobody wrote.

The encoder tells, for an image, where in a space of a few dimensions it lies, as a Gaussian; the
decoder tells, for a place there, how likely each pixel is dark. Both are trained to raise the
evidence lower bound (ELBO) on the log-likelihood of the images, which are those of scikit-learn, 8
by 8 pixels, dark or not. A fifth is held out for the test and looked at once, at the end.

Kingma and Welling, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
"""

import argparse
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    raise SystemExit(
        f"{error}: this example needs scikit-learn: pip install scikit-learn"
    ) from error

LATENT, WIDTH, BATCH_SIZE = 8, 256, 64

ENCODER = nn.mlp([WIDTH, 2 * LATENT])
DECODER = nn.mlp([WIDTH, 64])


def load(seed: int) -> tuple[Any, Any, Any]:
    """Images to train on, 1,280, to validate with, 157, and to test with, 360.

    A pixel, a count from 0 to 16, is dark (1) from 8 on and else light (0).
    """
    digits = load_digits()
    x, y = (digits.data >= 8).astype(np.float32), digits.target
    x, x_test, y, _ = train_test_split(x, y, test_size=360, stratify=y, random_state=seed)
    x, x_val = train_test_split(x, test_size=157, stratify=y, random_state=seed)
    return x, x_val, x_test


def elbo(params: Any, images: jax.Array, key: jax.Array) -> tuple[Any, Any]:
    """The ELBO of each image in nats, by one draw, and the divergence that is in it."""
    mean, log_var = jnp.split(nn.stateless(ENCODER)(params["encoder"], images), 2, axis=-1)
    place = mean + jnp.exp(log_var / 2) * jax.random.normal(key, mean.shape)
    logits = nn.stateless(DECODER)(params["decoder"], place)
    log_likelihood = -jnp.sum(nn.losses.sigmoid_binary_cross_entropy(logits, images), axis=-1)
    divergence = jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var, axis=-1) / 2
    return log_likelihood - divergence, divergence


def loss_fn(params: Any, state: Any, images: jax.Array, key: jax.Array) -> Any:
    """What training lowers."""
    bounds, divergences = elbo(params, images, key)
    return -jnp.mean(bounds), (state, {"divergence": jnp.mean(divergences)})


def begin(key: jax.Array, optimizer: Any) -> nn.TrainState:
    """Step 0."""
    encoder_key, decoder_key, train_key = jax.random.split(key, 3)
    encoder, _ = ENCODER.init(encoder_key, jnp.zeros((1, 64)))
    decoder, _ = DECODER.init(decoder_key, jnp.zeros((1, LATENT)))
    return nn.train_state({"encoder": encoder, "decoder": decoder}, {}, optimizer, train_key)


def epochs_of(optimizer: Any, training: Any, validation: Any) -> Any:
    """The function `(train_state, key) -> (train_state, history)`: an epoch, then validation."""
    step = nn.train_step(loss_fn, optimizer)
    batches = len(training) // BATCH_SIZE

    def epoch(now: nn.TrainState, key: jax.Array) -> tuple[nn.TrainState, dict[str, Any]]:
        order_key, validation_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(training))[: batches * BATCH_SIZE]
        chosen = jnp.asarray(training)[order.reshape(batches, BATCH_SIZE)]
        now, metrics = jax.lax.scan(step, now, chosen)
        bounds, _ = elbo(now.params, validation, validation_key)
        return now, {
            "elbo": -jnp.mean(metrics["loss"]),
            "divergence": jnp.mean(metrics["divergence"]),
            "val_elbo": jnp.mean(bounds),
        }

    return epoch


def train(key: jax.Array, training: Any, validation: Any, epochs: int) -> Any:
    """Train by AdamW, and tell of it every ten epochs; the parameters."""
    start_key, epochs_key = jax.random.split(key)
    steps = epochs * (len(training) // BATCH_SIZE)
    rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    optimizer = nn.optimizers.adamw(rate, weight_decay=1e-2)
    epoch = epochs_of(optimizer, training, validation)
    run = jax.jit(functools.partial(jax.lax.scan, epoch), donate_argnums=0)

    now = begin(start_key, optimizer)
    keys = jax.random.split(epochs_key, epochs)
    for done in range(0, epochs, 10):
        now, history = run(now, keys[done : done + 10])
        last = {name: float(values[-1]) for name, values in history.items()}
        print(
            f"Epoch {min(done + 10, epochs)}: ELBO {last['elbo']:.2f} nats "
            f"(divergence {last['divergence']:.2f}), validation {last['val_elbo']:.2f}"
        )
    return now.params


def baseline(training: np.ndarray, images: np.ndarray) -> float:
    """The mean log-likelihood of images if pixels were independent, each as dark as in training."""
    dark = (training.sum(axis=0) + 1) / (len(training) + 2)
    return float(np.mean(np.sum(np.log(np.where(images == 1, dark, 1 - dark)), axis=-1)))


def picture(images: Any) -> str:
    """Images `(n, 64)` side by side in characters."""
    shades = np.array(list(" .:*#"))[np.round(4 * np.asarray(images)).astype(int)]
    rows = np.repeat(shades.reshape(-1, 8, 8), 2, axis=-1).transpose(1, 0, 2)
    return "\n".join("  ".join("".join(image) for image in row).rstrip() for row in rows)


def main() -> None:
    """Train, test, and show images of the data and of the decoder."""
    parser = argparse.ArgumentParser(description="Train a variational autoencoder on digits.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    options = parser.parse_args()

    training, validation, test = load(options.seed)
    train_key, test_key, sample_key = jax.random.split(jax.random.key(options.seed), 3)
    began = time.perf_counter()
    params = train(train_key, training, validation, options.epochs)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    bounds, _ = elbo(params, test, test_key)
    places = jax.random.normal(sample_key, (6, LATENT))
    samples = nn.sigmoid(nn.stateless(DECODER)(params["decoder"], places))
    print(f"\nFrom the data:\n{picture(test[:6])}\n\nFrom the decoder:\n{picture(samples)}\n")
    print(f"Test log-likelihood of independent pixels: {baseline(training, test):.2f} nats")
    print(f"Test ELBO: {float(jnp.mean(bounds)):.2f} nats")


if __name__ == "__main__":
    main()
