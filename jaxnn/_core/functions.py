"""The fields of `Layer` and `Cell`: functions whose arguments have names and types.

A field may be called with further keywords, which are for the function itself to refuse. The
constructors take any function that fits, whatever keywords it declares: a type checker is told so
by `__new__`, of which there is nothing at run time.
"""

from typing import Any, NamedTuple, Protocol

import jax
from jax.typing import DTypeLike

from jaxnn._core.types import PyTree


class LayerInit(Protocol):
    """`init(key, x) -> (params, state)`."""

    def __call__(self, key: jax.Array, x: PyTree, **keywords: Any) -> tuple[PyTree, PyTree]:
        """Make the parameters and the state."""


class LayerApply(Protocol):
    """`apply(params, state, x, *, key=None, train=False) -> (y, state)`."""

    def __call__(
        self,
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **keywords: Any,
    ) -> tuple[PyTree, PyTree]:
        """Compute the output and the next state."""


class InitLike(Protocol):
    """A function that may be the `init` of a `Layer`."""

    def __call__(self, key: Any, x: Any, /) -> tuple[PyTree, PyTree]:
        """Make the parameters and the state."""


class ApplyLike(Protocol):
    """A function that may be the `apply` of a `Layer`."""

    def __call__(
        self, params: Any, state: Any, x: Any, /, *, key: Any = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Compute the output and the next state."""


class LayerFunctions(NamedTuple):
    """The fields of a `Layer`."""

    init: LayerInit
    apply: LayerApply


class StatelessApply(Protocol):
    """`apply(params, x, *, key=None, train=False) -> y`."""

    def __call__(
        self,
        params: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **keywords: Any,
    ) -> PyTree:
        """Compute the output."""


class CellInit(Protocol):
    """`init(key, x_t) -> params`."""

    def __call__(self, key: jax.Array, x_t: PyTree, **keywords: Any) -> PyTree:
        """Make the parameters."""


class InitialCarry(Protocol):
    """`initial_carry(params, batch_shape, dtype) -> carry`."""

    def __call__(
        self, params: PyTree, batch_shape: tuple[int, ...], dtype: DTypeLike, **keywords: Any
    ) -> PyTree:
        """Make the carry before the first step."""


class CellStep(Protocol):
    """`step(params, carry, x_t, *, key=None, train=False) -> (carry, y_t)`."""

    def __call__(
        self,
        params: PyTree,
        carry: PyTree,
        x_t: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        **keywords: Any,
    ) -> tuple[PyTree, PyTree]:
        """Compute the next carry and the output of one step."""


class CellInitLike(Protocol):
    """A function that may be the `init` of a `Cell`."""

    def __call__(self, key: Any, x_t: Any, /) -> PyTree:
        """Make the parameters."""


class InitialCarryLike(Protocol):
    """A function that may be the `initial_carry` of a `Cell`."""

    def __call__(self, params: Any, batch_shape: Any, dtype: Any, /) -> PyTree:
        """Make the carry before the first step."""


class StepLike(Protocol):
    """A function that may be the `step` of a `Cell`."""

    def __call__(
        self, params: Any, carry: Any, x_t: Any, /, *, key: Any = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Compute the next carry and the output of one step."""


class CellFunctions(NamedTuple):
    """The fields of a `Cell`."""

    init: CellInit
    initial_carry: InitialCarry
    step: CellStep
