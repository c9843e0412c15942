"""Adam, L2 and dropout: first the recipe of a tutorial to the digit, then textbook practice.

The tutorial's recipe departs from the papers in four ways, all of which are spelled out below:

- its Adam corrects the bias of the moments as if every step were the first;
- biases are moved by plain gradient descent;
- its backward pass forgets the dropout mask on the way to the first layer;
- its kernels begin at a hundredth of a standard normal, too small to tell the houses apart.

The loss printed is the mean squared error of the network with dropout, before the update.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

jax.config.update("jax_enable_x64", True)  # as NumPy computes

EPOCHS = 1000
LEARNING_RATE = 0.01
L2_LAMBDA = 0.01
DROPOUT_RATE = 0.2

x = np.array([[1200.0, 3.0, 8.0], [850.0, 2.0, 5.0], [1500.0, 4.0, 9.0]]) / 1000
y = np.array([[1.0], [0.0], [1.0]])


def squared_error(logits: Any, y: Any) -> jax.Array:
    return nn.losses.squared_error(nn.sigmoid(logits), y)


# The tutorial's recipe


class Moments(NamedTuple):
    mu: Any
    nu: Any


def adam_at_step_one(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> nn.optimizers.Optimizer:
    """Adam that divides by `1 - b1` and `1 - b2` where the paper has `1 - b1^t` and `1 - b2^t`."""

    def init(params: Any) -> Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moments(zeros, zeros)

    def update(grads: Any, state: Moments, params: Any = None) -> tuple[Any, Moments]:
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda n, g: b2 * n + (1 - b2) * g**2, state.nu, grads)
        updates = jax.tree.map(
            lambda m, n: -learning_rate * m / (1 - b1) / (jnp.sqrt(n / (1 - b2)) + eps), mu, nu
        )
        return updates, Moments(mu, nu)

    return nn.optimizers.Optimizer(init, update)


def by_name(kernel: nn.optimizers.Optimizer, bias: nn.optimizers.Optimizer) -> Any:
    """One optimizer for the kernels, another for the biases."""

    def init(params: Any) -> Any:
        return kernel.init(params), bias.init(params)

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        of_kernel, kernel_state = kernel.update(grads, state[0], params)
        of_bias, bias_state = bias.update(grads, state[1], params)
        updates = jax.tree_util.tree_map_with_path(
            lambda path, k, b: k if path[-1].key == "kernel" else b, of_kernel, of_bias
        )
        return updates, (kernel_state, bias_state)

    return nn.optimizers.Optimizer(init, update)


def forward(f: Any, x: jax.Array, *, mask: jax.Array) -> Any:
    h = nn.relu(f.hidden(x))
    h += jax.lax.stop_gradient(h * mask - h)  # masked forward, but not backward
    return f.out(h)


model = nn.compose(forward, hidden=nn.dense(3), out=nn.dense(1))
penalty = nn.regularizers.l2(L2_LAMBDA / (2 * len(x)))  # its gradient is lambda / m * kernel


def loss_fn(params: Any, state: Any, mask: jax.Array, key: jax.Array) -> Any:
    logits, state = model.apply(params, state, x, mask=mask)
    loss = jnp.mean(nn.losses.sigmoid_binary_cross_entropy(logits, y)) + penalty(params)
    return loss, (state, {"mse": jnp.mean(squared_error(logits, y))})


np.random.seed(42)
params = {
    "hidden": {"kernel": jnp.array(np.random.randn(3, 3).T * 0.01), "bias": jnp.zeros(3)},
    "out": {"kernel": jnp.array(np.random.randn(1, 3).T * 0.01), "bias": jnp.zeros(1)},
}
kept = np.random.rand(EPOCHS, 3, 3) > DROPOUT_RATE  # epochs, neurons, houses
masks = kept.transpose(0, 2, 1) / (1 - DROPOUT_RATE)

optimizer = by_name(adam_at_step_one(LEARNING_RATE), nn.optimizers.sgd(LEARNING_RATE))
step = nn.train_step(loss_fn, optimizer)
start = nn.train_state(params, {}, optimizer, jax.random.key(0))
end, metrics = jax.lax.scan(step, start, masks)  # 1000 steps, one for each mask

for epoch in range(0, EPOCHS, 100):
    print(f"Epoch {epoch}, Loss: {metrics['mse'][epoch]:.4f}")


# Textbook practice on the same data

textbook = nn.serial(
    nn.dense(3, kernel_init=nn.initializers.he_normal()),
    nn.relu,
    nn.dropout(DROPOUT_RATE),
    nn.dense(1),
)
settings: dict[str, Any] = {
    "loss": nn.losses.sigmoid_binary_cross_entropy,
    "optimizer": nn.optimizers.adam(LEARNING_RATE),
    "regularizer": penalty,
    "metrics": {"mse": nn.metrics.mean(squared_error)},
    "epochs": EPOCHS,
}
result = nn.fit(textbook, (x, y), key=jax.random.key(0), **settings)

print("\nThe same with textbook initialisation, Adam and dropout:")
for epoch in range(0, EPOCHS, 100):
    print(f"Epoch {epoch}, Loss: {result.history['mse'][epoch]:.4f}")

# Dropout makes these numbers noisy, and three neurons are few: compare without dropout, and look
# at more than one seed.


def final_loss(logits: jax.Array) -> jax.Array:
    return jnp.mean(squared_error(logits, y))


def train_and_evaluate(key: jax.Array) -> jax.Array:
    params, state, _ = nn.training_run(textbook, **settings)(key, (x, y))
    return final_loss(textbook.apply(params, state, x)[0])


recipe_loss = final_loss(model.apply(end.params, {}, x, mask=jnp.ones(3))[0])
textbook_loss = final_loss(textbook.apply(result.params, result.state, x)[0])
losses = jax.jit(jax.vmap(train_and_evaluate))(jax.random.split(jax.random.key(1), 100))
print(f"\nWithout dropout, at the end: tutorial {recipe_loss:.4f}, textbook {textbook_loss:.4f}.")
print(
    f"Textbook practice over 100 seeds: median {jnp.median(losses):.4f}, "
    f"better than the tutorial in {jnp.mean(losses < recipe_loss):.0%}."
)
