"""What a row of the table of optimizers is, and what makes rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.numpy_reference import (
    optimizers,
    optimizers_adaptive,
    optimizers_by_leaf,
    optimizers_by_sign,
)
from tests.numpy_reference.optimizer_protocol import Reference

REFERENCES = (optimizers, optimizers_adaptive, optimizers_by_leaf, optimizers_by_sign)
DECAY = 0.3

# About a minimum, steps that do not become small jump at random, so that rounding grows: with
# these rates, 200 steps do not get there.
RATE_OF = {
    "adadelta": 1.0,
    "adafactor": 0.002,
    "adamax": 0.005,
    "lamb": 0.005,
    "lars": 0.005,
    "lion": 0.005,
    "muon": 0.005,
    "nadam": 0.01,
    "novograd": 0.0005,
    "prodigy": 0.2,
    "rmsprop": 0.0002,
    "sign_sgd": 0.005,
    "soap": 0.005,
    "sophia": 0.002,
}


def rate_of(constructor: str) -> float:
    """The learning rate of the rows of an optimizer."""
    return RATE_OF.get(constructor, 0.02)


class Case(NamedTuple):
    """One optimizer: `rate` is a number or a schedule, `path` that of a leaf of the weights."""

    name: str
    make: Callable[[Any, Any], Any]  # (nn.optimizers or optax, rate) -> optimizer
    numpy: Callable[[Any, str], Reference]  # (rate, path) -> reference
    prepare: Callable[[dict, dict], dict] = lambda gradients, weights: gradients
    optax: Callable[[Any, Any], Any] | None = None  # (optax, rate), where it is not `make`
    in_optax: bool = True
    torch: Callable[[Any, Any, Any], Any] | None = None  # (torch.optim, named weights, rate)
    torch_schedules: bool = True
    rate: float = 0.02
    schedules: bool = True  # whether the rate may be one
    joint: bool = False  # whether the reference is of all weights as one vector
    slow: bool = False


def same(name: str, constructor: str, torch: Any = None, **kwargs: Any) -> Case:
    """The row of an optimizer with the same arguments in jaxnn, NumPy and optax."""

    def make(library: Any, rate: Any) -> Any:
        return of_library(library, constructor)(rate, **kwargs)

    def numpy(rate: Any, path: str) -> Reference:
        return of_numpy(constructor)(rate, **kwargs)

    return Case(name, make, numpy, torch=torch, rate=rate_of(constructor))


def of_library(library: Any, name: str) -> Any:
    """A function of jaxnn, or of optax, where it may be among the contributions."""
    return getattr(library if hasattr(library, name) else library.contrib, name)


def of_numpy(name: str) -> Any:
    """The reference of that name."""
    return next(getattr(module, name) for module in REFERENCES if hasattr(module, name))


def torch_optimizer(constructor: str, **kwargs: Any) -> Callable[[Any, Any, Any], Any]:
    """A torch optimizer by its name, for all weights alike."""
    return lambda optim, weights, rate: getattr(optim, constructor)(
        list(weights.values()), rate, **kwargs
    )


def torch_decaying(
    constructor: str, decays: Callable[[str], bool], **kwargs: Any
) -> Callable[[Any, Any, Any], Any]:
    """A torch optimizer with the weight decay of `DECAY` for the chosen paths."""

    def make(optim: Any, weights: dict, rate: float) -> Any:
        groups = [
            {"params": [w], "weight_decay": DECAY if decays(path) else 0.0}
            for path, w in weights.items()
        ]
        return getattr(optim, constructor)(groups, rate, **kwargs)

    return make


def is_kernel(path: str) -> bool:
    return path == "kernel"


def kernels(params: Any) -> Any:
    """The mask of optax that is jaxnn's default."""
    return jax.tree.map(lambda p: np.ndim(p) >= 2, params)


def decayed_by_rate(reference: Reference, decay: Callable[[int], float], rate: Any) -> Reference:
    """A reference with decoupled weight decay of kernels, `decay` a function of the count."""
    init, inner_update = reference

    def update(g: np.ndarray, state: dict, w: np.ndarray) -> tuple[np.ndarray, dict]:
        delta, new_state = inner_update(g, state, w)
        count = state["count"]
        rate_now = rate(count) if callable(rate) else rate
        return delta - (np.ndim(w) >= 2) * rate_now * decay(count) * w, new_state

    return Reference(init, update)


def decaying(
    name: str, constructor: str, torch: Any = None, mask_name: str = "mask", **kwargs: Any
) -> Case:
    """The row of an optimizer that decays kernels, for which optax wants to be told so."""
    kwargs = {"weight_decay": DECAY, **kwargs}
    return same(name, constructor, torch, **kwargs)._replace(
        optax=lambda optax, rate: of_library(optax, constructor)(
            rate, **kwargs, **{mask_name: kernels}
        )
    )


def decaying_all(name: str, constructor: str, **kwargs: Any) -> Case:
    """The row of an optimizer that decays all, as those of optax do that have no mask."""
    kwargs = {"weight_decay": DECAY, **kwargs}
    return Case(
        name,
        lambda library, rate: of_library(library, constructor)(rate, **kwargs, mask=True),
        lambda rate, path: of_numpy(constructor)(rate, **kwargs, decay_all=True),
        optax=lambda optax, rate: of_library(optax, constructor)(rate, **kwargs),
        rate=rate_of(constructor),
    )


def part(name: str, numpy: Callable[[Any], Reference], **kwargs: Any) -> Case:
    """The row of a transformation that needs but a rate; slow, as the optimizer has its own."""
    return Case(
        name,
        lambda library, rate: library.chain(
            of_library(library, name.split("-")[0])(**kwargs),
            library.scale_by_learning_rate(rate),
        ),
        lambda rate, path: numpy(rate),
        slow=True,
    )


def slowly(*cases: Case) -> list[Case]:
    """Cases that run by `make test-all` only: variants of such as always run."""
    return [case._replace(slow=True) for case in cases]
