"""A policy gradient: a network learns to balance a pole on a cart, by trial and error.

This is REINFORCE with a learned baseline; the laws of motion, the episodes and the training are one
compiled program. The task is known as CartPole: push the cart to the right or to the left, fifty
times a second. An episode ends when the pole leans by more than 12 degrees, when the cart leaves
the track, or after 500 pushes; it is solved when episodes last 475 on average.

Barto, Sutton and Anderson, Neuronlike Adaptive Elements That Can Solve Difficult Learning Control
Problems, 1983, https://doi.org/10.1109/TSMC.1983.6313077
Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning,
1992, https://doi.org/10.1007/BF00992696
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxnn as nn

LONGEST, SOLVED = 500, 475  # pushes
EPISODES = 64  # in a step of training
DISCOUNT = 0.99

GRAVITY, FORCE, INTERVAL = 9.8, 10.0, 0.02  # metres per second squared, newtons, seconds
CART, POLE, HALF_LENGTH = 1.0, 0.1, 0.5  # kilograms, kilograms, metres
TRACK, LEAN = 2.4, 12 * jnp.pi / 180  # metres, radians

NETWORK = nn.parallel(
    policy=nn.mlp([32, 1], activation=nn.tanh),
    value=nn.mlp([32, 1], activation=nn.tanh),
)


def move(now: jax.Array, right: jax.Array) -> jax.Array:
    """Where a push to the right, or else to the left, leads: a step of Euler's method.

    `now` is `(4,)`: the position and velocity of the cart, the angle and velocity of the pole.
    """
    _, velocity, angle, spin = now
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    force = jnp.where(right, FORCE, -FORCE)
    push = (force + POLE * HALF_LENGTH * spin**2 * sin) / (CART + POLE)
    inertia = HALF_LENGTH * (4 / 3 - POLE * cos**2 / (CART + POLE))
    spin_up = (GRAVITY * sin - cos * push) / inertia
    speed_up = push - POLE * HALF_LENGTH * spin_up * cos / (CART + POLE)
    return now + INTERVAL * jnp.stack([velocity, speed_up, spin, spin_up])


def stands(now: jax.Array) -> jax.Array:
    """Whether the pole is up and the cart on the track."""
    return (jnp.abs(now[0]) <= TRACK) & (jnp.abs(now[2]) <= LEAN)


class Episodes(NamedTuple):
    """What was seen and done, arrays of shape `(LONGEST, episodes, ...)`."""

    seen: jax.Array
    right: jax.Array
    going: jax.Array  # whether the pole had not fallen before

    @property
    def length(self) -> jax.Array:
        """How many pushes the pole stood, the mean over the episodes."""
        return jnp.mean(jnp.sum(self.going, axis=0))


def play(policy: Callable[[jax.Array, jax.Array], Any], key: jax.Array, n: int) -> Episodes:
    """`n` episodes with `policy(seen, key) -> right`, from random starts."""
    start_key, policy_key = jax.random.split(key)
    start = jax.random.uniform(start_key, (n, 4), minval=-0.05, maxval=0.05)

    def push(carry: Any, key: jax.Array) -> tuple[Any, Episodes]:
        seen, going = carry
        right = policy(seen, key)
        following = jax.vmap(move)(seen, right)
        return (following, going & jax.vmap(stands)(following)), Episodes(seen, right, going)

    keys = jax.random.split(policy_key, LONGEST)
    _, episodes = jax.lax.scan(push, (start, jnp.ones(n, bool)), keys)
    return episodes


# The network


def look(params: Any, seen: jax.Array) -> tuple[Any, Any]:
    """The logits of pushing right, and the returns to expect."""
    outputs = nn.stateless(NETWORK)(params, seen)
    return outputs["policy"][..., 0], outputs["value"][..., 0]


def at_random(params: Any, seen: jax.Array, key: jax.Array) -> jax.Array:
    """The policy that is trained."""
    logits, _ = look(params, seen)
    return jax.random.bernoulli(key, nn.sigmoid(logits))


def most_likely(params: Any, seen: jax.Array, key: jax.Array) -> Any:
    """The policy that is tested."""
    logits, _ = look(params, seen)
    return logits > 0


def returns(going: jax.Array) -> jax.Array:
    """The discounted sum of what is still to come, where each push is worth 1 - DISCOUNT.

    So it is at most 1, `(LONGEST, episodes)` as `going`.
    """

    def add(later: jax.Array, going: jax.Array) -> tuple[jax.Array, jax.Array]:
        now = jnp.where(going, 1 - DISCOUNT + DISCOUNT * later, 0)
        return now, now

    return jax.lax.scan(add, jnp.zeros(going.shape[1]), going, reverse=True)[1]


def loss_fn(params: Any, state: Any, batch: None, key: jax.Array) -> Any:
    """Make likelier what went better than expected, and expect what came."""
    played_by = functools.partial(at_random, jax.lax.stop_gradient(params))
    episodes = play(played_by, key, EPISODES)
    came = returns(episodes.going)
    logits, expected = look(params, episodes.seen)
    surprise = came - expected
    cross_entropy = nn.losses.sigmoid_binary_cross_entropy(logits, episodes.right)
    policy_loss = cross_entropy * jax.lax.stop_gradient(surprise)
    loss = jnp.mean(policy_loss + 0.5 * surprise**2, where=episodes.going)
    return loss, (state, {"length": episodes.length})


def begin(key: jax.Array, optimizer: Any) -> nn.TrainState:
    """Step 0."""
    init_key, play_key = jax.random.split(key)
    params, state = NETWORK.init(init_key, jnp.zeros((1, 4)))
    return nn.train_state(params, state, optimizer, play_key)


def train(key: jax.Array, steps: int) -> Any:
    """Train, and tell of it every twenty steps; the parameters."""
    optimizer = nn.optimizers.adam(1e-2)
    step = nn.train_step(loss_fn, optimizer)

    @functools.partial(jax.jit, donate_argnums=0, static_argnums=1)
    def steps_from(now: nn.TrainState, n: int) -> tuple[nn.TrainState, dict[str, Any]]:
        return jax.lax.scan(step, now, length=n)

    now = begin(key, optimizer)
    for done in range(0, steps, 20):
        now, metrics = steps_from(now, min(20, steps - done))
        print(f"Step {now.step}: mean length of the episodes {metrics['length'][-1]:.0f}")
    return now.params


def main() -> None:
    """Train, and test on other episodes; pushes at random and towards the lean are baselines."""
    parser = argparse.ArgumentParser(description="Learn to balance a pole by a policy gradient.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    train_key, test_key = jax.random.split(jax.random.key(options.seed))
    began = time.perf_counter()
    params = train(train_key, options.steps)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    policies: dict[str, Any] = {
        "random pushes": lambda seen, key: jax.random.bernoulli(key, shape=seen.shape[:1]),
        "pushes to where the pole leans": lambda seen, key: seen[:, 2] > 0,
        "the network": functools.partial(most_likely, params),
    }
    lengths = {}
    for key, (name, policy) in zip(jax.random.split(test_key, 3), policies.items(), strict=True):
        lengths[name] = play(policy, key, 1000).length
        print(f"Mean length over 1,000 episodes of {name}: {lengths[name]:.1f}")
    is_solved = lengths["the network"] >= SOLVED
    print(f"Solved, that is at least {SOLVED}: {'yes' if is_solved else 'no'}")


if __name__ == "__main__":
    main()
