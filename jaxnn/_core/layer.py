"""The two protocols, `Layer` and `Cell`, and what is needed to write one."""

import functools
import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn._core.arguments import KINDS, check_flag, checked, flags_of, is_array_leaf, value_text
from jaxnn._core.arrays import check_key, is_inexact, promoted
from jaxnn._core.construction import call_repr, constructor, refuse_constructor
from jaxnn._core.functions import (
    ApplyLike,
    CellFunctions,
    CellInitLike,
    InitialCarryLike,
    InitLike,
    LayerFunctions,
    StatelessApply,
    StepLike,
)
from jaxnn._core.keywords import accepted, declare_keywords, split_static
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree


class Layer(LayerFunctions):
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

    __slots__ = ()

    if TYPE_CHECKING:  # any functions that fit, see functions.py

        def __new__(cls, init: InitLike, apply: ApplyLike) -> Self: ...
        def __init__(self, init: InitLike, apply: ApplyLike) -> None: ...
        def _replace(self, *, init: InitLike = ..., apply: ApplyLike = ...) -> Self: ...

    def __repr__(self) -> str:
        """The call that made the layer."""
        return call_repr(self)

    def _constructed(self, given: set[int]) -> Self:
        """The layer of a constructor, whose `apply` says which parameter or state is missing.

        `given` are the ids of functions that belong to its arguments.
        """
        if id(self.apply) in given or hasattr(self.apply, "explains"):
            return self
        return self._replace(apply=_explained(self.init, self.apply))


class Cell(CellFunctions):
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

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(
            cls, init: CellInitLike, initial_carry: InitialCarryLike, step: StepLike
        ) -> Self: ...
        def __init__(
            self, init: CellInitLike, initial_carry: InitialCarryLike, step: StepLike
        ) -> None: ...
        def _replace(
            self,
            *,
            init: CellInitLike = ...,
            initial_carry: InitialCarryLike = ...,
            step: StepLike = ...,
        ) -> Self: ...

    def __repr__(self) -> str:
        """The call that made the cell."""
        return call_repr(self)


def _explained(init: Callable[..., Any], apply: Callable[..., Any]) -> Callable[..., Any]:
    """`apply`, which takes booleans for flags, and says which parameter or state is missing."""
    flags = flags_of(_parameters(apply))

    @functools.wraps(apply)
    def explained(*args: Any, **keywords: Any) -> Any:
        for flag in flags:
            if flag in keywords:
                check_flag(explained.__qualname__, flag, keywords[flag])
        try:
            return apply(*args, **keywords)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            given = dict(zip(("params", "state", "x"), args, strict=False)) | keywords
            difference = _missing(init, given)
            if difference is None:
                raise
            raise ValueError(f"{explained.__qualname__}: {difference}") from error

    explained.explains = apply  # type: ignore[attr-defined]
    return explained


def _missing(init: Callable[..., Any], given: dict[str, Any]) -> str | None:
    """What the params or the state given to `apply` lack of those that `init` makes."""
    try:
        further = {k: v for k, v in given.items() if k not in ("params", "state", "x", "key")}
        arrays, static = split_static(accepted(init, further))
        made = jax.eval_shape(
            lambda x, arrays: init(jax.random.key(0), x, **arrays, **static),
            *abstract((given["x"], arrays)),
        )
    except Exception:  # then the error is not about them
        return None
    for name, expected in zip(("params", "state"), made, strict=True):
        got = leaf_paths(given.get(name))
        lacking = [path for path in leaf_paths(expected) if path not in got]
        if lacking:
            return (
                f"{name} lacks {', '.join(map(repr, lacking[:3]))} and has "
                f"{', '.join(map(repr, got[:3])) or 'nothing'}, expected {name} as made by init"
            )
    return None


_Part: TypeAlias = jax.Array | float | Mapping[Any, Any] | list[Any] | tuple[Any, ...] | None
PlainFunction: TypeAlias = Callable[
    [Any], jax.Array | Mapping[Any, Any] | list[Any] | tuple[_Part, ...]
]
"""A function of an array or of a pytree of arrays.

It returns arrays, and no layer: checkers tell `nn.dense` from `nn.dense(4)`.
"""

KINDS[PlainFunction] = None  # as_layer checks it

LayerLike: TypeAlias = Layer | PlainFunction
"""A `Layer`, or a plain function of an array (or of a pytree of arrays), lifted to one."""


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


