"""A residual network: handwritten digits by convolutions with skips around them.

The data are the 1,797 images of 8 by 8 pixels that come with scikit-learn. A fifth is held out for
the test and looked at once, at the end. In training an image is moved by up to a pixel each time it
is seen, and loses a window of 2 by 2 pixels: the first layer does it, which in evaluation does
nothing.

He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385
"""

import argparse
import functools
import time
from typing import Any

import jax
import numpy as np

import jaxnn as nn

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    raise SystemExit(
        f"{error}: this example needs scikit-learn: pip install scikit-learn"
    ) from error

BATCH_SIZE = 64


def conv_norm(channels: int, size: int, strides: int = 1) -> nn.Layer:
    """A convolution and a normalisation, whose bias makes that of the convolution needless."""
    return nn.serial(
        nn.conv(channels, (size, size), strides=strides, use_bias=False),
        nn.batch_norm(),
    )


def residual_block(channels: int, strides: int = 1) -> nn.Layer:
    """Two convolutions, and a way around them: 1 by 1 where the shape changes."""
    body = nn.serial(conv_norm(channels, 3, strides), nn.relu, conv_norm(channels, 3))
    if strides == 1:
        return nn.serial(nn.residual(body), nn.relu)
    return nn.serial(nn.residual(body, shortcut=conv_norm(channels, 1, strides)), nn.relu)


def residual_network(width: int) -> nn.Layer:
    """Images `(batch, 8, 8, 1)` to logits `(batch, 10)`."""
    return nn.serial(
        augment=nn.serial(nn.random_shift(1), nn.cutout(2)),
        stem=nn.serial(conv_norm(width, 3), nn.relu),
        fine=residual_block(width),
        coarse=residual_block(2 * width, strides=2),
        pool=nn.global_avg_pool(),
        out=nn.dense(10),
    )


def load(seed: int) -> tuple[Any, Any, Any]:
    """The pairs (images, labels) to train on, 1,280, to validate with, 157, and to test with, 360.

    20 batches of 64 make 1,280: with no smaller batch left over, there is one step to compile.
    """
    digits = load_digits()
    x = (digits.images[..., None] / 16).astype(np.float32)
    y = digits.target.astype(np.int32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=seed)
    x, x_val, y, y_val = train_test_split(x, y, test_size=157, stratify=y, random_state=seed)
    return (x, y), (x_val, y_val), (x_test, y_test)


def train(model: nn.Layer, training: Any, validation: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW, its learning rate going up in a line and down in a cosine."""
    steps = epochs * len(training[0]) // BATCH_SIZE
    learning_rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 5, steps)
    return nn.fit(
        model,
        training,
        loss=functools.partial(nn.losses.softmax_cross_entropy, label_smoothing=0.1),
        optimizer=nn.optimizers.adamw(learning_rate, weight_decay=1e-2),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        validation=validation,
        metrics={"accuracy": nn.metrics.accuracy()},
        progress=True,
    )


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description="Train a residual network on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    parser.add_argument("--width", type=int, default=16, help="channels of the first layers")
    options = parser.parse_args()

    model = residual_network(options.width)
    training, validation, (images, labels) = load(options.seed)
    began = time.perf_counter()
    result = train(model, training, validation, options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    logits = nn.predict(model, result.params, result.state, images)
    print(f"Test accuracy: {np.mean(logits.argmax(axis=-1) == labels):.2%}")


if __name__ == "__main__":
    main()
