"""A diffusion model: handwritten digits out of noise, on demand.

An image becomes noise along a quarter of a circle, `cos(a) image + sin(a) noise`. A network learns
the direction in which one moves there, from where one is, the angle, and, most of the time, which
digit it is. From noise it leads back in small steps; the difference that the digit makes is
enlarged. The images are those of scikit-learn, 8 by 8 pixels, and a classifier that was trained on
them judges what comes out.

Ho et al., Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239
Salimans and Ho, Progressive Distillation, https://arxiv.org/abs/2202.00512 (the direction, "v")
Ho and Salimans, Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598
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
except ImportError as error:
    raise SystemExit(
        f"{error}: this example needs scikit-learn: pip install scikit-learn"
    ) from error

WIDTH, BATCH_SIZE, STEPS, GUIDANCE = 256, 256, 50, 1.5
NO_DIGIT = 10


def load() -> tuple[np.ndarray, np.ndarray]:
    """Images with pixels from -1 to 1, and their labels."""
    digits = load_digits()
    return (digits.data / 8 - 1).astype(np.float32), digits.target.astype(np.int32)


def denoiser() -> nn.Layer:
    """From points `(batch, 64)`, angles and labels to the direction of growing noise."""

    def forward(f: Any, x: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        point, angle, label = x
        told = f.angle(nn.functional.sinusoidal(100 * angle, 64)) + f.label(label)
        h = f.first(point)
        for block in f.blocks:
            h = h + block(jnp.concatenate([h, told], axis=-1))
        return f.out(h)

    block = nn.serial(nn.layer_norm(), nn.dense(WIDTH), nn.silu, nn.dense(WIDTH))
    return nn.compose(
        forward,
        angle=nn.dense(128),
        label=nn.embedding(NO_DIGIT + 1, 128),
        first=nn.dense(WIDTH),
        blocks=[block] * 3,
        out=nn.serial(nn.layer_norm(), nn.dense(64)),
    )


MODEL = denoiser()


def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
    """The mean squared error of the direction, at angles and for noise that are drawn."""
    image, label = batch
    angle_key, noise_key, label_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, label.shape, maxval=jnp.pi / 2)
    noise = jax.random.normal(noise_key, image.shape)
    label = jnp.where(jax.random.bernoulli(label_key, 0.1, label.shape), NO_DIGIT, label)
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    predicted = nn.stateless(MODEL)(params, (cos * image + sin * noise, angle, label))
    return jnp.mean((predicted - (cos * noise - sin * image)) ** 2), (state, {})


def draw(params: Any, key: jax.Array, labels: jax.Array) -> Any:
    """Images of digits: back along the circle, a small turn at a time."""
    turn = jnp.pi / 2 / STEPS
    nothing = jnp.full_like(labels, NO_DIGIT)

    def back(step: Any, point: jax.Array) -> Any:
        angle = jnp.full(labels.shape, jnp.pi / 2 - step * turn)
        told, untold = (
            nn.stateless(MODEL)(params, (point, angle, label)) for label in (labels, nothing)
        )
        direction = untold + GUIDANCE * (told - untold)
        return jnp.cos(turn) * point - jnp.sin(turn) * direction

    noise = jax.random.normal(key, (len(labels), 64))
    return jax.lax.fori_loop(0, STEPS, back, noise)


def train(data: Any, epochs: int, seed: int) -> Any:
    """The means of the parameters over the last steps, which draw better than the parameters."""
    steps = epochs * -(-len(data[1]) // BATCH_SIZE)
    rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 20, steps)
    init_key, fit_key = jax.random.split(jax.random.key(seed))
    example = (jnp.zeros((1, 64)), jnp.zeros(1), jnp.zeros(1, int))
    params, state = MODEL.init(init_key, example)
    result = nn.fit(
        loss_fn,
        data,
        params=params,
        state=state,
        optimizer=nn.optimizers.params_ema(nn.optimizers.adam(rate), 0.995),
        key=fit_key,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        progress=True,
    )
    return result.params


def judge(data: Any, images: Any) -> Any:
    """The digits that a classifier sees, which was trained on the data."""
    model = nn.mlp([128, 10])
    result = nn.fit(
        model,
        data,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=nn.optimizers.adam(3e-3),
        key=jax.random.key(0),
        epochs=30,
        batch_size=BATCH_SIZE,
    )
    return np.argmax(nn.predict(model, result.params, result.state, images), axis=-1)


def picture(images: Any) -> str:
    """Images `(n, 64)` side by side in characters."""
    shades = np.array(list(" .:*#"))[np.round(2 + 2 * np.clip(images, -1, 1)).astype(int)]
    rows = np.repeat(shades.reshape(-1, 8, 8), 2, axis=-1).transpose(1, 0, 2)
    return "\n".join("  ".join("".join(image) for image in row).rstrip() for row in rows)


def main() -> None:
    """Train, draw, and judge."""
    parser = argparse.ArgumentParser(description="Draw handwritten digits by diffusion.")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    data = load()
    began = time.perf_counter()
    params = train(data, options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    wanted = jnp.repeat(jnp.arange(10), 50)
    images = jax.jit(draw)(params, jax.random.key(options.seed), wanted)
    print(f"{picture(images[:250:50])}\n\n{picture(images[250::50])}\n")
    seen = judge(data, images)
    spread = np.std(images.reshape(10, 50, 64), axis=1).mean()
    of_data = np.mean([np.std(data[0][data[1] == digit], axis=0).mean() for digit in range(10)])
    print(f"Spread of the images of a digit: {spread:.2f}, of the data: {of_data:.2f}")
    print(f"Drawn digits that are seen as what they are: {np.mean(seen == wanted):.1%}")


if __name__ == "__main__":
    main()
