"""What the tests of training have in common: a small problem, and two ways to train on it."""

import jax
import numpy as np

import jaxnn as nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(22, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int32) + (X[:, 1] > 0)
DATA = (X, LABELS)
VALIDATION = (X[:7] + 0.1, LABELS[:7])
KEY = jax.random.key(1)

# No bias before the normalisation: its gradient is zero but for rounding.
NOISY = nn.serial(
    nn.dense(6, use_bias=False), nn.batch_norm(), nn.relu, nn.dropout(0.25), nn.dense(3)
)
PLAIN = nn.serial(nn.dense(6), nn.tanh, nn.dense(3))
LINEAR = nn.dense(3)
ADAM = nn.optimizers.adam(1e-2)
SGD = nn.optimizers.sgd(0.1)
ACCURACY = nn.metrics.accuracy()


def settings(**changes):
    """The common arguments of both: what takes long to compile only in tests that are about it."""
    common = {"loss": nn.losses.softmax_cross_entropy, "optimizer": SGD}
    return common | {"epochs": 3, "shuffle": False} | changes


def fitted(model=NOISY, data=DATA, key=KEY, **changes):
    """What `fit` returns."""
    return nn.fit(model, data, key=key, progress=False, **settings(**changes))


def run(model=NOISY, data=DATA, key=KEY, validation=None, hyperparams=None, **changes):
    """What `training_run` returns."""
    train = jax.jit(nn.training_run(model, **settings(**changes)))
    return train(key, data, hyperparams, validation)


def assert_close(ours, theirs, rtol=2e-5):
    """Two trees agree to rounding."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 10)


def assert_equal(ours, theirs):
    """Two trees agree bit for bit, keys included."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(*map(_numbers, (a, b)))


def _numbers(leaf):
    is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
