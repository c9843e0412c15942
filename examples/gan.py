"""A generative adversarial network: two networks in a game, trained by a loop of one's own.

The data are points of the plane, close to eight places on a circle. The generator makes points of
noise, the discriminator tells them from the data, and each learns from the other. What goes wrong
in such games can be counted here: places that the generator leaves out, points between the places.

Goodfellow et al., Generative Adversarial Nets, https://arxiv.org/abs/1406.2661
Mescheder et al., Which Training Methods for GANs do actually Converge?,
https://arxiv.org/abs/1801.04406
"""

import argparse
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

MODES, RADIUS, SIGMA = 8, 2.0, 0.05  # Gaussians on a circle
NOISE, WIDTH, BATCH_SIZE = 2, 64, 256
PENALTY = 0.1

GENERATOR = nn.mlp([WIDTH, WIDTH, 2])
DISCRIMINATOR = nn.mlp(
    [WIDTH, WIDTH, 1], activation=functools.partial(nn.leaky_relu, negative_slope=0.2)
)


def centers() -> jax.Array:
    """The modes of the data, `(MODES, 2)`."""
    angles = jnp.linspace(0, 2 * jnp.pi, MODES, endpoint=False)
    return RADIUS * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def draw_data(key: jax.Array, n: int) -> jax.Array:
    """Points around the modes, `(n, 2)`."""
    which_key, where_key = jax.random.split(key)
    which = jax.random.randint(which_key, (n,), 0, MODES)
    return centers()[which] + SIGMA * jax.random.normal(where_key, (n, 2))


def generate(params: Any, key: jax.Array, n: int) -> Any:
    """Points that the generator makes of noise, `(n, 2)`."""
    return nn.stateless(GENERATOR)(params, jax.random.normal(key, (n, NOISE)))


def judge(params: Any, points: jax.Array) -> Any:
    """The logits of points `(..., 2)` to be of the data, `(...)`."""
    return nn.stateless(DISCRIMINATOR)(params, points)[..., 0]


# Either player has the other's parameters in its batch: they are not for it to change.


def discriminator_loss(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
    """The cross-entropy of data against generated points, and a penalty on slopes at the data."""
    data, generator_params = batch
    generated = generate(generator_params, key, len(data))
    judge_with_slope = jax.vmap(jax.value_and_grad(judge, argnums=1), in_axes=(None, 0))
    logits, slopes = judge_with_slope(params, data)
    mistakes = jnp.mean(nn.softplus(-logits)) + jnp.mean(nn.softplus(judge(params, generated)))
    penalty = PENALTY / 2 * jnp.mean(jnp.sum(slopes**2, axis=-1))
    return mistakes + penalty, (state, {})


def generator_loss(params: Any, state: Any, discriminator_params: Any, key: jax.Array) -> Any:
    """How far the generated points are from being taken for data."""
    logits = judge(discriminator_params, generate(params, key, BATCH_SIZE))
    return jnp.mean(nn.softplus(-logits)), (state, {})


class Players(NamedTuple):
    """Where the training of the two stands."""

    generator: nn.TrainState
    discriminator: nn.TrainState


def begin(key: jax.Array, optimizer: Any) -> Players:
    """Both at step 0, with the same optimizer but a state of it for each."""
    keys = jax.random.split(key, 4)
    generator, _ = GENERATOR.init(keys[0], jnp.zeros((1, NOISE)))
    discriminator, _ = DISCRIMINATOR.init(keys[1], jnp.zeros((1, 2)))
    return Players(
        nn.train_state(generator, {}, optimizer, keys[2]),
        nn.train_state(discriminator, {}, optimizer, keys[3]),
    )


def turns(optimizer: Any) -> Any:
    """The function `(players, key) -> (players, losses)`: a step of the one, then of the other."""
    discriminator_step = nn.train_step(discriminator_loss, optimizer)
    generator_step = nn.train_step(generator_loss, optimizer)

    def turn(players: Players, key: jax.Array) -> tuple[Players, dict[str, Any]]:
        generator, discriminator = players
        batch = draw_data(key, BATCH_SIZE), generator.params
        discriminator, of_discriminator = discriminator_step(discriminator, batch)
        generator, of_generator = generator_step(generator, discriminator.params)
        losses = {"discriminator": of_discriminator["loss"], "generator": of_generator["loss"]}
        return Players(generator, discriminator), losses

    return turn


def train(key: jax.Array, steps: int) -> Players:
    """Play, the learning rates going down in a cosine, and tell every thousand turns how it goes.

    Where the discriminator can tell nothing, the losses are 2 log 2 = 1.386 and log 2 = 0.693.
    """
    start_key, data_key = jax.random.split(key)
    rate = nn.schedules.cosine_decay_schedule(2e-3, steps)
    optimizer = nn.optimizers.adam(rate, b1=0.5, b2=0.99)
    play = jax.jit(functools.partial(jax.lax.scan, turns(optimizer)), donate_argnums=0)

    players = begin(start_key, optimizer)
    keys = jax.random.split(data_key, steps)
    for done in range(0, steps, 1000):
        players, losses = play(players, keys[done : done + 1000])
        discriminator, generator = (
            float(jnp.mean(losses[name])) for name in ("discriminator", "generator")
        )
        print(
            f"Step {min(done + 1000, steps)}: loss of the discriminator {discriminator:.3f}, "
            f"of the generator {generator:.3f}"
        )
    return players


# What came of it


class Quality(NamedTuple):
    """How good points are."""

    modes: int  # that have at least a quarter of the points that are due to them
    near: float  # the share of the points within three standard deviations of a mode


def quality(points: jax.Array) -> Quality:
    """How good points `(n, 2)` are."""
    is_near = jnp.linalg.norm(points[:, None] - centers()[None], axis=-1) < 3 * SIGMA
    of_mode = np.asarray(jnp.mean(is_near, axis=0))
    return Quality(int(np.sum(of_mode > 0.25 / MODES)), float(of_mode.sum()))


def picture(points: jax.Array, rows: int = 21, columns: int = 49) -> str:
    """The density of points `(n, 2)` in characters."""
    edge = RADIUS + 0.5
    count, _, _ = np.histogram2d(
        -np.asarray(points)[:, 1],
        np.asarray(points)[:, 0],
        bins=(rows, columns),
        range=[[-edge, edge], [-edge, edge]],
    )
    due = len(points) / count.size  # were they everywhere alike
    shades = np.array(list(" .:*#"))[np.digitize(count, [0.1 * due, due, 3 * due, 10 * due])]
    return "\n".join("".join(row).rstrip() for row in shades)


def main() -> None:
    """Play, and count the modes; a Gaussian fitted to the data is the baseline."""
    parser = argparse.ArgumentParser(description="Train a GAN on eight Gaussians on a circle.")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    keys = jax.random.split(jax.random.key(options.seed), 4)
    began = time.perf_counter()
    generator = train(keys[0], options.steps).generator
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    points = generate(generator.params, keys[1], 10_000)
    data = draw_data(keys[2], 10_000)
    gaussian = jax.random.normal(keys[3], data.shape) * jnp.std(data, axis=0, keepdims=True)
    print(f"\n{picture(points)}\n")
    for name, sample in {"a Gaussian": gaussian, "the generator": points, "data": data}.items():
        modes, near = quality(sample)
        print(f"Of {name}: {modes} of {MODES} modes, {near:.1%} of the points near one")


if __name__ == "__main__":
    main()
