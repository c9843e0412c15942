"""Backpropagation and gradient descent: is a house expensive?

Two losses appear here. The one that is minimised is the mean binary cross-entropy: its gradient
in the logits is `(sigmoid(logits) - y) / m`, where the backward pass begins. The one that is
printed is the mean squared error of the probabilities, a metric to look at. All houses make one
batch, so a value in the history is that of the parameters before the epoch's only update.
"""

import jax
import numpy as np

import jaxnn as nn

x = np.array([[1200.0, 3.0, 8.0], [850.0, 2.0, 5.0], [1500.0, 4.0, 9.0]]) / 1000
y = np.array([[1.0], [0.0], [1.0]])  # 1 is expensive, 0 is cheap

model = nn.serial(hidden=nn.dense(3), relu=nn.relu, out=nn.dense(1))

np.random.seed(42)
params = {
    "hidden": {"kernel": np.random.randn(3, 3).T, "bias": np.zeros(3)},
    "relu": {},
    "out": {"kernel": np.random.randn(1, 3).T, "bias": np.zeros(1)},
}

result = nn.fit(
    model,
    (x, y),
    loss=nn.losses.sigmoid_binary_cross_entropy,
    optimizer=nn.optimizers.sgd(0.1),
    metrics={
        "mse": nn.metrics.mean(lambda z, y: nn.losses.squared_error(nn.sigmoid(z), y)),
    },
    key=jax.random.key(0),  # nothing here is random
    epochs=1000,
    params=params,
)

for epoch in range(0, 1000, 100):
    print(f"Epoch {epoch}, Loss: {result.history['mse'][epoch]:.4f}")

house = np.array([[1000.0, 3.0, 7.0]]) / 1000
logit = nn.predict(model, result.params, result.state, house)
print(f"Predicted price category: {nn.sigmoid(logit).item():.2f}")
