"""jaxnn, as its documentation tells its users to write it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxnn as nn
from benchmarks.contestants import jax_loops
from benchmarks.row import Run


def training(model: nn.Layer, loss: Any, optimizer: Any, params: Any, data: Any) -> Run:
    """Steps on one batch, what is updated donated."""

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        x, y = batch
        predictions, state = model.apply(params, state, x, key=key, train=True)
        return loss(predictions, y).mean(), (state, {})

    step = jax.jit(nn.train_step(loss_fn, optimizer), donate_argnums=0)
    batch = jax.tree.map(jnp.asarray, (data["x"], data["y"]))
    now = nn.train_state(jax.tree.map(jnp.array, params), {}, optimizer, jax.random.key(0))

    def run(n: int) -> np.ndarray:
        nonlocal now
        losses = []
        for _ in range(n):
            now, metrics = step(now, batch)
            losses.append(metrics["loss"])
        return np.array(jax.block_until_ready(losses))

    return run


def mlp_of(weights: Any) -> tuple[nn.Layer, Any]:
    """Dense layers with ReLU between them, and their parameters."""
    layers: list[Any] = []
    params: list[Any] = []
    for layer in weights:
        layers += [nn.dense(len(layer["bias"])), nn.relu]
        params += [layer, {}]
    return nn.serial(*layers[:-1]), tuple(params[:-1])


def mlp(data: Any) -> Run:
    """The MLP."""
    model, params = mlp_of(data["weights"])
    optimizer = nn.optimizers.adam(data["learning_rate"])
    return training(model, nn.losses.softmax_cross_entropy, optimizer, params, data)


def cnn_of(data: Any) -> tuple[nn.Layer, Any]:
    """The CNN and its parameters."""
    first, second, last = data["weights"]
    model = nn.serial(
        nn.conv(len(first["bias"]), (3, 3)),
        nn.relu,
        nn.max_pool((2, 2)),
        nn.conv(len(second["bias"]), (3, 3)),
        nn.relu,
        nn.max_pool((2, 2)),
        nn.flatten(),
        nn.dense(10),
    )
    return model, (first, {}, {}, second, {}, {}, {}, last)


def cnn(data: Any) -> Run:
    """The CNN."""
    model, params = cnn_of(data)
    optimizer = nn.optimizers.sgd(data["learning_rate"])
    return training(model, nn.losses.softmax_cross_entropy, optimizer, params, data)


def cnn_sharded(data: Any) -> Run:
    """The CNN, its batch in equal parts on all devices."""
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    parts, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("batch",), ()))
    placed = data | {k: jax.device_put(data[k], parts) for k in ("x", "y")}
    model, params = cnn_of(data)
    optimizer = nn.optimizers.sgd(data["learning_rate"])
    params = jax.device_put(params, whole)
    step = training(model, nn.losses.softmax_cross_entropy, optimizer, params, placed)

    def run(n: int) -> np.ndarray:
        # Steps that wait for each other in the few threads of two CPU devices can wait for ever.
        return np.concatenate([step(1) for _ in range(n)])

    return run


def recurrent(cell: nn.Cell, data: Any) -> Run:
    """A recurrent network."""
    optimizer = nn.optimizers.sgd(data["learning_rate"])
    model = nn.recurrent(cell)
    return training(model, nn.losses.squared_error, optimizer, data["weights"], data)


def lstm(data: Any) -> Run:
    """The LSTM."""
    return recurrent(nn.lstm_cell(data["y"].shape[-1]), data)


def gru(data: Any) -> Run:
    """The GRU."""
    return recurrent(nn.gru_cell(data["y"].shape[-1]), data)


def decay_all(params: Any) -> Any:
    """Weight decay for biases as well, as the others have it."""
    return jax.tree.map(lambda _: True, params)


def transformer(data: Any, *, stacked: bool = True) -> Run:
    """The transformer, its blocks stacked by `nn.stack` or one after the other."""
    weights = data["weights"]
    depth, width = weights["blocks"]["mlp_norm"]["bias"].shape
    vocabulary, features = weights["embed"]["embedding"].shape
    block = nn.transformer_block(
        nn.attention(data["heads"], is_causal=True), nn.feed_forward(4 * width)
    )
    deep = weights["blocks"] | {"dropout": {}}
    deep["mlp"] = deep["mlp"] | {"activation": {}}
    if stacked:
        blocks, params = nn.stack(block, depth), deep
    else:
        blocks = nn.serial(*[block] * depth)
        params = tuple(jax.tree.map(lambda a: a[i], deep) for i in range(depth))  # noqa: B023
    model = nn.serial(
        embed=nn.embedding(vocabulary, features),
        positions=nn.learned_positions(data["x"].shape[1]),
        blocks=blocks,
        norm=nn.layer_norm(),
        logits=nn.dense(vocabulary),
    )
    if data["dtype"] != "float32":
        model = nn.mixed_precision(model, data["dtype"])
    optimizer = nn.optimizers.adamw(
        data["learning_rate"], weight_decay=data["weight_decay"], mask=decay_all
    )
    params = weights | {"blocks": params}
    return training(model, nn.losses.softmax_cross_entropy, optimizer, params, data)


def transformer_unrolled(data: Any) -> Run:
    """The transformer, its blocks one after the other."""
    return transformer(data, stacked=False)


def update_with(optimizer: Any, data: Any) -> Run:
    """Updates by an optimizer."""

    def step(grads: Any, params: Any, opt_state: Any) -> Any:
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return nn.optimizers.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(jax.tree.map(jnp.array, data["params"]))
    return jax_loops.updating(
        step, data["params"], opt_state, donated=jax_loops.jit, grads=data["grads"]
    )


def adam(data: Any) -> Run:
    """Adam."""
    return update_with(nn.optimizers.adam(data["learning_rate"], eps=data["eps"]), data)


def sgd(data: Any) -> Run:
    """SGD."""
    return update_with(nn.optimizers.sgd(data["learning_rate"]), data)


def run_and_fit(weights: Any, loss: Any, optimizer: Any, data: Any) -> tuple[Run, Run]:
    """The same full-batch epochs as one compiled run, and by `fit`, from the same beginning."""
    model, params = mlp_of(weights)
    params = jax.tree.map(jnp.array, params)
    examples = jnp.array(data["x"]), jnp.array(data["y"])
    keywords = {"loss": loss, "optimizer": optimizer, "epochs": data["epochs"]}
    train = jax.jit(nn.training_run(model, **keywords))
    key = jax.random.key(0)
    fit = functools.partial(nn.fit, model, examples, **keywords, key=key, params=params)

    def compiled(n: int) -> np.ndarray:
        for _ in range(n):
            _, _, history = jax.block_until_ready(train(key, examples, params=params))
        return np.array(history["loss"])

    def fitted(n: int) -> np.ndarray:
        for _ in range(n):
            history = fit(progress=False).history
        return history["loss"]

    return compiled, fitted


def tiny_networks(data: Any) -> tuple[Run, Run]:
    """The tutorial's network."""
    loss, sgd = nn.losses.sigmoid_binary_cross_entropy, nn.optimizers.sgd(0.1)
    return run_and_fit(data["weights"], loss, sgd, data)


