"""Training whose learning rate is an argument: prints how many programs XLA had to compile.

The command line gives the rate, and "fit" or "training_run".
"""

import sys

import jax
import jax.numpy as jnp

import jaxnn as nn

COMMON = {"loss": nn.losses.squared_error, "epochs": 2, "batch_size": 4}


def optimizer(hyperparams):
    """An optimizer of the rate."""
    return nn.optimizers.adamw(hyperparams["rate"], weight_decay=0.1)


def main():
    """Train with the rate that the command line gives."""
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    function, key, x = sys.argv[1], jax.random.key(0), jnp.ones((8, 3))
    data, hyperparams = (x, x[:, :2]), {"rate": float(sys.argv[2])}
    if function == "fit":
        options = {"key": key, "hyperparams": hyperparams, "progress": False}
        params = nn.fit(nn.dense(2), data, optimizer=optimizer, **options, **COMMON).params
    else:
        train = jax.jit(nn.training_run(nn.dense(2), optimizer=optimizer, **COMMON))
        params, _, _ = train(key, data, hyperparams)
    print(sum(event.endswith("cache_misses") for event in events), float(params["kernel"][0, 0]))


if __name__ == "__main__":
    main()
