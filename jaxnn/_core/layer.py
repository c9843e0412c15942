"""The two protocols, `Layer` and `Cell`, and what is needed to write one."""

import functools
import inspect
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from jaxnn._core.arrays import PyTree, check_key, is_inexact, promoted
from jaxnn._core.paths import leaf_paths


class Layer(NamedTuple):
    """A layer: two pure functions.

    `init(key, x) -> (params, state)` makes the parameters (floating arrays, what `jax.grad`
    differentiates) and the state (arrays carried from one call to the next without a gradient;
    `{}` for most layers). `x` is an example input: an array, a `jax.ShapeDtypeStruct` or a pytree
    of them; only its shape and dtype matter.

    `apply(params, state, x, *, key=None, train=False) -> (y, state)` computes the output and the
    next state, which has the structure, shapes and dtypes of the one given. `key` is a typed PRNG
    key, needed where training is random; `train` is a Python bool.

    A custom layer is built by hand from two such functions.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def init(key, x):
        ...     return {"scale": jnp.ones(x.shape[-1])}, {}
        >>> def apply(params, state, x, *, key=None, train=False):
        ...     return x * params["scale"], state
        >>> scale = nn.Layer(init, apply)
        >>> params, state = scale.init(jax.random.key(0), jnp.zeros(3))
        >>> scale.apply(params, state, jnp.arange(3.0))
        (Array([0., 1., 2.], dtype=float32), {})
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[PyTree, PyTree]]

    def __repr__(self) -> str:
        """The call that made the layer."""
        return _repr(self, self.apply)


class Cell(NamedTuple):
    """One step of a recurrent or autoregressive model: three pure functions.

    `init(key, x_t) -> params`, `initial_carry(params, batch_shape, dtype) -> carry` and
    `step(params, carry, x_t, *, key=None, train=False) -> (carry, y_t)`, in the order of
    `jax.lax.scan`. What a cell carries from step to step is an argument and a result, not state.
    The `x_t` given to `init` is an example of one step of one sequence, without batch axes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def step(params, carry, x_t, *, key=None, train=False):
        ...     return carry + x_t, carry + x_t
        >>> running_sum = nn.Cell(
        ...     init=lambda key, x_t: {},
        ...     initial_carry=lambda params, batch_shape, dtype: jnp.zeros(batch_shape, dtype),
        ...     step=step)
        >>> carry = running_sum.initial_carry({}, (), jnp.float32)
        >>> jax.lax.scan(lambda c, x: running_sum.step({}, c, x), carry, jnp.arange(4.0))[1]
        Array([0., 1., 3., 6.], dtype=float32)
    """

    init: Callable[..., PyTree]
    initial_carry: Callable[..., PyTree]
    step: Callable[..., tuple[PyTree, PyTree]]

    def __repr__(self) -> str:
        """The call that made the cell."""
        return _repr(self, self.step)


def _repr(layer: Layer | Cell, named: Callable[..., Any]) -> str:
    if _is_named(named):
        return named.__qualname__
    functions = ", ".join(_value_text(function) for function in layer)
    return f"{type(layer).__name__}({functions})"


def _is_named(function: Callable[..., Any]) -> bool:
    """Whether a constructor has named the function after its call."""
    return getattr(function, "__qualname__", "").endswith(")")


P = ParamSpec("P")
L = TypeVar("L", bound=tuple[Any, ...])  # a Layer, a Cell or another named tuple of functions


def constructor(make: Callable[P, L]) -> Callable[P, L]:
    """Name the functions that `make` returns after the call that made them.

    `repr(layer)` then reads as that call, and so do Python's own errors: an unknown keyword gives
    `TypeError: dense(10)() got an unexpected keyword argument 'mask'`. A function that belongs to
    one of the arguments, a layer that is wrapped, keeps its name.
    """
    signature = inspect.signature(make)

    @functools.wraps(make)
    def named(*args: P.args, **kwargs: P.kwargs) -> L:
        layer = make(*args, **kwargs)
        call = _call_text(make.__name__, signature, args, kwargs)
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, (Layer, Cell))]
        kept = {id(function) for value in given for function in value}
        for function in layer:
            if id(function) not in kept:
                function.__qualname__ = call
        return layer

    named.is_constructor = True  # type: ignore[attr-defined]
    return named


def _call_text(
    name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    parameters = signature.parameters
    shown = [_value_text(value) for value in args]
    for key, value in kwargs.items():
        if key not in parameters or parameters[key].default is not value:
            shown.append(f"{key}={_value_text(value)}")
    return f"{name}({', '.join(shown)})"


def _value_text(value: Any) -> str:
    if isinstance(value, (Layer, Cell)):
        return repr(value)
    return getattr(value, "__name__", None) or repr(value)


# Paths, scopes and errors


def child_key(key: jax.Array, name: str) -> jax.Array:
    """The key of the child `name`: it depends on that name and on no other child."""
    check_key(f"layer '{name}'", key)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


@contextmanager
def child_scope(name: str) -> Iterator[None]:
    """Run a child: profiles show its name, and an error raised inside carries its path."""
    try:
        with jax.named_scope(name):
            yield
    except Exception as error:
        prefix = "in layer '"
        notes = getattr(error, "__notes__", [])
        ours = next((i for i, note in enumerate(notes) if note.startswith(prefix)), None)
        if ours is None:
            error.add_note(f"{prefix}{name}'")
        else:
            notes[ours] = f"{prefix}{name}/{notes[ours].removeprefix(prefix)}"
        raise


def abstract(x: PyTree) -> PyTree:
    """The shapes and dtypes of a pytree of arrays, as `jax.ShapeDtypeStruct`s."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        if not hasattr(leaf, "dtype"):
            leaf = jnp.asarray(leaf)
        extended = jnp.issubdtype(leaf.dtype, jax.dtypes.extended)  # typed keys
        dtype = leaf.dtype if extended else jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, dtype)

    return jax.tree.map(one, x)


