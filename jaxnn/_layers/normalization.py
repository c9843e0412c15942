"""Normalisation."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike

from jaxnn import functional, initializers
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    canonical_axes,
    check_axis_name,
    check_count,
    check_range,
)
from jaxnn._core.construction import constructor
from jaxnn._core.layer import Layer, abstract, elementwise, param_dtype, pure, shape_of
from jaxnn._core.types import Axes, PyTree
from jaxnn._layers.params import refuse_unused, scale_and_bias
from jaxnn._layers.running_statistics import (
    check_decay,
    check_statistics,
    first_statistics,
    next_statistics,
    unbiased,
)
from jaxnn.functional._batch_normalization import number_of
from jaxnn.functional._normalization import check_mask


@constructor
def layer_norm(
    *,
    axis: Axes = -1,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: Initializer = initializers.ones,
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """Layer normalisation: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`, for each example.

    Mean and biased variance are taken over `axis`, in float32 or wider and in two passes.

    Paper: Ba et al., Layer Normalization, https://arxiv.org/abs/1607.06450

    Args:
        axis: the axis or axes to normalise over.
        epsilon: added to the variance.
        use_scale, use_bias: whether to learn a scale and a bias, each of the shape of the
            normalised axes.
        scale_init, bias_init: their initializers; ones and zeros by default.

    Returns:
        A `Layer` with params `{"scale", "bias"}`. Its `apply` takes `mask=None`, as
        `nn.functional.layer_norm` does.

    Raises:
        ValueError: `epsilon` is negative; `axis` is out of range for `x`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.layer_norm()
        >>> x = jnp.array([[1448.0, 1449.0, 1450.0]])
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, state, x)[0].round(3)
        Array([[-1.225,  0.   ,  1.225]], dtype=float32)
    """
    check_range("layer_norm", "epsilon", epsilon, 0)
    norm = partial(functional.layer_norm, axis=axis, epsilon=epsilon)
    inits = scale_init if use_scale else None, bias_init if use_bias else None
    return _norm("layer_norm", norm, axis, *inits)


@constructor
def rms_norm(
    *,
    axis: Axes = -1,
    epsilon: float = 1e-6,
    use_scale: bool = True,
    scale_offset: float = 0.0,
    scale_init: Initializer | None = None,
) -> Layer:
    """Root-mean-square normalisation: `y = x / sqrt(mean(x²) + epsilon) * scale`, for each example.

    Layer norm without the mean and the bias. The mean square is taken over `axis`, in float32 or
    wider. With an offset the factor is `scale_offset + scale`: with 1, as in Gemma, weight decay
    draws it to 1.

    Paper: Zhang and Sennrich, Root Mean Square Layer Normalization,
    https://arxiv.org/abs/1910.07467

    Args:
        axis: the axis or axes to normalise over.
        epsilon: added to the mean square (torch's default is the `eps` of the dtype).
        use_scale: whether to learn a scale, of the shape of the normalised axes.
        scale_offset: added to the scale.
        scale_init: initializer of the scale; None for `1 - scale_offset`, so that the factor is 1.

    Returns:
        A `Layer` with params `{"scale"}`. Its `apply` takes `mask=None`, as
        `nn.functional.rms_norm` does.

    Raises:
        ValueError: `epsilon` is negative; `axis` is out of range for `x`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.rms_norm()
        >>> x = jnp.array([[1.0, -1.0, 5.0]])
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, state, x)[0].round(3)
        Array([[ 0.333, -0.333,  1.667]], dtype=float32)
    """
    check_range("rms_norm", "epsilon", epsilon, 0)
    norm = partial(functional.rms_norm, axis=axis, epsilon=epsilon, scale_offset=scale_offset)
    if scale_init is None:
        scale_init = initializers.constant(1.0 - scale_offset)
    return _norm("rms_norm", norm, axis, scale_init if use_scale else None, None)


@constructor
def group_norm(
    num_groups: int = 32,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: Initializer = initializers.ones,
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """Group normalisation: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`.

    Mean and biased variance are those of each example, over the neighbouring channels of a group
    at all positions, in float32 or wider and in two passes.

    Paper: Wu and He, Group Normalization, https://arxiv.org/abs/1803.08494

    Args:
        num_groups: the number of groups that the channels are divided into.
        axis: the axis of the channels, not the first, which holds the batch.
        epsilon: added to the variance.
        use_scale, use_bias: whether to learn a scale and a bias, each of shape `(channels,)`.
        scale_init, bias_init: their initializers; ones and zeros by default.

    Returns:
        A `Layer` with params `{"scale", "bias"}`. Its `apply` takes `mask=None`, as
        `nn.functional.group_norm` does.

    Raises:
        TypeError: `num_groups` is not an integer.
        ValueError: `num_groups` is less than 1 or does not divide the channels; `epsilon` is
            negative; `axis` is out of range for `x` or the first.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.group_norm(2)
        >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, state, x)[0].round(3)
        Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    check_count("group_norm", "num_groups", num_groups)
    check_range("group_norm", "epsilon", epsilon, 0)
    norm = partial(functional.group_norm, num_groups=num_groups, axis=axis, epsilon=epsilon)
    inits = scale_init if use_scale else None, bias_init if use_bias else None
    return _norm("group_norm", norm, axis, *inits)