def shape_of(layer: str, x: PyTree) -> tuple[int, ...]:
    """The shape of an input that is to be one array."""
    if not (jax.tree_util.all_leaves([x]) and is_array_leaf(x)):
        raise TypeError(f"{layer}: x is {value_text(x)}, expected an array")
    return abstract(x).shape  # type: ignore[no-any-return]


def param_dtype(x: Any) -> jnp.dtype:
    """The dtype of the parameters for an input `x`: its floating dtype, float32 or wider."""
    dtype = abstract(x).dtype
    return promoted(dtype, jnp.float32) if is_inexact(dtype) else jnp.result_type(float)


def missing_key(layer: str) -> ValueError:
    """The error of a layer that trains without the key that it needs."""
    return ValueError(f"{layer}: training is random and needs a key; pass key=jax.random.key(seed)")


# Plain functions


@constructor
def pure(init: Callable[..., PyTree], call: Callable[..., PyTree]) -> Layer:
    """A layer without state, made of two plain functions: `y = call(params, x)`.

    The inverse of `stateless`. `call` declares `key`, `train` or further keywords (as `mask=None`)
    where it uses them, and gets only those; the layer's `apply` takes the protocol's keywords and
    the further ones, and refuses all others.

    Args:
        init: `init(key, x) -> params`; `x` is an example input, of which shape and dtype count.
            Keywords that it declares besides are the layer's too.
        call: `call(params, x, ...) -> y`.

    Returns:
        A `Layer` whose state is `{}`.

    Raises:
        TypeError: `init` or `call` is not a function, or does not take two arguments.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> def scale(init=jnp.ones):
        ...     return nn.pure(
        ...         lambda key, x: {"scale": init(x.shape[-1])},
        ...         lambda params, x: x * params["scale"])
        >>> layer = scale()
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros(3))
        >>> layer.apply(params, state, jnp.arange(3.0))
        (Array([0., 1., 2.], dtype=float32), {})
    """
    of_init = _further_keywords(init, "pure: init", "(key, x) -> params")
    of_call = _further_keywords(call, "pure: call", "(params, x) -> y")
    used = [p.name for p in of_call if p.name in ("key", "train")]

    def layer_init(key: jax.Array, x: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        return init(key, x, **extra), {}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        given = {"key": key, "train": train}
        return call(params, x, **{name: given[name] for name in used}, **extra), state

    further = [p for p in of_call if p.name not in used]
    return Layer(declare_keywords(of_init, layer_init), declare_keywords(further, apply))


def _further_keywords(
    function: Callable[..., Any], where: str, expected: str
) -> list[inspect.Parameter]:
    """What a function declares after its first two arguments, as keywords."""
    refuse_constructor(function, where)
    parameters = [] if isinstance(function, tuple) else _parameters(function)
    positional = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    if len(positional) < 2:
        raise TypeError(f"{where} is {value_text(function)}, expected a function {expected}")
    further = [p for p in parameters if p not in positional[:2] and p.kind != p.VAR_KEYWORD]
    return [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in further]


def _parameters(function: Any) -> list[inspect.Parameter]:
    return [*inspect.signature(function).parameters.values()] if callable(function) else []


@constructor
def elementwise(function: PlainFunction) -> Layer:
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
    _check_unary(function, "elementwise: function")
    return pure(lambda key, x: {}, lambda params, x: function(x))


def as_layer(value: Any, where: str) -> Layer:
    """`value` if it is a layer, a plain function lifted to one; `where` names it in errors."""
    if isinstance(value, Layer):
        return value
    refuse_constructor(value, where)
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{where} is {value!r}, expected a Layer or a function of arrays")
    _check_unary(value, where)
    return elementwise(value)


def _check_unary(function: Any, where: str) -> None:
    """Raise for a function that needs more than `x`, as the two functions of a layer do."""
    whole = getattr(function, "made_with", ())
    if len(whole) > 1 and any(field is function for field in whole):
        made = function.__qualname__
        raise TypeError(f"{where} is a function of {made}, expected {made} itself, without '*'")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # not every function of C tells
        return
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 1:
        raise TypeError(
            f"{where} is {value_text(function)}, which takes ({', '.join(needed)}), expected a "
            "Layer or a function of one array"
        )


@checked
def stateless(layer: LayerLike) -> StatelessApply:
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
