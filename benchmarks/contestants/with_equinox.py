"""equinox and optax. What is not an array is split off once, and the steps are `jax.jit`'s."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.contestants import by_hand, jax_loops
from benchmarks.contestants.jax_loops import cross_entropy, squared_error
from benchmarks.row import Run


def training(model: Any, loss: Any, optimizer: Any, data: Any) -> Run:
    """Steps of a model over one example, vmapped."""
    params, static = eqx.partition(model, eqx.is_array)

    def predict(params: Any, x: jax.Array) -> Any:
        return jax.vmap(eqx.combine(params, static))(x)

    return jax_loops.training(predict, loss, optimizer, params, data)


def linear(layer: Any) -> eqx.nn.Linear:
    """A linear layer with these weights."""
    made = eqx.nn.Linear(*layer["kernel"].shape, key=jax.random.key(0))
    weights = jnp.array(layer["kernel"].T), jnp.array(layer["bias"])
    return eqx.tree_at(lambda m: (m.weight, m.bias), made, weights)


def mlp_of(weights: Any) -> eqx.nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[Any] = []
    for layer in weights:
        layers += [linear(layer), eqx.nn.Lambda(jax.nn.relu)]
    return eqx.nn.Sequential(layers[:-1])


def mlp(data: Any) -> Run:
    """The MLP."""
    optimizer = optax.adam(data["learning_rate"])
    return training(mlp_of(data["weights"]), cross_entropy, optimizer, data)


def mlp_filtered(data: Any) -> Run:
    """The MLP as equinox's documentation trains: `eqx.filter_jit` around the whole step."""
    model, optimizer = mlp_of(data["weights"]), optax.adam(data["learning_rate"])
    opt_state = optimizer.init(eqx.filter(model, eqx.is_array))
    x, y = jnp.array(data["x"]), jnp.array(data["y"])

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, model: Any, opt_state: Any) -> Any:
        x, y = batch
        loss, grads = eqx.filter_value_and_grad(lambda model: cross_entropy(jax.vmap(model)(x), y))(
            model
        )
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return eqx.apply_updates(model, updates), opt_state, loss

    def run(n: int) -> np.ndarray:
        nonlocal model, opt_state
        losses = []
        for _ in range(n):
            model, opt_state, loss = step((x, y), model, opt_state)
            losses.append(loss)
        return np.array(jax.block_until_ready(losses))

    return run


def cnn(data: Any) -> Run:
    """The CNN, which equinox wants channels first."""
    layers: list[Any] = [eqx.nn.Lambda(lambda x: x.transpose(2, 0, 1))]
    *convolutions, last = data["weights"]
    for layer in convolutions:
        height, width, inputs, outputs = layer["kernel"].shape
        made = eqx.nn.Conv2d(inputs, outputs, (height, width), padding=1, key=jax.random.key(0))
        kernel, bias = layer["kernel"].transpose(3, 2, 0, 1), layer["bias"].reshape(-1, 1, 1)
        weights = jnp.array(kernel), jnp.array(bias)
        made = eqx.tree_at(lambda m: (m.weight, m.bias), made, weights)
        layers += [made, eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)]
    layers += [eqx.nn.Lambda(lambda x: x.transpose(1, 2, 0).reshape(-1)), linear(last)]
    optimizer = optax.sgd(data["learning_rate"])
    return training(eqx.nn.Sequential(layers), cross_entropy, optimizer, data)


class Recurrent(eqx.Module):
    """A cell scanned over a sequence; its output is the hidden state."""

    cell: Any

    def __call__(self, xs: jax.Array) -> jax.Array:
        """The hidden states."""
        zeros = jnp.zeros(self.cell.hidden_size)
        is_lstm = isinstance(self.cell, eqx.nn.LSTMCell)

        def step(carry: Any, x: jax.Array) -> Any:
            carry = self.cell(x, carry)
            return carry, carry[0] if is_lstm else carry

        return jax.lax.scan(step, (zeros, zeros) if is_lstm else zeros, xs)[1]


def lstm(data: Any) -> Run:
    """The LSTM."""
    weights = data["weights"]["input"], data["weights"]["recurrent"]["kernel"]
    cell = eqx.nn.LSTMCell(len(weights[0]["kernel"]), len(weights[1]), key=jax.random.key(0))
    cell = eqx.tree_at(
        lambda c: (c.weight_ih, c.weight_hh, c.bias),
        cell,
        jax.tree.map(jnp.array, (weights[0]["kernel"].T, weights[1].T, weights[0]["bias"])),
    )
    return training(Recurrent(cell), squared_error, optax.sgd(data["learning_rate"]), data)


