"""A vision transformer on handwritten digits: patches of an image are the words of a sentence.

The data are the 1,797 images of 8 by 8 pixels that come with scikit-learn, a fifth of them held
out.
"""

import argparse
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

WIDTH, DEPTH, HEADS, BATCH_SIZE = 64, 4, 4, 64


def vision_transformer(classes: int, patch: int = 2) -> nn.Layer:
    """From images `(batch, height, width, channels)` to logits `(batch, classes)`."""
    block = nn.transformer_block(
        nn.attention(HEADS), nn.feed_forward(2 * WIDTH), dropout=nn.stochastic_depth(0.1)
    )
    return nn.serial(
        patches=nn.conv(WIDTH, (patch, patch), strides=patch, padding="VALID"),
        sequence=lambda x: x.reshape(len(x), -1, WIDTH),
        positions=nn.learned_positions(64),
        blocks=nn.stack(block, DEPTH),
        norm=nn.layer_norm(),
        pool=lambda x: jnp.mean(x, axis=1),
        logits=nn.dense(classes),
    )


def load(seed: int) -> tuple[Any, Any]:
    """The pairs (images, labels) to train on, 1,408, and to test with, 389."""
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, digits.target.astype(np.int32), test_size=389, random_state=seed
    )
    return (x, y), (x_test, y_test)


def train(model: nn.Layer, training: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW, its learning rate going up in a line and down in a cosine."""
    steps = epochs * len(training[0]) // BATCH_SIZE
    learning_rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    return nn.fit(
        model,
        training,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=nn.optimizers.adamw(learning_rate, weight_decay=0.1),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        progress=True,
    )


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description="Train a vision transformer on digits.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    options = parser.parse_args()

    training, (images, labels) = load(options.seed)
    model = vision_transformer(10)
    print(nn.summary(model, images[:1], depth=1))
    began = time.perf_counter()
    result = train(model, training, options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.0f} s, compilation included")
    logits = nn.predict(model, result.params, result.state, images)
    print(f"Test accuracy: {np.mean(np.asarray(logits).argmax(axis=-1) == labels):.2%}")


if __name__ == "__main__":
    main()
