"""What every module needs to know about arrays: dtypes, axes, shapes and keys."""

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

LEAST_POSITIVE = float(np.finfo(np.float32).tiny)


def promoted(a: DTypeLike, b: DTypeLike) -> jnp.dtype:
    """The dtype that holds both, also where JAX is told to refuse to promote."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(a, b)


def is_inexact(dtype: DTypeLike) -> bool:
    """Whether `dtype` is a floating or complex dtype."""
    return jnp.issubdtype(dtype, jnp.inexact)


def accumulator_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype for sums and statistics over `dtype`: float32 or wider."""
    if not is_inexact(dtype):
        return jnp.result_type(float)
    return promoted(dtype, jnp.float32)


def compute_dtype(x: jax.Array, param: jax.Array) -> jnp.dtype:
    """The dtype a layer computes in: that of `x`, unless `x` is integer or `param` complex."""
    if not is_inexact(x.dtype):
        return param.dtype
    if jnp.iscomplexobj(param):
        return promoted(x.dtype, param.dtype)
    return x.dtype


def floating(x: ArrayLike) -> jax.Array:
    """`x` as a floating array: integers and booleans become the default float."""
    x = jnp.asarray(x)
    return x if is_inexact(x.dtype) else x.astype(jnp.result_type(float))


def widen(x: ArrayLike) -> jax.Array:
    """`x` as an array in its accumulator dtype."""
    x = jnp.asarray(x)
    return x.astype(accumulator_dtype(x.dtype))


def wide_integers(x: ArrayLike) -> jax.Array:
    """Labels or ids in a dtype that holds any number of classes: int32 for those of 8 and 16 bits.

    Compared with a number, or counted up, in their own dtype, they would wrap around.
    """
    x = jnp.asarray(x)
    is_narrow = jnp.issubdtype(x.dtype, jnp.integer) and jnp.iinfo(x.dtype).bits < 32
    return x.astype(jnp.int32) if is_narrow else x


def integers_may_not_fit(dtype: np.dtype, narrow: np.dtype) -> bool:
    """Whether `dtype` has integers that `narrow` cannot hold."""
    return dtype.kind in "iu" and dtype.newbyteorder("=") != narrow


def check_integers_fit(where: str, array: np.ndarray, dtype: np.dtype) -> None:
    """Raise unless `dtype` holds all integers: cast, they would be other labels or ids."""
    if not integers_may_not_fit(array.dtype, dtype) or array.size == 0:
        return
    limits = np.iinfo(dtype)
    if array.min() >= limits.min and array.max() <= limits.max:
        return
    wrong = np.argwhere((array < limits.min) | (array > limits.max))[0]
    place = tuple(int(i) for i in wrong)
    raise ValueError(
        f"{where} has the integer {array[place]} at {place}, expected integers that {dtype} can "
        f"hold, from {limits.min} to {limits.max}; wider ones need "
        "jax.config.update('jax_enable_x64', True)"
    )


def hyperparameter(value: Any, dtype: Any) -> jax.Array:
    """A hyperparameter in `dtype`, whatever its own dtype."""
    return jnp.asarray(value).astype(dtype)


def canonical_axes(
    axis: int | Sequence[int], ndim: int, function: str, array: str = "x"
) -> tuple[int, ...]:
    """`axis`, of the argument `array`, as a sorted tuple of different non-negative axes."""
    given = axis if isinstance(axis, Sequence) else (axis,)
    axes = tuple(operator.index(a) for a in given)
    out_of_range = [a for a in axes if not -ndim <= a < ndim]
    if out_of_range:
        raise ValueError(f"{function}: axis {axis} is out of range for {array} with {ndim} axes")
    canonical = tuple(sorted(a % ndim for a in axes))
    if len(set(canonical)) != len(canonical):
        raise ValueError(f"{function}: axis {axis} names the same axis of {array} twice")
    return canonical


def along(param: ArrayLike, axes: Sequence[int], ndim: int) -> jax.Array:
    """`param`, which has the shape of `axes` alone, reshaped to broadcast against `ndim` axes."""
    param = jnp.asarray(param)
    sizes = dict(zip(axes, param.shape, strict=True))
    return param.reshape([sizes.get(a, 1) for a in range(ndim)])


def spread(param: jax.Array, axes: Sequence[int], shape: tuple[int, ...]) -> jax.Array:
    """`param`, which has the shape of `axes` alone, to be broadcast to `shape`.

    Its gradient is a sum over all other axes, in float32 or wider: in bfloat16, 1 added to 256 is
    256.
    """
    wide = accumulator_dtype(param.dtype)
    if wide == param.dtype:
        return along(param, axes, len(shape))
    return jnp.broadcast_to(along(param.astype(wide), axes, len(shape)), shape).astype(param.dtype)


