"""A U-Net: find discs in noise, pixel by pixel.

The images are made here: up to three discs, some of them brighter than the background and some
darker, under noise half as strong as they are. No threshold finds them; a network that sees the
neighbourhood of each pixel at several scales does.

Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation,
https://arxiv.org/abs/1505.04597
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

SIZE = 24
TRAINING, TEST = 512, 128
BATCH_SIZE = 16


def two_convolutions(channels: int) -> nn.Layer:
    """What a U-Net does at each scale."""
    return nn.serial(
        nn.conv(channels, (3, 3), use_bias=False),
        nn.batch_norm(),
        nn.relu,
        nn.conv(channels, (3, 3), use_bias=False),
        nn.batch_norm(),
        nn.relu,
    )


def scales(channels: int, depth: int) -> nn.Layer:
    """A U-Net around a smaller one, which sees the image at half the size."""
    if depth == 0:
        return two_convolutions(channels)

    def forward(f: Any, x: jax.Array) -> jax.Array:
        fine = f.down(x)
        coarse = f.widen(f.inside(f.pool(fine)))
        both: jax.Array = f.up(jnp.concatenate([fine, coarse], axis=-1))
        return both

    return nn.compose(
        forward,
        down=two_convolutions(channels),
        pool=nn.max_pool((2, 2)),
        inside=scales(2 * channels, depth - 1),
        widen=nn.conv_transpose(channels, (2, 2), strides=2),
        up=two_convolutions(channels),
    )


def unet(channels: int, depth: int) -> nn.Layer:
    """Images `(batch, height, width, 1)` to the logit of each pixel to be of a disc."""
    return nn.serial(body=scales(channels, depth), out=nn.conv(1, (1, 1)))


def discs(rng: np.random.Generator, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks, both of shape `(n, size, size, 1)`."""
    places = np.arange(size)
    images, masks = np.zeros((n, size, size)), np.zeros((n, size, size), bool)
    for image, mask in zip(images, masks, strict=True):
        for _ in range(rng.integers(1, 4)):
            radius, (row, column) = rng.uniform(3, size / 5), rng.uniform(0, size, 2)
            disc = (places[:, None] - row) ** 2 + (places - column) ** 2 < radius**2
            image[disc] = rng.choice([-1, 1])
            mask |= disc
    images += 0.5 * rng.standard_normal(images.shape)
    return images[..., None].astype(np.float32), masks[..., None].astype(np.float32)


def intersection_over_union(predicted: np.ndarray, mask: np.ndarray) -> float:
    """The pixels in both, over the pixels in either."""
    return float(np.sum(predicted & mask) / np.sum(predicted | mask))


def train(model: nn.Layer, data: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW, its learning rate going down in a cosine."""
    steps = epochs * TRAINING // BATCH_SIZE
    return nn.fit(
        model,
        data,
        loss=nn.losses.sigmoid_binary_cross_entropy,
        optimizer=nn.optimizers.adamw(
            nn.schedules.cosine_decay_schedule(1e-2, steps), weight_decay=1e-3
        ),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        progress=True,
    )


def main() -> None:
    """Train, test, and compare with the best threshold."""
    parser = argparse.ArgumentParser(description="Train a U-Net to find discs in noise.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the images and of training")
    parser.add_argument("--channels", type=int, default=8, help="at the finest scale")
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    model = unet(options.channels, depth=2)
    began = time.perf_counter()
    result = train(model, discs(rng, TRAINING, SIZE), options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    images, masks = discs(rng, TEST, SIZE)
    found = np.asarray(nn.predict(model, result.params, result.state, images)) > 0
    by_threshold = max(
        intersection_over_union(np.abs(images) > threshold, masks > 0)
        for threshold in np.linspace(0, 5, 51)
    )
    print(f"IoU of the best threshold: {by_threshold:.3f}")
    print(f"IoU of the U-Net: {intersection_over_union(found, masks > 0):.3f}")


if __name__ == "__main__":
    main()