def mlp_networks(data: Any) -> tuple[Run, Run]:
    """The MLP."""
    adam = nn.optimizers.adam(data["learning_rate"])
    return run_and_fit(data["weights"], nn.losses.softmax_cross_entropy, adam, data)


def tiny_run(data: Any) -> Run:
    """The tutorial's network as one compiled run."""
    return tiny_networks(data)[0]


def tiny_fit(data: Any) -> Run:
    """The tutorial's network by `fit`."""
    return tiny_networks(data)[1]


def mlp_run(data: Any) -> Run:
    """The MLP as one compiled run."""
    return mlp_networks(data)[0]


def mlp_fit(data: Any) -> Run:
    """The MLP by `fit`."""
    return mlp_networks(data)[1]


tiny = tiny_run


def tiny64(data: Any) -> Run:
    """Many of the tutorial's network side by side."""
    model, params = mlp_of(data["weights"])
    params = jax.tree.map(jnp.array, params)
    examples = jnp.array(data["x"]), jnp.array(data["y"])
    train = nn.training_run(
        model,
        loss=nn.losses.sigmoid_binary_cross_entropy,
        optimizer=nn.optimizers.sgd(0.1),
        epochs=data["epochs"],
    )
    key = jax.random.key(0)
    side_by_side = jax.jit(jax.vmap(lambda params: train(key, examples, params=params)))

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            _, _, history = jax.block_until_ready(side_by_side(params))
        return np.array(history["loss"])

    return run