@constructor
def instance_norm(
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    scale_init: Initializer = initializers.ones,
    bias_init: Initializer = initializers.zeros,
    use_running_statistics: bool = False,
    decay: float | None = 0.9,
    axis_name: str | Sequence[str] | None = None,
) -> Layer:
    """Instance normalisation: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`.

    Mean and biased variance are those of each channel of each example, over all positions, in
    float32 or wider and in two passes. torch learns a scale and a bias with `affine=True` only.

    With `use_running_statistics=True`, evaluation normalises with running statistics, as that of
    `batch_norm` does. Training updates them by the mean over the examples of a batch of their means
    and unbiased variances (torch: `track_running_stats=True`).

    Paper: Ulyanov et al., Instance Normalization, https://arxiv.org/abs/1607.08022

    Args:
        axis: the axis of the channels, not the first, which holds the batch.
        epsilon: added to the variance.
        use_scale, use_bias: whether to learn a scale and a bias, each of shape `(channels,)`.
        scale_init, bias_init: their initializers; ones and zeros by default.
        use_running_statistics: whether evaluation normalises with what training has seen.
        decay: the decay rate of the running statistics, or None, as in `batch_norm`.
        axis_name: names of mapped axes (of `jax.vmap` or `jax.shard_map`) over which the batch is
            spread; the running statistics are then those of the whole batch.

    Returns:
        A `Layer` with params `{"scale", "bias"}`, and with running statistics the state of
        `batch_norm`. Its `apply` takes `mask=None`, as `nn.functional.instance_norm` does.

    Raises:
        ValueError: `x` has no axis besides batch and channels; `axis` is out of range for `x` or
            the first; `epsilon` is negative; `decay` is outside [0, 1]; the state is missing;
            `axis_name` without `use_running_statistics`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.instance_norm()
        >>> x = jnp.array([[[1.0, 10.0], [3.0, 30.0]]])
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, state, x)[0].round(3)
        Array([[[-1., -1.],
                [ 1.,  1.]]], dtype=float32)
    """
    check_range("instance_norm", "epsilon", epsilon, 0)
    norm = partial(functional.instance_norm, axis=axis, epsilon=epsilon)
    inits = scale_init if use_scale else None, bias_init if use_bias else None
    layer = _norm("instance_norm", norm, axis, *inits)
    check_decay("instance_norm", decay)
    if not use_running_statistics:
        if axis_name is not None:
            raise ValueError(
                f"instance_norm: axis_name is {axis_name!r}, expected None without "
                "use_running_statistics: examples share nothing else"
            )
        return layer
    used = {"scale": use_scale, "bias": use_bias}
    return _with_running_statistics(layer, axis, epsilon, decay, axis_name, used)


def _with_running_statistics(
    layer: Layer,
    axis: int,
    epsilon: float,
    decay: float | None,
    axis_name: str | Sequence[str] | None,
    used: dict[str, bool],
) -> Layer:
    """Instance norm that evaluates with running statistics."""

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        params, _ = layer.init(key, x)
        shape = shape_of("instance_norm", x)
        channels = shape[canonical_axes(axis, len(shape), "instance_norm")[0]]
        return params, first_statistics((channels,), param_dtype(x), decay)

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: ArrayLike | None = None,
    ) -> tuple[PyTree, PyTree]:
        check_statistics("instance_norm", state, decay)
        if train:
            y, _ = layer.apply(params, {}, x, mask=mask)
            return y, _next_of_instances(state, jnp.asarray(x), mask, axis, decay, axis_name)
        check_mask("instance_norm", jnp.asarray(x), mask)
        refuse_unused("instance_norm", params, **used)
        scale, bias = (params[leaf] if is_used else None for leaf, is_used in used.items())
        mean, var = state["mean"], state["var"]
        y = functional.batch_norm(x, mean, var, scale, bias, axis=axis, epsilon=epsilon, mask=mask)
        return y, state

    return Layer(init, apply)