def gru(data: Any) -> Run:
    """The GRU."""
    ours, recurrent = data["weights"]["input"], data["weights"]["recurrent"]
    cell = eqx.nn.GRUCell(len(ours["kernel"]), len(recurrent["kernel"]), key=jax.random.key(0))
    weights = ours["kernel"].T, recurrent["kernel"].T, ours["bias"], recurrent["bias"]
    cell = eqx.tree_at(
        lambda c: (c.weight_ih, c.weight_hh, c.bias, c.bias_n),
        cell,
        jax.tree.map(jnp.array, weights),
    )
    return training(Recurrent(cell), squared_error, optax.sgd(data["learning_rate"]), data)


class Block(eqx.Module):
    """A block of the transformer."""

    attention_norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    mlp_norm: eqx.nn.LayerNorm
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, heads: int, weights: Any) -> None:
        width = len(weights["mlp_norm"]["bias"])
        self.attention_norm = eqx.nn.LayerNorm(width)
        self.mlp_norm = eqx.nn.LayerNorm(width)
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        key = jax.random.key(0)
        made = eqx.nn.MultiheadAttention(heads, width, key=key, **biases)
        parts = [linear(weights["attention"][name]) for name in ("query", "key", "value", "out")]
        self.attention = eqx.tree_at(
            lambda a: (a.query_proj, a.key_proj, a.value_proj, a.output_proj), made, tuple(parts)
        )
        self.hidden, self.out = linear(weights["mlp"]["hidden"]), linear(weights["mlp"]["out"])

    def __call__(self, x: jax.Array) -> jax.Array:
        """The block's output for one sequence."""
        y = jax.vmap(self.attention_norm)(x)
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(y, y, y, mask)
        y = jax.vmap(self.hidden)(jax.vmap(self.mlp_norm)(x))
        return x + jax.vmap(self.out)(jax.nn.gelu(y))


class Transformer(eqx.Module):
    """The transformer."""

    embed: eqx.nn.Embedding
    positions: jax.Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    logits: eqx.nn.Linear

    def __init__(self, data: Any) -> None:
        weights = data["weights"]
        self.embed = eqx.nn.Embedding(weight=jnp.array(weights["embed"]["embedding"]))
        self.positions = jnp.array(weights["positions"]["embedding"])
        depth, width = weights["blocks"]["mlp_norm"]["bias"].shape
        self.blocks = [
            Block(data["heads"], jax.tree.map(lambda a: a[i], weights["blocks"]))  # noqa: B023
            for i in range(depth)
        ]
        self.norm = eqx.nn.LayerNorm(width)
        self.logits = linear(weights["logits"])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """The logits of one sequence."""
        x = jax.vmap(self.embed)(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.logits)(jax.vmap(self.norm)(x))


def transformer(data: Any) -> Run:
    """The transformer."""
    optimizer = optax.adamw(data["learning_rate"], weight_decay=data["weight_decay"])
    return training(Transformer(data), cross_entropy, optimizer, data)


def tiny(data: Any) -> Run:
    """The tutorial's network, from the same beginning again and again."""
    start, static = eqx.partition(mlp_of(data["weights"]), eqx.is_array)
    optimizer = optax.sgd(0.1)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(params: Any) -> jax.Array:
            return by_hand.sigmoid_loss(jax.vmap(eqx.combine(params, static))(x), y)

        loss, grads = jax.value_and_grad(objective)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(params, updates), opt_state, loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    x, y = jnp.array(data["x"]), jnp.array(data["y"])

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            params = jax.tree.map(jnp.array, start)
            opt_state, losses = optimizer.init(params), []
            for _ in range(data["epochs"]):
                params, opt_state, loss = compiled(params, opt_state, x, y)
                losses.append(loss)
            jax.block_until_ready(losses)
        return np.array(losses)

    return run


class Leaves(eqx.Module):
    """Parameters and nothing else."""

    leaves: list[jax.Array]


def sgd(data: Any) -> Run:
    """A step of SGD by `eqx.filter_jit`."""
    grads, model = (Leaves([jnp.array(a) for a in data[k]]) for k in ("grads", "params"))

    @eqx.filter_jit(donate="all-except-first")
    def step(grads: Leaves, model: Leaves) -> Leaves:
        return jax.tree.map(lambda p, g: p - data["learning_rate"] * g, model, grads)

    def run(n: int) -> np.ndarray:
        nonlocal model
        for _ in range(n):
            model = step(grads, model)
        return np.array(model.leaves[0])

    return run
