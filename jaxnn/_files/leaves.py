"""Leaves of a tree as tensors of a file: what is said of them, and how they come back."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree
from jaxnn._files.blocks import Region, region_of, whole
from jaxnn._files.safetensors import CODES, DTYPES, Tensor
from jaxnn._files.spread import Spread

_PYTHON = {bool: np.bool_, int: np.int64, float: np.float64, complex: np.complex128}
# The format has no name for these: each element is a row of bytes, and a note has the dtype.
_AS_BYTES = (
    "complex128",
    "float4_e2m1fn",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "int2",
    "int4",
    "uint2",
    "uint4",
)
_KNOWN = {dtype.name: dtype for dtype in (*CODES, *map(np.dtype, _AS_BYTES))}


class Form(NamedTuple):
    """Shape and dtype of a leaf; a dtype of PRNG keys is one of JAX's, others are NumPy's."""

    shape: tuple[int, ...]
    dtype: Any

    def __str__(self) -> str:
        return f"shape {self.shape} and dtype {self.dtype}"


def leaves_by_name(function: str, tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their paths."""
    names, leaves = leaf_paths(tree), jax.tree.leaves(tree)
    named = dict(zip(names, leaves, strict=True))
    if len(named) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{function}: two leaves have the path {twice!r}, expected each to have its own; "
            "does a key contain '/'?"
        )
    for name in names:
        check_text(f"{function}: the path {name!r}", name)
    return named


def check_text(what: str, text: str) -> None:
    """Raise unless UTF-8 can encode the text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid Unicode, expected text that UTF-8 encodes") from None


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed PRNG keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def form_of(function: str, name: str, leaf: Any) -> Form:
    """Shape and dtype of a leaf that can be saved."""
    what = f"{function}: leaf {name!r} is" if name else f"{function}: tree is"
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(f"{what} traced, expected a value: call {function} outside of jit")
    if type(leaf) is int and not -(2**63) <= leaf < 2**63:
        raise ValueError(f"{what} {leaf}, expected an integer of at most 64 bits")
    if type(leaf) in _PYTHON:
        return Form((), np.dtype(_PYTHON[type(leaf)]))
    arrays = (jax.Array, jax.ShapeDtypeStruct, np.generic, Spread)
    # A masked array and other subclasses of NumPy's would lose what they add to it.
    if not (isinstance(leaf, arrays) or type(leaf) in (np.ndarray, np.memmap)):
        raise TypeError(f"{what} a {type(leaf).__name__}, expected an array or a number")
    if is_key(leaf):
        return Form(leaf.shape, leaf.dtype)
    if leaf.dtype.name not in _KNOWN:
        raise TypeError(f"{what} of dtype {leaf.dtype}, expected one of {', '.join(_KNOWN)}")
    return Form(leaf.shape, _KNOWN[leaf.dtype.name])


def check_has_values(function: str, name: str, leaf: Any) -> None:
    """Raise for what has a shape and a dtype but no values that could be saved."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(f"{function}: leaf {name!r} is a ShapeDtypeStruct, expected an array")
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return
    if leaf.is_deleted():
        raise ValueError(
            f"{function}: leaf {name!r} was deleted or donated, expected an array that lives"
        )
    if not leaf.is_fully_addressable:
        raise ValueError(
            f"{function}: leaf {name!r} is spread over several processes, expected an array "
            "that this one has wholly; gather it first"
        )
    if is_key(leaf) and not isinstance(jax.random.key_impl(leaf), str):
        raise TypeError(f"{function}: leaf {name!r} has keys of an implementation that has no name")


def note_of(leaf: Any, dtype: Any) -> dict[str, str]:
    """What must be said of a leaf whose tensor does not say it: its dtype, or kind of keys."""
    if dtype in CODES:
        return {}
    if dtype.name in _AS_BYTES:
        return {"dtype": dtype.name}
    is_array = isinstance(leaf, jax.Array)
    return {"key": str(jax.random.key_impl(leaf) if is_array else leaf.impl)}