def _next_of_instances(
    state: PyTree,
    x: jax.Array,
    mask: ArrayLike | None,
    axis: int,
    decay: float | None,
    axis_name: str | Sequence[str] | None,
) -> PyTree:
    """The running statistics after a batch of examples, each with statistics of its own."""
    counts = check_mask("instance_norm", x, mask)
    counts = jnp.ones(x.shape, bool) if counts is None else jnp.broadcast_to(counts, x.shape)
    channel = canonical_axes(axis, x.ndim, "instance_norm")[0] - 1
    if axis_name is not None:
        check_axis_name("instance_norm", axis_name)

    def of_one(x: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean, var = functional.batch_statistics(x, axis=channel, mask=counts)
        n = number_of(counts, channel, None)
        return mean, unbiased(var, n), n > 0

    def summed(leaf: jax.Array) -> jax.Array:
        local = leaf.sum(0)
        return local if axis_name is None else lax.psum(local, axis_name)

    mean, var, seen = jax.vmap(of_one)(x, counts)
    examples = summed(seen)

    def averaged(leaf: jax.Array) -> jax.Array:
        total = summed(jnp.where(seen, leaf, jnp.zeros_like(leaf)))
        return total / jnp.maximum(examples, 1).astype(leaf.real.dtype)

    return next_statistics(state, averaged(mean), averaged(var), examples > 0, decay)


@constructor
def unit_norm(*, axis: Axes = -1, epsilon: float = 1e-6) -> Layer:
    """Scale to Euclidean length 1 over `axis`: `y = x / max(‖x‖, epsilon)`.

    Zero stays zero, and its gradient is finite.

    Args:
        axis: the axis or axes to normalise over.
        epsilon: the length below which `x` is divided by `epsilon`, so large that its square is not
            0 in float32.

    Returns:
        A `Layer` without parameters.

    Raises:
        ValueError: `epsilon` is too small; `axis` is out of range for `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.unit_norm().apply({}, {}, jnp.array([[3.0, 4.0], [0.0, 0.0]]))[0]
        Array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """
    check_range("unit_norm", "epsilon", epsilon, math.sqrt(LEAST_POSITIVE))
    return elementwise(partial(functional.unit_norm, axis=axis, epsilon=epsilon))


@constructor
def local_response_norm(
    size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, axis: int = -1
) -> Layer:
    """Damp each channel by its neighbours: `y = x / (k + alpha / size * Σ x²)^beta`.

    Paper: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012,
    https://papers.nips.cc/paper/4824

    Args:
        size, alpha, beta, k, axis: as in `nn.functional.local_response_norm`.

    Returns:
        A `Layer` without parameters.

    Raises:
        TypeError: `size` is not an integer.
        ValueError: `size` is less than 1; `alpha` or `k` is too small; `axis` is out of
            range for `x`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.local_response_norm(3, alpha=3.0, beta=1.0)
        >>> layer.apply({}, {}, jnp.array([1.0, 0.0, 0.0, 1.0, 1.0]))[0].round(3)
        Array([0.5  , 0.   , 0.   , 0.333, 0.333], dtype=float32)
    """
    check_count("local_response_norm", "size", size)
    check_range("local_response_norm", "alpha", alpha, 0)
    check_range("local_response_norm", "k", k, LEAST_POSITIVE)
    norm = functional.local_response_norm
    return elementwise(partial(norm, size=size, alpha=alpha, beta=beta, k=k, axis=axis))


def _norm(
    name: str,
    norm: Callable[..., jax.Array],
    axis: Axes,
    scale_init: Initializer | None,
    bias_init: Initializer | None,
) -> Layer:
    """A layer of a function with a scale and a bias of the shape of `axis`, where they are."""

    def init(key: jax.Array, x: PyTree) -> PyTree:
        shape = shape_of(name, x)
        own = tuple(shape[a] for a in canonical_axes(axis, len(shape), name))
        jax.eval_shape(norm, abstract(x))  # refuses what the call would refuse
        return scale_and_bias(name, key, own, param_dtype(x), scale_init, bias_init)

    def call(params: PyTree, x: PyTree, *, mask: ArrayLike | None = None) -> jax.Array:
        used = {"scale": scale_init is not None, "bias": bias_init is not None}
        refuse_unused(name, params, **used)
        leaves = {leaf: params[leaf] for leaf, is_used in used.items() if is_used}
        return norm(x, **leaves, mask=mask)

    return pure(init, call)
