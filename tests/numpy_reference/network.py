"""A multilayer perceptron trained by hand: h_k = f(h_{k-1} W_k + b_k), the last layer linear.

Backpropagation as in Rumelhart, Hinton and Williams 1986, with no help from the other references.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import optimizers
from .float64 import Array, as_float64

Params = list[dict[str, Array]]

# Each activation with its derivative as a function of its value.
ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "tanh": (np.tanh, lambda h: 1 - h**2),
    "relu": (lambda z: np.maximum(z, 0), lambda h: (h > 0).astype(np.float64)),
}


def _mean_squared_error(z: Array, y: Array) -> tuple[float, Array]:
    e = z - y
    return float(np.mean(e**2)), 2 * e / e.size


def _mean_cross_entropy(z: Array, labels: Array) -> tuple[float, Array]:
    """-mean log p_label with p = softmax(z); the gradient is (p - onehot) / n."""
    n = np.arange(len(z))
    shifted = z - z.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    gradient = np.exp(log_p)
    gradient[n, labels] -= 1
    return float(-log_p[n, labels].mean()), gradient / len(z)


LOSSES = {"squared_error": _mean_squared_error, "softmax_cross_entropy": _mean_cross_entropy}


def _forward(params: Params, x: Array, activation: str) -> list[Array]:
    """Return the input of each layer, and the output of the last."""
    f, _ = ACTIVATIONS[activation]
    h = [x]
    for layer in params[:-1]:
        h.append(f(h[-1] @ layer["kernel"] + layer["bias"]))
    return [*h, h[-1] @ params[-1]["kernel"] + params[-1]["bias"]]


def predict(params: Params, x: Array, activation: str = "tanh") -> Array:
    """Return the outputs, of shape (examples, out), for x of shape (examples, in)."""
    return _forward(_float64(params), as_float64(x), activation)[-1]


def loss_and_gradients(
    params: Params, x: Array, y: Array, activation: str = "tanh", loss: str = "squared_error"
) -> tuple[float, Params]:
    """Return the mean loss over the examples and its gradient for each parameter.

    With d = dloss/dz_k: dW_k = h_{k-1}^T d, db_k = sum d, and below d <- (d W_k^T) f'(z_{k-1}).
    """
    params = _float64(params)
    *h, z = _forward(params, as_float64(x), activation)
    value, d = LOSSES[loss](z, as_float64(y))
    _, derivative = ACTIVATIONS[activation]
    gradients: Params = []
    for k in reversed(range(len(params))):
        gradients.insert(0, {"kernel": h[k].T @ d, "bias": d.sum(0)})
        if k > 0:
            d = (d @ params[k]["kernel"].T) * derivative(h[k])
    return value, gradients


def train(
    params: Params,
    x: Array,
    y: Array,
    batches: Sequence[Array],
    optimizer: optimizers.Reference,
    activation: str = "tanh",
    loss: str = "squared_error",
) -> tuple[Params, list[float]]:
    """Update once per batch of example indices; return the parameters and each step's loss.

    A step's loss is that of its batch before its update.
    """
    x, y = as_float64(x), as_float64(y)
    weights = _flatten(_float64(params))
    states = {k: optimizer.init(w) for k, w in weights.items()}
    losses = []
    for batch in batches:
        layers = _unflatten(weights)
        value, gradients = loss_and_gradients(layers, x[batch], y[batch], activation, loss)
        weights, states = optimizers.step(optimizer, _flatten(gradients), states, weights)
        losses.append(value)
    return _unflatten(weights), losses


def _float64(params: Params) -> Params:
    return [{name: as_float64(w) for name, w in layer.items()} for layer in params]


def _flatten(params: Params) -> dict[Any, Array]:
    return {(k, name): w for k, layer in enumerate(params) for name, w in layer.items()}


def _unflatten(weights: dict[Any, Array]) -> Params:
    layers: Params = [{} for _ in range(1 + max(k for k, _ in weights))]
    for (k, name), w in weights.items():
        layers[k][name] = w
    return layers