def digits(data: Any) -> Run:
    """Digits."""
    model = nn.serial(nn.dense(data["hidden"]), nn.relu, nn.dense(10))

    def run(n: int) -> np.ndarray:
        result = nn.fit(
            model,
            data["training"],
            loss=nn.losses.softmax_cross_entropy,
            optimizer=nn.optimizers.adam(data["learning_rate"]),
            key=jax.random.key(0),
            epochs=data["epochs"],
            batch_size=data["batch"],
            progress=False,
        )
        images, labels = data["test"]
        logits = nn.predict(model, result.params, result.state, images)
        return np.mean(np.argmax(logits, axis=-1) == labels)

    return run


def sweep_parts(data: Any) -> tuple[Any, Any]:
    """A training run that depends on its learning rate, and the examples."""
    binary = data["batch"] is None
    layers = [nn.dense(data["hidden"]), nn.relu, nn.dense(1 if binary else 10)]
    if data["dropout"]:
        layers.insert(2, nn.dropout(data["dropout"]))
    optimizer = nn.optimizers.sgd if binary else nn.optimizers.adam
    losses = nn.losses
    train = nn.training_run(
        nn.serial(*layers),
        loss=losses.sigmoid_binary_cross_entropy if binary else losses.softmax_cross_entropy,
        optimizer=lambda h: optimizer(h["rate"]),
        epochs=data["epochs"],
        batch_size=data["batch"],
    )
    return train, (jnp.array(data["x"]), jnp.array(data["y"]))


def sweep(data: Any) -> Run:
    """All learning rates side by side."""
    train, examples = sweep_parts(data)
    key = jax.random.key(0)

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            result = nn.sweep(train, key, {"rate": data["rates"]}, examples, progress=False)
        return np.array(result.history["loss"])

    return run


def key_of_a_sweep(key: jax.Array) -> Any:
    """The key that a sweep gives to its runs."""

    def nothing(key: jax.Array, *_: Any) -> Any:
        return {}, {}, {"loss": jnp.zeros(1)}

    return nn.sweep(nothing, key, {"rate": [0.0]}, (), progress=False).keys[0]


def trained_alone(data: Any, rates: Any) -> Run:
    """One learning rate after the other."""
    train, examples = sweep_parts(data)
    alone, key = jax.jit(train), key_of_a_sweep(jax.random.key(0))

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            histories = [alone(key, examples, {"rate": rate})[2] for rate in rates]
            jax.block_until_ready(histories)
        return np.array([history["loss"] for history in histories])

    return run


def sweep_one_by_one(data: Any) -> Run:
    """All learning rates, one after the other."""
    return trained_alone(data, data["rates"])


def sweep_of_one(data: Any) -> Run:
    """The first learning rate alone, which is less work and agrees with nobody."""
    run = trained_alone(data, data["rates"][:1])

    def silent(n: int) -> None:
        run(n)

    return silent
