"""`fit` over the devices of several processes; a program of a port, a number and a count."""

import sys

import jax
import numpy as np
import pytest

import jaxnn as nn


def main(port, number, count):
    """Assert that `fit` refuses devices of other processes, and trains on its own."""
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(number))
    x = np.ones((4, 2), np.float32)

    def fitted(sharding):
        return nn.fit(
            nn.dense(2),
            (x, x),
            loss=nn.losses.squared_error,
            optimizer=nn.optimizers.sgd(0.1),
            key=jax.random.key(0),
            epochs=1,
            sharding=sharding,
        )

    with pytest.raises(ValueError, match=f"fit: sharding is over the devices of {count} processes"):
        fitted(nn.sharding())
    own = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",))
    assert fitted(nn.sharding(own)).reason == "epochs"


if __name__ == "__main__":
    main(*sys.argv[1:])
