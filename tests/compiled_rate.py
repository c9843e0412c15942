"""A run whose learning rate is an argument: prints how many programs XLA had to compile."""

import sys

import jax
import jax.numpy as jnp

import jaxnn as nn


def main():
    """Train with the rate that the command line gives."""
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    train = nn.training_run(
        nn.dense(2),
        loss=nn.losses.squared_error,
        optimizer=lambda rate: nn.optimizers.adamw(rate, weight_decay=0.1),
        epochs=2,
        batch_size=4,
    )
    x = jnp.ones((8, 3))
    params, _, _ = jax.jit(train)(jax.random.key(0), (x, x[:, :2]), float(sys.argv[1]))
    print(sum(event.endswith("cache_misses") for event in events), float(params["kernel"][0, 0]))


if __name__ == "__main__":
    main()
