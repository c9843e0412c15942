"""Positional encodings: for attention, and layers that add them to embeddings."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike

from jaxnn import functional, initializers
from jaxnn._core.arrays import (
    LEAST_POSITIVE,
    check_count,
    check_key,
    check_range,
    floating,
    real_dtype,
    spread,
)
from jaxnn._core.construction import constructor, refuse_constructor
from jaxnn._core.decoding import check_capacity, refuse_in_decoding
from jaxnn._core.layer import Layer, abstract, param_dtype, shape_of
from jaxnn._core.types import PyTree
from jaxnn._layers.params import draw

# For attention


def _no_rotation(x: jax.Array, positions: jax.Array) -> jax.Array:
    return x


def _no_bias(
    num_heads: int, query_positions: jax.Array, key_positions: jax.Array
) -> jax.Array | None:
    return None


class Positions(NamedTuple):
    """A positional encoding for `nn.attention`: two functions.

    `rotate(x, positions) -> x` changes queries and keys, shape `(..., time, num_heads, head_dim)`,
    by their positions, integers of shape `(time,)`. `bias(num_heads, query_positions,
    key_positions)` is added to the logits: shape `(num_heads, queries, keys)`, or None.

    `nn.rotary()` and `nn.alibi()` make the usual ones.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def nearby(num_heads, query_positions, key_positions):
        ...     distances = query_positions[:, None] - key_positions[None, :]
        ...     return -jnp.square(distances.astype(float))[None]
        >>> layer = nn.attention(2, positions=nn.Positions(bias=nearby))
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 5, 8)))
        >>> layer.apply(params, state, jnp.ones((1, 5, 8)))[0].shape
        (1, 5, 8)
    """

    rotate: Callable[[jax.Array, jax.Array], jax.Array] = _no_rotation
    bias: Callable[[int, jax.Array, jax.Array], jax.Array | None] = _no_bias

    def __repr__(self) -> str:
        """The call that made them."""
        names = [getattr(f, "__qualname__", repr(f)) for f in self]
        made_by_constructor = names[0].endswith(")")
        return names[0] if made_by_constructor else f"Positions({', '.join(names)})"


@constructor
def rotary(
    *,
    base: float = 10000.0,
    fraction: float = 1.0,
    interleaved: bool = False,
    scaling: Callable[[jax.Array], jax.Array] | None = None,
) -> Positions:
    """Rotary positional encoding (RoPE) for `nn.attention`: rotates queries and keys.

    Paper: Su et al., RoFormer, https://arxiv.org/abs/2104.09864

    Args:
        base: the base of the geometric series of frequencies (`theta` of other libraries).
        fraction: the fraction of the head dimension that is rotated, in (0, 1].
        interleaved: False pairs feature `i` with `i + n` (GPT-NeoX, Llama), True feature `2 i` with
            `2 i + 1` (the paper, GPT-J). Weights of one convention do not fit the other.
        scaling: a function from the frequencies, in radians a position, to those that are used, for
            longer sequences: `nn.llama3_scaling`, `nn.yarn_scaling`, or `lambda w: w / 4` (linear).

    Returns:
        `Positions`.

    Raises:
        TypeError: `scaling` is not a function.
        ValueError: `base` is not positive or `fraction` is outside (0, 1]; in use, `fraction`
            leaves an odd number of features to rotate.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.attention(2, is_causal=True, positions=nn.rotary(base=500000.0))
        >>> layer
        attention(2, is_causal=True, positions=rotary(base=500000.0))
    """
    check_range("rotary", "base", base, LEAST_POSITIVE)
    check_range("rotary", "fraction", fraction, LEAST_POSITIVE, 1)
    if not (scaling is None or callable(scaling)):
        raise TypeError(f"rotary: scaling is {scaling!r}, expected a function of frequencies")
    refuse_constructor(scaling, "rotary: scaling", "a function of frequencies")

    def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
        return functional.rotary(
            x, positions, base=base, fraction=fraction, interleaved=interleaved, scaling=scaling
        )

    def bias(num_heads: int, query_positions: jax.Array, key_positions: jax.Array) -> None:
        return None

    return Positions(rotate, bias)


@constructor
def alibi() -> Positions:
    """Linear biases (ALiBi) for `nn.attention`: logits decrease with the distance.

    `bias = -slope * |query position - key position|`, with a slope for each head.

    Paper: Press et al., Train Short, Test Long, https://arxiv.org/abs/2108.12409

    Returns:
        `Positions`.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> nn.alibi().bias(2, jnp.array([3]), jnp.arange(3))[:, 0]
        Array([[-0.1875    , -0.125     , -0.0625    ],
               [-0.01171875, -0.0078125 , -0.00390625]], dtype=float32)
    """

    def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
        return x

    def bias(num_heads: int, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        slopes = functional.alibi_slopes(num_heads)
        return functional.alibi_bias(slopes, query_positions, key_positions)[0]

    return Positions(rotate, bias)


# Added to embeddings


@constructor
def sinusoidal_positions(*, base: float = 10000.0, cached: bool = False) -> Layer:
    """Sinusoidal positional encoding: `y = x + sinusoidal(positions, features)`.

    Paper: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762

    Args:
        base: the base of the geometric series of frequencies (`theta` of other libraries).
        cached: whether to decode: a call continues at the position where the last one ended.

    Returns:
        A `Layer` without parameters on `(..., time, features)`, with an even number of features.
        Its `apply` takes `positions=`, integers of shape `(..., time)`; without them elements are
        numbered from 0. With `cached=True` its state is `{"position"}`, the number of elements so
        far.

    Raises:
        TypeError: `positions` are not integers.
        ValueError: `base` is not positive; `x` or `positions` have another shape; `positions` are
            given with `cached=True`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.sinusoidal_positions()
        >>> y, _ = layer.apply({}, {}, jnp.zeros((3, 4)))
        >>> print(jnp.array_str(y, precision=2))
        [[ 0.    1.    0.    1.  ]
         [ 0.84  0.54  0.01  1.  ]
         [ 0.91 -0.42  0.02  1.  ]]
    """
    check_range("sinusoidal_positions", "base", base, LEAST_POSITIVE)

    def encoding(params: PyTree, positions: jax.Array | None, x: jax.Array) -> jax.Array:
        if positions is None:
            positions = jnp.arange(x.shape[-2], dtype=jnp.int32)
        return functional.sinusoidal(
            positions.astype(real_dtype(param_dtype(x))), x.shape[-1], base=base
        )

    return _added("sinusoidal_positions", lambda key, x: {}, encoding, cached)


@constructor
def learned_positions(
    max_length: int,
    *,
    embedding_init: Initializer = initializers.normal(0.02),  # noqa: B008
    cached: bool = False,
) -> Layer:
    """Learned positional embedding: `y = x + embedding[positions]`.

    Paper: Gehring et al., Convolutional Sequence to Sequence Learning,
    https://arxiv.org/abs/1705.03122

    Args:
        max_length: the maximum length of a sequence.
        embedding_init: initializer of the embedding, shape `(max_length, features)`.
        cached: whether to decode: a call continues at the position where the last one ended.
            Past the last position it gives NaN.

    Returns:
        A `Layer` on `(..., time, features)` with params `{"embedding"}`. Its `apply` takes
        `positions=`, integers of shape `(..., time)`; without them elements are numbered from 0.
        With `cached=True` its state is `{"position"}`, the number of elements so far.

    Raises:
        TypeError: `max_length` is not an integer, or `positions` are not.
        ValueError: `max_length` is less than 1, or `x` is longer, or has no axes of time and
            features; `positions` have another shape, or are given with `cached=True`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> layer = nn.learned_positions(512)
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 3, 8)))
        >>> params["embedding"].shape, layer.apply(params, state, jnp.ones((2, 5, 8)))[0].shape
        ((512, 8), (2, 5, 8))
    """
    check_count("learned_positions", "max_length", max_length)

    def init(key: jax.Array, x: Any) -> PyTree:
        check_key("learned_positions", key)
        return {"embedding": draw(embedding_init, key, (max_length, x.shape[-1]), param_dtype(x))}

    def encoding(params: PyTree, positions: jax.Array | None, x: jax.Array) -> jax.Array:
        table = jnp.asarray(params["embedding"])
        if positions is None:
            return lax.slice_in_dim(table, 0, x.shape[-2])
        return functional.embed(positions, table)

    return _added("learned_positions", init, encoding, cached, max_length)


# In place of coordinates


@constructor
def fourier_features(
    num_frequencies: int,
    *,
    frequencies_init: Initializer = initializers.normal(1.0),  # noqa: B008
) -> Layer:
    """Random Fourier features: `y = [cos(2 pi x @ B), sin(2 pi x @ B)]`, with a fixed random B.

    B is state: it is drawn once and not trained.

    Paper: Tancik et al., Fourier Features Let Networks Learn High Frequency Functions,
    https://arxiv.org/abs/2006.10739

    Args:
        num_frequencies: the number of columns of B.
        frequencies_init: initializer of B, shape `(in, num_frequencies)`. The standard deviation of
            `nn.initializers.normal(stddev)`, in periods for each unit of `x`, decides how fine the
            details are that a network learns; it is best tuned, as in the paper (1 to 100 for
            coordinates in [0, 1]).

    Returns:
        A `Layer` from `(..., in)` to `(..., 2 * num_frequencies)` without params and with state
        `{"frequencies"}`.

    Raises:
        TypeError: `num_frequencies` is not an integer.
        ValueError: `num_frequencies` is less than 1; `x` has no feature axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> encoding = nn.fourier_features(64, frequencies_init=nn.initializers.normal(10.0))
        >>> image = nn.serial(encoding, nn.mlp([128, 3]))  # from coordinates to colours
        >>> params, state = image.init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> image.apply(params, state, jnp.array([[0.1, 0.7]]))[0].shape
        (1, 3)
    """
    check_count("fourier_features", "num_frequencies", num_frequencies)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_key("fourier_features", key)
        shape = shape_of("fourier_features", x)
        if not shape:
            raise ValueError("fourier_features: x is a scalar, expected shape (..., in)")
        sizes = shape[-1], num_frequencies
        return {}, {"frequencies": draw(frequencies_init, key, sizes, param_dtype(x))}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        return functional.fourier_features(x, state["frequencies"]), state

    return Layer(init, apply)


def _added(
    name: str,
    init_params: Callable[[jax.Array, Any], PyTree],
    encoding: Callable[[PyTree, jax.Array | None, jax.Array], jax.Array],
    cached: bool,
    max_length: int | None = None,
) -> Layer:
    """A layer that adds `encoding(params, positions, x)`, shape `(..., time, features)`, to `x`."""

    def check(shape: tuple[int, ...]) -> None:
        if len(shape) < 2:
            raise ValueError(f"{name}: x has shape {shape}, expected shape (..., time, features)")
        if max_length is not None and shape[-2] > max_length:
            raise ValueError(
                f"{name}: x has {shape[-2]} elements in time, expected at most max_length, "
                f"{max_length}"
            )

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        x = abstract(x)
        check(x.shape)
        return init_params(key, x), {"position": jnp.zeros((), jnp.int32)} if cached else {}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        positions: ArrayLike | None = None,
    ) -> tuple[PyTree, PyTree]:
        x = floating(x)
        check(x.shape)
        at = None if positions is None else _positions_of(name, positions, x.shape[:-1])
        if max_length is not None:
            check_capacity(name, "max_length", max_length)
        if not cached:
            refuse_in_decoding(f"{name} without cached=True", x.shape[-2], "cached=True")
        elif at is not None:
            raise ValueError(f"{name}: positions are given, expected none with cached=True")
        elif "position" not in state:
            raise ValueError(
                f"{name}: state has {sorted(state)}, expected 'position' as made by init"
            )
        else:
            start = jnp.asarray(state["position"])
            at = start + jnp.arange(x.shape[-2], dtype=jnp.int32)
            state = {"position": start + x.shape[-2]}
        table = encoding(params, at, x).astype(x.dtype)
        axes = range(x.ndim - table.ndim, x.ndim)
        return x + spread(table, axes, x.shape), state

    return Layer(init, apply)


def _positions_of(layer: str, positions: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Positions of the elements of a batch, of its shape or one that broadcasts to it."""
    at = jnp.asarray(positions)
    if not jnp.issubdtype(at.dtype, jnp.integer):
        raise TypeError(f"{layer}: positions have dtype {at.dtype}, expected integers")
    if at.ndim != len(shape) or any(n not in (1, m) for n, m in zip(at.shape, shape, strict=True)):
        raise ValueError(
            f"{layer}: positions have shape {at.shape}, expected that of x without features, "
            f"{shape}, or 1 in place of an axis"
        )
    return at