def stored(form: Form) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape of the tensor that holds a leaf."""
    if form.dtype in CODES:
        return form.dtype, form.shape
    if form.dtype.name in _AS_BYTES:
        return DTYPES["U8"], (*form.shape, form.dtype.itemsize)
    data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(form.shape, form.dtype))
    return np.dtype(data.dtype), data.shape


def on_host(leaf: Any, dtype: Any) -> np.ndarray:
    """The values of a leaf as a NumPy array, which is gone when the caller is done with it."""
    if isinstance(leaf, jax.Array):
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        # An array of JAX keeps the copy that NumPy has once got: here it is another that does.
        shards = [shard.data for shard in leaf.addressable_shards]
        return np.asarray(
            jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
        )
    return np.asarray(leaf, dtype)


Read: TypeAlias = Callable[[Sequence[Region]], list[np.ndarray]]  # the data of regions


def as_leaf(like: Any, form: Form, note: Mapping[str, str], read: Read) -> Any:
    """A leaf of the same kind as `like`, of data that are read by regions of it."""
    sharding = sharding_of(like)
    if "key" in note:
        return _as_keys(form, note["key"], sharding, read)

    def typed(regions: Sequence[Region]) -> list[np.ndarray]:
        pairs = zip(read(regions), regions, strict=True)
        return [
            data.reshape(-1).view(form.dtype).reshape([*map(len, region)]) for data, region in pairs
        ]

    if isinstance(like, (jax.Array, jax.ShapeDtypeStruct)):
        return by_regions(form.shape, sharding, typed)
    (array,) = typed([whole(form.shape)])
    if type(like) in _PYTHON:
        return array.item()
    return array[()] if isinstance(like, np.generic) else array


def _as_keys(form: Form, impl: str, sharding: Any, read: Read) -> Any:
    """Keys, of which JAX wants the data in one piece unless they lie in several processes."""
    if sharding is None or sharding.is_fully_addressable:
        keys = jax.random.wrap_key_data(jnp.asarray(read([whole(form.shape)])[0]), impl=impl)
        return keys if sharding is None else jax.device_put(keys, sharding)
    axes = len(form.shape)
    data = by_regions(
        stored(form)[1], sharding, lambda regions: read([region[:axes] for region in regions])
    )
    return jax.random.wrap_key_data(data, impl=impl)


def by_regions(
    shape: tuple[int, ...], sharding: jax.sharding.Sharding | None, read: Read
) -> jax.Array:
    """An array of JAX that nobody else has the memory of; each device gets its region alone."""
    made: jax.Array
    if sharding is None or (sharding.is_fully_addressable and sharding.is_fully_replicated):
        (data,) = read([whole(shape)])
        made = jax.device_put(data, sharding, may_alias=False)
        return made
    indices: Any = sharding.addressable_devices_indices_map(shape).values()
    regions = list({region_of(index, shape) for index in indices})
    known = dict(zip(regions, read(regions), strict=True))

    def one(index: Any) -> np.ndarray:
        return known[region_of(index, shape)]

    made = jax.make_array_from_callback(shape, sharding, one)
    return made


def sharding_of(like: Any) -> jax.sharding.Sharding | None:
    """Where a leaf is to be, if somebody said so."""
    if isinstance(like, jax.ShapeDtypeStruct):
        sharding: jax.sharding.Sharding | None = like.sharding
        return sharding
    return like.sharding if isinstance(like, jax.Array) and like.committed else None


def saved_form(name: str, tensor: Tensor, note: Mapping[str, str]) -> Form:
    """Shape and dtype of the leaf that a tensor of a file holds, by the note on it."""
    if "key" in note:
        return _form_of_keys(name, tensor, note["key"])
    if "dtype" not in note:
        return Form(tensor.shape, tensor.dtype)
    dtype = _KNOWN.get(note["dtype"])
    form = None if dtype is None else Form(tensor.shape[:-1], dtype)
    if form is None or stored(form) != (tensor.dtype, tensor.shape):
        raise ValueError(
            f"leaf {name!r} is said to have dtype {note['dtype']!r}, expected one of "
            f"{', '.join(_AS_BYTES)}, as bytes"
        )
    return form


def _form_of_keys(name: str, tensor: Tensor, impl: str) -> Form:
    try:
        dtype, data = _keys(impl)
    except (TypeError, ValueError) as error:
        raise ValueError(f"leaf {name!r} does not have keys of {impl!r}: {error}") from None
    axes = len(tensor.shape) - len(data.shape)
    if tensor.dtype != data.dtype or axes < 0 or tensor.shape[axes:] != data.shape:
        raise ValueError(
            f"leaf {name!r} of shape {tensor.shape} and dtype {tensor.dtype} does not have keys of "
            f"{impl!r}, expected the last axes to be {data.shape}, of {data.dtype}"
        )
    return Form(tensor.shape[:axes], dtype)


@functools.lru_cache(8)
def _keys(impl: str) -> tuple[Any, jax.ShapeDtypeStruct]:
    """The dtype of PRNG keys of a kind, and the form of the data of one."""
    key = jax.eval_shape(lambda: jax.random.key(0, impl=impl))
    return key.dtype, jax.eval_shape(jax.random.key_data, key)
