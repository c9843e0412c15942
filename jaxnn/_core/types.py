"""What signatures speak of: the types of arguments that more than one module takes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import jax
import numpy as np
from jax.typing import ArrayLike

PyTree: TypeAlias = Any
"""Arrays, or tuples, lists, dicts and named tuples of them at any depth, as `jax.tree` takes them.

Python's types cannot tell one pytree from another, so that checkers allow anything.
"""

Arrays: TypeAlias = Annotated[Any, "a pytree of arrays"]
"""A `PyTree` of arrays or numbers: parameters, a state, an input."""

Scalar: TypeAlias = float | np.number[Any] | jax.Array
"""One number: of Python or NumPy, or an array without axes, possibly traced."""

Limit: TypeAlias = Annotated[Scalar, "possibly infinite"]
"""One number that is a limit; an infinite one limits nothing."""

Steps: TypeAlias = int | float | np.number[Any] | jax.Array
"""A number of steps, or a count of them: one number, possibly traced, of any size."""

Shape: TypeAlias = Sequence[int]
"""The sizes of the axes of an array."""

Size: TypeAlias = Annotated[int, "possibly symbolic"]
"""The size of an axis, which in `jax.export` may be symbolic."""

Axes: TypeAlias = int | Sequence[int]
"""One axis of an array, or several; negative numbers count from the last."""

PerAxis: TypeAlias = int | Sequence[int]
"""One number for all spatial axes, or one for each: strides, a dilation."""

_EACH_AXIS = "an integer for each spatial axis: (3,) for one axis, (3, 3) for images"

SpatialShape: TypeAlias = Annotated[Sequence[int], _EACH_AXIS]
"""One number for each spatial axis: `(3,)` for series, `(3, 3)` for images."""

PartialSpatialShape: TypeAlias = Annotated[Sequence[int | None], _EACH_AXIS]
"""One number for each spatial axis, or None for as many elements as it has."""

_PaddingName: TypeAlias = Literal["SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT", "REPLICATE"]
Padding: TypeAlias = _PaddingName | int | Sequence[int | tuple[int, int]]
"""The padding of the spatial axes: by name, or in numbers.

One number for all axes, or for each axis a number or a pair `(low, high)`.
"""

Activation: TypeAlias = Callable[[jax.Array], jax.Array]
"""A function of one array that keeps its shape, as `nn.relu`."""

Selection: TypeAlias = (
    str | bool | Sequence[Any] | Mapping[str, Any] | Callable[[str, Any], bool | jax.Array]
)
"""Which leaves of the parameters are meant.

A glob on the path of a leaf (`"encoder/*/kernel"`) or several of them, a function
`(path, leaf) -> bool`, a tree of booleans with the structure of the parameters, or one boolean
for all.
"""

Mask: TypeAlias = Selection | Callable[[PyTree], PyTree]
"""Which leaves an optimizer treats: a `Selection`, or what optax takes.

That is a function of the parameters that returns a tree of booleans, or such a tree, in which one
boolean may stand for a subtree.
"""

Schedule: TypeAlias = Callable[[Any], Scalar]
"""A number that depends on the count of steps: `schedule(count) -> number`."""

ScalarOrSchedule: TypeAlias = Scalar | Callable[[Any], ArrayLike]
"""A hyperparameter of an optimizer: a number, possibly traced, or a function of the count of steps.

Schedules are those of `nn.schedules`, of optax, or any function `count -> number`.
"""

Loss: TypeAlias = Annotated[
    Callable[[Any, Any], Any],
    "a function of (predictions, y), such as nn.losses.squared_error",
]
"""`loss(predictions, targets) -> values`, unreduced: at least one value for each example.

All of `nn.losses` and of optax's; options are fixed by `functools.partial`.
"""

LossFunction: TypeAlias = Callable[
    [PyTree, PyTree, Any, Any], tuple[Any, tuple[PyTree, Mapping[str, Any]]]
]
"""A whole loss function: `loss_fn(params, state, batch, key) -> (loss, (state, metrics))`.

The loss is a scalar, `metrics` a dict of what is to be reported. `key` is a typed PRNG key.
"""

Regularizer: TypeAlias = Annotated[
    Callable[[PyTree], Any], "a function of the params, such as nn.regularizers.l2(1e-4)"
]
"""A penalty: `regularizer(params) -> scalar`, which training adds to the loss."""

Data: TypeAlias = PyTree | Iterable[PyTree] | Callable[[int], Iterable[PyTree]]
"""A data set: `(x, y)` or `(x, y, weights)`, with the examples along axis 0.

Or batches of these: an iterable, or a function of the number of the epoch that returns one. Where
there is no model, as with a whole loss function, any pytree of arrays.
"""


class OptimizerLike(Protocol):
    """What has the functions of an optimizer: a `jaxnn.optimizers.Optimizer`, or one of optax.

    `init(params) -> opt_state` and
    `update(grads, opt_state, params=None) -> (updates, opt_state)`, which may take further
    keywords.
    """

    @property
    def init(self) -> Callable[[Any], Any]:
        """Make the state."""

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]:
        """Make updates of gradients."""


class TrainingRun(Protocol):
    """What `nn.training_run` returns: `train(key, data, ...) -> (params, state, history)`."""

    def __call__(
        self,
        key: jax.Array,
        data: PyTree,
        hyperparams: PyTree = None,
        validation: PyTree = None,
        *,
        params: PyTree = None,
        state: PyTree = None,
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        """Train, from new parameters or from those given."""
