"""What is checked on the host before training starts."""

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arguments import value_text
from jaxnn._core.construction import refuse_constructor
from jaxnn._core.layer import Layer
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import PyTree
from jaxnn._training.data.arrays import example_of
from jaxnn._training.measuring import Metrics
from jaxnn._training.record import RECORDS
from jaxnn.losses import (
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    nll,
    poly_loss_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from jaxnn.metrics import Metric
from jaxnn.optimizers._narrow import is_narrow, keeps_small_updates

LOSSES_OF_CLASSES = (
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    nll,
    poly_loss_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)

RESERVED = ("loss", "penalty", "skipped", "epochs", *RECORDS)


def warn_of_narrow_params(
    function: str, params: PyTree, opt_state: PyTree, stacklevel: int
) -> None:
    """Warn where small updates are lost in params of few bits, and nothing keeps them."""
    if keeps_small_updates(opt_state):
        return
    leaves = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
    remembered = leaves.keys() & _endings(leaf_paths(opt_state))
    for path, leaf in leaves.items():
        is_frozen = remembered and path not in remembered  # others have moments, it has none
        if is_narrow(leaf) and not is_frozen:
            warnings.warn(
                f"{function}: params has {path!r} in {jnp.result_type(leaf)}, in which small "
                "updates are lost: expected optimizer=nn.optimizers.master_weights(optimizer), "
                "which keeps a copy in float32, or nn.optimizers.chain(optimizer, "
                "nn.optimizers.stochastic_rounding(key)), which keeps none; or params in float32, "
                "of a model that computes in few bits by nn.mixed_precision",
                stacklevel=stacklevel,
            )
            return


def _endings(paths: list[str]) -> set[str]:
    """The paths, and all that they end with."""
    split = [path.split("/") for path in paths]
    return {"/".join(names[i:]) for names in split for i in range(len(names))}


def warn_of_side_by_side(function: str, key: jax.Array, stacklevel: int) -> None:
    """Warn where the numbers of a key depend on what is computed beside them."""
    kind = str(jax.random.key_impl(key))
    if "rbg" in kind:
        warnings.warn(
            f"{function}: key is of the kind {kind!r}, whose numbers change with what is computed "
            "side by side: members, and parts on several devices, are not what they would be "
            "alone; expected jax.random.key(seed, impl='threefry2x32')",
            stacklevel=stacklevel,
        )


def check_metrics(function: str, metrics: Mapping[str, Metric] | None) -> Metrics:
    """The metrics as pairs, which can be hashed."""
    if metrics is None:
        return ()
    pairs = tuple(metrics.items())
    for name, metric in pairs:
        if not isinstance(name, str):
            raise TypeError(f"{function}: metrics has the name {name!r}, expected a string")
        if name in RESERVED or name.startswith("val_"):
            raise ValueError(
                f"{function}: metrics has the name {name!r}, expected another: "
                f"{', '.join(map(repr, RESERVED))} and 'val_...' are the history's own"
            )
        refuse_constructor(metric, f"{function}: metrics[{name!r}]", "a Metric")
        if not isinstance(metric, Metric):
            raise TypeError(
                f"{function}: metrics[{name!r}] is {value_text(metric)}, expected a Metric such as "
                "nn.metrics.accuracy(), or nn.metrics.mean(function) of a function of "
                "(predictions, y)"
            )
    return pairs


def check_reported(metrics: Any) -> None:
    """Raise unless what a whole loss function reports are values by name, for the history."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"loss function: metrics are {metrics!r}, expected a dict of arrays")
    for name in metrics:
        if name in RESERVED or str(name).startswith("val_"):
            raise ValueError(f"loss function: metrics has the name {name!r}, expected another")


def check_labels(function: str, model: Layer, loss: Any, **pairs: Any) -> None:
    """Raise if an integer label is outside of the classes, which a compiled run cannot.

    `pairs` are data sets by name, as `fit` takes them; None for one that is not there.
    """
    loss, options = loss_and_options(loss)
    axis = options.get("axis", -1)
    given = {name: pair for name, pair in pairs.items() if pair is not None}
    labels = {name: y for name, (_, y, *_) in given.items() if _is_integer(y)}
    if loss not in LOSSES_OF_CLASSES or not isinstance(axis, int) or not labels:
        return
    example = example_of(next(iter(given.values()))[0])
    params, state = jax.eval_shape(model.init, jax.random.key(0), example)
    logits, _ = jax.eval_shape(model.apply, params, state, example)
    for name, y in labels.items():
        if logits.ndim == y.ndim + 1:
            classes = logits.shape[axis]
            ignored = options.get("ignore_index")
            _check_classes(function, name, np.asarray(y), classes, ignored, logits.shape)


def loss_and_options(loss: Any) -> tuple[Any, dict[str, Any]]:
    """The function that partial applications and `nn.losses.ignoring` are of, and its keywords."""
    options: dict[str, Any] = {}
    while True:
        if isinstance(loss, functools.partial):
            loss, options = loss.func, {**loss.keywords, **options}
        elif hasattr(loss, "ignores"):
            loss, label = loss.ignores
            options = {"ignore_index": label, **options}
        else:
            return loss, options


def _is_integer(y: Any) -> bool:
    return hasattr(y, "dtype") and bool(jnp.issubdtype(y.dtype, jnp.integer))


def _check_classes(
    function: str,
    name: str,
    labels: np.ndarray,
    classes: int,
    ignored: int | None,
    shape: tuple[int, ...],
) -> None:
    is_wrong = (labels < 0) | (labels >= classes)
    wrong = np.argwhere(is_wrong if ignored is None else is_wrong & (labels != ignored))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"{function}: {name} has the label {labels[place]} at {place}, expected labels from 0 "
            f"to {classes - 1}, since the model's output has shape {shape}"
        )