def param_dtype(x: Any) -> jnp.dtype:
    """The dtype of the parameters for an input `x`: its floating dtype, float32 or wider."""
    dtype = abstract(x).dtype
    return promoted(dtype, jnp.float32) if is_inexact(dtype) else jnp.result_type(float)


def missing_key(layer: str) -> ValueError:
    """The error of a layer that trains without the key that it needs."""
    return ValueError(f"{layer}: training is random and needs a key; pass key=jax.random.key(seed)")


# Lifting


@constructor
def elementwise(function: Callable[[Any], Any]) -> Layer:
    """A layer without parameters that applies a function of arrays: `y = function(x)`.

    Combinators lift plain functions by themselves, so `nn.serial(nn.dense(8), nn.relu)` needs no
    `elementwise`.

    Args:
        function: a function of one array (or of one pytree of arrays), of any shape.

    Returns:
        A `Layer` whose parameters and state are `{}`.

    Raises:
        TypeError: `function` is not callable, or is a layer already.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> square = nn.elementwise(jnp.square)
        >>> square.apply({}, {}, jnp.arange(3.0))
        (Array([0., 1., 4.], dtype=float32), {})
    """
    if isinstance(function, (Layer, Cell)) or not callable(function):
        raise TypeError(f"elementwise: function is {function!r}, expected a function of arrays")
    refuse_constructor(function, "elementwise: function")
    return lift(function)


def lift(function: Callable[[Any], Any]) -> Layer:
    """`elementwise` for a constructor of another name."""

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        return {}, {}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        return function(x), state

    return Layer(init, apply)


def as_layer(value: Any, where: str) -> Layer:
    """`value` if it is a layer, a plain function lifted to one; `where` names it in errors."""
    if isinstance(value, Layer):
        return value
    refuse_constructor(value, where)
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{where} is {value!r}, expected a Layer or a function of arrays")
    return elementwise(value)


def refuse_constructor(value: Any, where: str) -> None:
    """Raise if `value` is a constructor such as `nn.dense`, given without being called."""
    if getattr(value, "is_constructor", False):
        name = value.__name__
        raise TypeError(
            f"{where} is the constructor {name}, expected a layer: call it, {name}(...)"
        )


def stateless(layer: Layer) -> Callable[..., PyTree]:
    """`apply` without state: `apply(params, x, *, key=None, train=False) -> y`.

    Args:
        layer: a layer (or a plain function of arrays) whose state is `{}`.

    Returns:
        A function of the parameters, the input and the layer's keywords that returns the output
        alone.

    Raises:
        ValueError: when it is called and `layer` has state; the message names the leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> model = nn.serial(nn.dense(4), nn.relu, nn.dense(2))
        >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> predict = nn.stateless(model)
        >>> predict(params, jnp.ones((5, 3))).shape
        (5, 2)
    """
    layer = as_layer(layer, "stateless: layer")

    def refuse(x: PyTree, cause: Exception | None = None) -> None:
        _, state = jax.eval_shape(layer.init, jax.random.key(0), abstract(x))
        if jax.tree.leaves(state):
            names = ", ".join(repr(path) for path in leaf_paths(state))
            raise ValueError(
                f"stateless: {layer!r} has state ({names}), expected a layer without; use its apply"
            ) from cause

    def apply(params: PyTree, x: PyTree, **keywords: Any) -> PyTree:
        try:
            y, state = layer.apply(params, {}, x, **keywords)
        except Exception as error:
            refuse(x, error)
            raise
        if jax.tree.leaves(state):
            refuse(x)
        return y

    apply.__qualname__ = f"stateless({layer!r})"
    signature = inspect.signature(layer.apply)
    declared = [p for name, p in signature.parameters.items() if name != "state"]
    apply.__signature__ = signature.replace(parameters=declared)  # type: ignore[attr-defined]
    return apply