def total(parts: Iterable[jax.Array]) -> jax.Array:
    """The sum of scalars in the widest of their dtypes, float32 at least; 0 for none."""
    parts = list(parts)
    dtype = functools.reduce(promoted, (part.dtype for part in parts), jnp.dtype(jnp.float32))
    return sum((part.astype(dtype) for part in parts), jnp.zeros((), dtype))


def absolute_square(x: jax.Array) -> jax.Array:
    """`|x|²`, real where `x` is complex."""
    if jnp.iscomplexobj(x):
        return jnp.square(jnp.real(x)) + jnp.square(jnp.imag(x))
    return jnp.square(x)


def real_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of the absolute value of an inexact `dtype`."""
    return jnp.dtype(jnp.finfo(dtype).dtype)


def refuse_complex(function: str, name: str, x: Any) -> None:
    """Raise if `x`, the argument `name` of `function`, is complex."""
    if jnp.iscomplexobj(x):
        raise TypeError(f"{function}: {name} has dtype {x.dtype}, expected a real dtype")


def absolute(x: jax.Array) -> jax.Array:
    """`|x|`, with derivative 0 at 0 (that of `jnp.abs` is 1)."""
    return x * jnp.sign(x) if not jnp.iscomplexobj(x) else jnp.abs(x)


def downhill(gradient: jax.Array) -> jax.Array:
    """The conjugate of what `jax.grad` gives for complex numbers: minus it, the loss falls."""
    return jnp.conj(gradient) if jnp.iscomplexobj(gradient) else gradient


def check_shape(
    function: str, name: str, array: ArrayLike, expected: tuple[int, ...], of: str = ""
) -> None:
    """Raise unless `array`, the argument `name` of `function`, has the `expected` shape.

    `of` says what that is the shape of, where it is another argument's.
    """
    if np.shape(array) != expected:
        raise ValueError(
            f"{function}: {name} has shape {np.shape(array)}, expected shape {expected}"
            f"{of and f', that of {of}'}"
        )


def concrete(value: Any) -> np.ndarray | None:
    """A hyperparameter whose value is known while tracing, so that it can be checked."""
    unknown = isinstance(value, jax.core.Tracer) or callable(value)
    return None if unknown else np.asarray(value)


def check_range(
    function: str, name: str, value: Any, low: float, high: float | None = None
) -> None:
    """Raise unless `low <= value <= high`; traced values and schedules pass.

    Without `high`, any finite number from `low` on is allowed.
    """
    known = concrete(value)
    if known is not None and known.dtype.kind not in "iuf" and known.dtype != jnp.bfloat16:
        raise TypeError(f"{function}: {name} is {value!r}, expected a number")
    if known is None:
        return
    if not np.all((known >= low) & (np.isfinite(known) if high is None else known <= high)):
        raise ValueError(f"{function}: {name} is {value}, expected {_range_text(low, high)}")


def _range_text(low: float, high: float | None) -> str:
    if high is not None and high < np.inf:
        return f"a number in [{low:g}, {high:g}]"
    kind = "a finite number" if high is None else "a number"
    return kind if low == -np.inf else f"{kind} >= {low:g}"


def check_finite(function: str, **values: Any) -> None:
    """Raise unless each is a finite number; traced values pass."""
    for name, value in values.items():
        check_range(function, name, value, -np.inf)


def is_symbolic(*sizes: Any) -> bool:
    """Whether one of the sizes is symbolic, as `jax.export` has them."""
    return any(map(jax.export.is_symbolic_dim, sizes))


def check_size(function: str, name: str, value: Any) -> Any:
    """`check_count`, for what may be the size of an axis and so symbolic, which is at least 1."""
    return value if is_symbolic(value) else check_count(function, name, value)


def check_soft_cap(function: str, soft_cap: Any) -> None:
    """Raise unless the bound of the logits, `soft_cap`, is None or a positive number."""
    if soft_cap is not None:
        check_range(function, "soft_cap", soft_cap, LEAST_POSITIVE)


def check_count(function: str, name: str, value: Any) -> int:
    """`value` as a Python integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{function}: {name} is {value!r}, expected an integer")
    if value < 1:
        raise ValueError(f"{function}: {name} is {value}, expected at least 1")
    return int(value)


def check_axis_name(
    function: str, axis_name: str | Sequence[str], argument: str = "axis_name"
) -> None:
    """Raise unless there are mapped axes of that name around the call."""
    try:
        lax.psum(1, axis_name)
    except NameError as error:
        raise ValueError(
            f"{function}: {argument} is {axis_name!r}, expected an axis that jax.vmap or "
            "jax.shard_map around the call has"
        ) from error


def check_key(function: str, key: Any, name: str = "key") -> None:
    """Raise unless `key`, the argument `name`, is one typed PRNG key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        got = type(key).__name__ if dtype is None else f"an array of dtype {dtype}"
        raise TypeError(
            f"{function}: {name} is {got}, expected a typed PRNG key as made by "
            "jax.random.key(seed)"
        )
    if key.shape != ():
        raise ValueError(
            f"{function}: {name} is an array of keys of shape {key.shape}, expected one key"
        )
