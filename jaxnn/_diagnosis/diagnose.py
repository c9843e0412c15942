"""Naming what is wrong with a model, its data, loss and optimizer, from a few steps."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count, check_key
from jaxnn._core.layer import Layer, LayerLike, as_layer, child_key
from jaxnn._core.programs import compiled
from jaxnn._core.types import Arrays, Data, Loss, OptimizerLike, PyTree
from jaxnn._diagnosis.curves import diagnose_history
from jaxnn._diagnosis.experiment import Experiment, experiment
from jaxnn._diagnosis.findings import Diagnosis, Finding, causes
from jaxnn._diagnosis.judging import of_data, of_experiment
from jaxnn._training.data.arrays import count_examples
from jaxnn.optimizers._base import check_optimizer

MOST_EXAMPLES = 256  # that are looked at


@checked
def diagnose(
    model: LayerLike,
    data: Data,
    *,
    loss: Loss,
    optimizer: OptimizerLike,
    key: jax.Array,
    batch_size: int = 32,
    params: Arrays | None = None,
    state: Arrays | None = None,
    history: Mapping[str, Any] | None = None,
    steps: int = 100,
) -> Diagnosis:
    """Name what is wrong with a set-up, from a few steps of training, and say what to change.

    It looks at the scales of inputs and labels, at what layers put out and at gradients from layer
    to layer, at dead and saturated units, at the loss at the start against that of the best
    constant prediction, at training with multiples of the learning rate from a thousandth to
    thousand times as much (a range test, one compiled program for all), at whether one batch can
    be learnt by heart, and at the noise of gradients. The faults, their thresholds and cures are a
    table in `jaxnn/_diagnosis/faults.py`. Faults that follow from others are left out.

    Args:
        model: a layer or a plain function of arrays.
        data: arrays `(x, y)` or `(x, y, weights)`, examples along axis 0.
        loss: the loss, as `fit` takes it.
        optimizer: an `Optimizer` or optax transformation.
        key: a typed PRNG key.
        batch_size: the number of examples of a step.
        params: the parameters to begin with; those that the model makes if None.
        state: the model's state to begin with, given together with `params`.
        history: that of a run, which is looked at as well, see `diagnose_history`.
        steps: the number of steps of each training.

    Returns:
        A `Diagnosis`; `print` shows the report.

    Raises:
        TypeError: `data` are not arrays in memory; `optimizer` is not an optimizer.
        ValueError: `batch_size` or `steps` is less than 1; `state` is given without `params`.

    Example:
        >>> import jax, numpy as np, jaxnn as nn
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
        >>> y = (x[:, 0] > 0).astype(np.int32)
        >>> found = nn.diagnose(nn.dense(2), (1000 * x, y), loss=nn.losses.softmax_cross_entropy,
        ...                     optimizer=nn.optimizers.sgd(0.1), key=jax.random.key(0)).findings
        >>> found[0].name, found[0].challenge
        ('unscaled_inputs', 'slow learning')
        >>> found[0].evidence
        'feature 3 of x has mean 160 and root mean square 1.15e+03'
    """
    layer = as_layer(model, "diagnose: model")
    check_optimizer(optimizer, "diagnose: optimizer")
    check_key("diagnose", key)
    check_count("diagnose", "batch_size", batch_size)
    check_count("diagnose", "steps", steps)
    if state is not None and params is None:
        raise ValueError("diagnose: state is given and params is None, expected both or neither")
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        raise TypeError(
            "diagnose: data is not (x, y) or (x, y, weights), expected arrays in memory"
        )
    n = count_examples("diagnose", "data", data)
    rows = np.sort(np.random.default_rng(0).permutation(n)[:MOST_EXAMPLES])
    sample: tuple[PyTree, ...] = jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), data)
    found = list(of_data(sample))
    if any(one.name == "nonfinite" for one in found):
        return Diagnosis(causes(found), {}, {}, {})
    if params is None:
        one = jax.tree.map(lambda leaf: leaf[:1], sample[0])
        params, state = compiled(_init, layer)(child_key(key, "init"), one)
    state = {} if state is None else state
    seen = experiment(layer, loss, optimizer, key, sample, params, state, batch_size, steps)
    found += of_experiment(seen, loss)
    if history is not None:
        found += diagnose_history(history).findings
    return _report(seen, causes(found))


def _init(model: Layer, key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
    return model.init(key, x)


def _report(seen: Experiment, findings: tuple[Finding, ...]) -> Diagnosis:
    deviations, gradients = seen.deviations(), seen.gradients()
    layers = {
        "path": np.array(list(deviations)),
        "std": np.array(list(deviations.values())),
        "gradient_norm": np.array(list(gradients.values())),
    }
    multiples = np.array(sorted(seen.lanes))
    losses = np.array([seen.lanes[multiple] for multiple in multiples])
    numbers = {
        "loss_at_start": float(seen.start.loss),
        "loss_of_best_constant": seen.constant,
        "best_multiple": seen.best,
        "gradient_noise": float(seen.start.noise),
    }
    if seen.heart is not None:
        numbers["loss_on_one_batch"] = seen.heart.loss
    return Diagnosis(findings, layers, {"multiple": multiples, "loss": losses}, numbers)
