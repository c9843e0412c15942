"""A physics-informed network: solve the equation of Burgers without a grid.

The equation `u_t + u u_x = v u_xx` lets a wave steepen into a front, which diffusion keeps from
breaking. A network `u(t, x)` is trained to fulfil it at random points, by its derivatives with
respect to its inputs: functions of functions, as `jax.jvp` makes them. That it begins as
`-sin(pi x)` and is 0 at both ends is built in. There are no data; the exact solution is only looked
at in the end.

Raissi, Perdikaris and Karniadakis, Physics-informed neural networks,
https://doi.org/10.1016/j.jcp.2018.10.045
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

VISCOSITY, POINTS = 0.1 / np.pi, 1024

NETWORK = nn.mlp([32, 32, 32, 1], activation=nn.tanh)


def solution(params: Any, t: jax.Array, x: jax.Array) -> Any:
    """`u(t, x)` of points `(n,)`: the start, and what the network adds with time."""
    added = nn.stateless(NETWORK)(params, jnp.stack([2 * t - 1, x], axis=-1))[..., 0]
    return -jnp.sin(jnp.pi * x) + t * (1 - x**2) * added


def residual(params: Any, t: jax.Array, x: jax.Array) -> Any:
    """By how much the equation is missed at each of the points."""

    def u_of_x(x: jax.Array) -> Any:
        return solution(params, t, x)

    def u_x_of_x(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        u, u_x = jax.jvp(u_of_x, (x,), (jnp.ones_like(x),))
        return u_x, u

    u_x, u_xx, u = jax.jvp(u_x_of_x, (x,), (jnp.ones_like(x),), has_aux=True)
    _, u_t = jax.jvp(lambda t: solution(params, t, x), (t,), (jnp.ones_like(t),))
    return u_t + u * u_x - VISCOSITY * u_xx


def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
    """The mean squared residual at points that are new in each step."""
    t, x = jax.random.uniform(key, (2, POINTS))
    return jnp.mean(residual(params, t, 2 * x - 1) ** 2), (state, {})


def exact(t: float, x: np.ndarray) -> Any:
    """The solution by Cole and Hopf, an integral that is summed up by the rule of Gauss."""
    nodes, weights = np.polynomial.hermite.hermgauss(100)
    y = x[:, None] - np.sqrt(4 * VISCOSITY * t) * nodes
    weights = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * VISCOSITY))
    return -np.sum(weights * np.sin(np.pi * y), axis=1) / np.sum(weights, axis=1)


def train(steps: int, seed: int) -> tuple[Any, jax.Array]:
    """The parameters, and the loss of each step; all steps are one program."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    params, state = NETWORK.init(init_key, jnp.zeros((1, 2)))
    optimizer = nn.optimizers.adam(nn.schedules.cosine_decay_schedule(5e-3, steps))
    step = nn.train_step(loss_fn, optimizer)
    start = nn.train_state(params, state, optimizer, train_key)
    end, metrics = jax.jit(lambda now: jax.lax.scan(step, now, length=steps))(start)
    return end.params, metrics["loss"]


def main() -> None:
    """Train, and compare with the exact solution."""
    parser = argparse.ArgumentParser(description="Solve the equation of Burgers by a network.")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    began = time.perf_counter()
    params, losses = train(options.steps, options.seed)
    print(f"Mean squared residual: {losses[0]:.2g} in the first step, {losses[-1]:.2g} in the last")
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    x = np.linspace(-1, 1, 201)
    off, size = [], []
    print(f"{'x:':>16} " + " ".join(f"{at:6.2f}" for at in x[10:100:20]))
    for t in (0.25, 0.5, 0.75, 1.0):
        u = np.asarray(solution(params, jnp.full(len(x), t), jnp.asarray(x, jnp.float32)))
        off.append(u - exact(t, x))
        size.append(exact(t, x))
        for name, values in [("network", u), ("exact", exact(t, x))]:
            print(f"t={t:4.2f} {name:>8}: " + " ".join(f"{v:6.3f}" for v in values[10:100:20]))
    print(f"Relative error: {np.linalg.norm(off) / np.linalg.norm(size):.2e}")


if __name__ == "__main__":
    main()
