"""Dropout and noise."""

from functools import partial

from jaxnn import functional
from jaxnn._core.arrays import check_range
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer
from jaxnn._core.types import Axes, Scalar
from jaxnn._layers.noise import in_training
from jaxnn.functional._dropout import check_below_1


@constructor
def dropout(rate: Scalar, *, broadcast_dims: Axes = ()) -> Layer:
    """Set each element to zero with probability `rate` in training; the identity in evaluation.

    `y = x * keep / (1 - rate)`, `keep ~ Bernoulli(1 - rate)`; a rate of 1 gives zeros.

    Paper: Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        rate: the probability of dropping an element, in [0, 1] (not, as in stax, of keeping it);
            may be traced.
        broadcast_dims: the axes along which elements are dropped together: `(1,)` drops a feature
            of a sequence `(batch, time, features)` at all times.

    Returns:
        A `Layer` without parameters. With `train=True` it needs a key.

    Raises:
        ValueError: `rate` is known and outside [0, 1]; training without a key; `broadcast_dims` is
            out of range for `x`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.dropout(0.5)
        >>> y, _ = layer.apply({}, {}, jnp.ones(1000), key=jax.random.key(0), train=True)
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]
        >>> y, _ = layer.apply({}, {}, jnp.ones(3))
        >>> y
        Array([1., 1., 1.], dtype=float32)
    """
    check_range("dropout", "rate", rate, 0, 1)
    drop = partial(functional.dropout, broadcast_dims=broadcast_dims)
    return in_training("dropout", drop, rate)


@constructor
def spatial_dropout(rate: Scalar) -> Layer:
    """Set whole channels to zero with probability `rate` in training.

    `y = x * keep / (1 - rate)`, where `keep` is the same all over the spatial axes. A rate of 1
    gives zeros. In evaluation it is the identity.

    Paper: Tompson et al., Efficient Object Localization Using Convolutional Networks,
    https://arxiv.org/abs/1411.4280

    Args:
        rate: the probability of dropping a channel of an example, in [0, 1]; may be traced.

    Returns:
        A `Layer` without parameters over `(batch, *spatial, channels)`. With `train=True` it needs
        a key.

    Raises:
        ValueError: `rate` is known and outside [0, 1]; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.spatial_dropout(0.5)
        >>> x = jnp.ones((2, 5, 5, 3))
        >>> y, _ = layer.apply({}, {}, x, key=jax.random.key(0), train=True)
        >>> bool((y == y[:, :1, :1]).all())
        True
    """
    check_range("spatial_dropout", "rate", rate, 0, 1)
    return in_training("spatial_dropout", functional.spatial_dropout, rate)


@constructor
def stochastic_depth(rate: Scalar) -> Layer:
    """Set whole examples to zero with probability `rate` in training ("drop path").

    `y = x * keep / (1 - rate)`, with one `keep` for each example. At the end of a residual branch
    it leaves out the branch: `nn.residual(nn.serial(..., nn.stochastic_depth(0.1)))`. A rate of 1
    gives zeros. In evaluation it is the identity.

    Paper: Huang et al., Deep Networks with Stochastic Depth, https://arxiv.org/abs/1603.09382

    Args:
        rate: the probability of dropping an example, in [0, 1]; may be traced.

    Returns:
        A `Layer` without parameters over `(batch, ...)`. With `train=True` it needs a key.

    Raises:
        ValueError: `rate` is known and outside [0, 1]; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> block = nn.residual(nn.serial(nn.dense(3), nn.stochastic_depth(1.0)))
        >>> x = jnp.ones((2, 3))
        >>> params, state = block.init(jax.random.key(0), x)
        >>> block.apply(params, state, x, key=jax.random.key(1), train=True)[0]
        Array([[1., 1., 1.],
               [1., 1., 1.]], dtype=float32)
    """
    check_range("stochastic_depth", "rate", rate, 0, 1)
    return in_training("stochastic_depth", functional.stochastic_depth, rate)


@constructor
def alpha_dropout(rate: Scalar) -> Layer:
    """Dropout for `selu`, which keeps mean 0 and variance 1, in training.

    `y = a * (x if keep else c) + b`, where `c = -1.758` is what `selu` gives at minus infinity; `a`
    and `b` restore mean and variance. A rate of 1 gives zeros. In evaluation it is the identity.

    Paper: Klambauer et al., Self-Normalizing Neural Networks, https://arxiv.org/abs/1706.02515

    Args:
        rate: the probability of dropping an element, in [0, 1]; may be traced.

    Returns:
        A `Layer` without parameters. With `train=True` it needs a key.

    Raises:
        ValueError: `rate` is known and outside [0, 1]; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.serial(nn.dense(1000), nn.selu, nn.alpha_dropout(0.1))
        >>> x = jax.random.normal(jax.random.key(0), (100, 1000))
        >>> params, state = layer.init(jax.random.key(1), x)
        >>> y, state = layer.apply(params, state, x, key=jax.random.key(2), train=True)
        >>> bool(abs(y.mean()) < 0.1), bool(abs(y.var() - 1) < 0.1)
        (True, True)
    """
    check_range("alpha_dropout", "rate", rate, 0, 1)
    return in_training("alpha_dropout", functional.alpha_dropout, rate)


@constructor
def gaussian_noise(stddev: Scalar) -> Layer:
    """Add normal noise in training: `y = x + stddev * n`, `n ~ N(0, 1)`.

    In evaluation it is the identity.

    Args:
        stddev: the standard deviation of the noise, at least 0; may be traced.

    Returns:
        A `Layer` without parameters. With `train=True` it needs a key.

    Raises:
        ValueError: `stddev` is known and negative; training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.gaussian_noise(2.0)
        >>> y, _ = layer.apply({}, {}, jnp.ones(100_000), key=jax.random.key(0), train=True)
        >>> y.std().round(1)
        Array(2., dtype=float32)
    """
    check_range("gaussian_noise", "stddev", stddev, 0)
    return in_training("gaussian_noise", functional.gaussian_noise, stddev)


@constructor
def gaussian_dropout(rate: Scalar) -> Layer:
    """Multiply by normal noise of mean 1 in training: `y = x * n`, `n ~ N(1, rate / (1 - rate))`.

    Mean and variance of `y` are those of dropout with the same `rate`. In evaluation it is the
    identity.

    Paper: Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        rate: in [0, 1), for at 1 the variance is infinite; may be traced.

    Returns:
        A `Layer` without parameters. With `train=True` it needs a key.

    Raises:
        ValueError: `rate` is known and outside [0, 1); training without a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.gaussian_dropout(0.2)
        >>> y, _ = layer.apply({}, {}, jnp.ones(100_000), key=jax.random.key(0), train=True)
        >>> y.std().round(2)
        Array(0.5, dtype=float32)
    """
    check_below_1("gaussian_dropout", rate)
    return in_training("gaussian_dropout", functional.gaussian_dropout, rate)
