"""Mistakes in calls of jaxnn, each marked with the errors that mypy and pyright must give.

`make lint` runs both, strict: an error that is not marked fails, and so does a mark without its
error. Nothing here is run.
"""

import functools

import jax
import jax.numpy as jnp

import jaxnn as nn
from jaxnn.typing import PyTree


def layers() -> None:
    """Constructors of layers."""
    nn.dense("4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.dense()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.dense(4, use_bais=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.dense(4, kernel_init=nn.initializers.lecun_normal)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.dense(4, bias_init="zeros")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.conv(8, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.max_pool(2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.conv(8, (3, 3), padding="same")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.max_pool((2, 2), padding=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.attention(8, num_head=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.attention(8, implementation="flash")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.lru_cell((4, 4))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.dropout("0.5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.batch_norm(0.9)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    nn.Dense(4)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    nn.upsample((2, 2), method="cubic")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.Layer(init=lambda key, x: ({}, {}))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.Layer(lambda key, x: ({}, {}), lambda params, x: x)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.Cell(lambda key, x: {}, lambda params, batch_shape: 0, nn.relu)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def combinators() -> None:
    """Layers made of layers."""
    nn.serial([nn.dense(4), nn.relu])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.serial(nn.dense(4), nn.dropout)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.serial(nn.dense(4), "relu")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.serial(nn.dense(4), nn.lstm_cell(4))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.residual(nn.layer_norm)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.compose(nn.dense(4), nn.dense(3))  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    nn.stack(nn.dense(4))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.ensemble(nn.dense(4), "5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.recurrent(nn.dense(4))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.mixed_precision(nn.dense(4), jnp.bfloat16, jnp.float32)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.mlp([64, 10], activation="relu")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.transformer_block(nn.attention, nn.feed_forward(64))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.bidirectional(nn.lstm_cell(4), merge="add")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.stateless([nn.dense(4)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.elementwise(nn.dense(4))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def calls(model: nn.Layer, params: PyTree, state: PyTree, x: jax.Array, key: jax.Array) -> None:
    """Calls of what constructors made."""
    model.init(0, x)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    model.init(key)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    model.aply(params, state, x)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    model.apply(params, x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    model.apply(params, state, x, key, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    model.apply(params, state, x, train="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    model.apply(params, state, x, key=0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    model(params, x)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    model.apply(params, state, x).mean()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    nn.stateless(model)(params, x, key)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.lstm_cell(4).apply(params, state, x)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    nn.lstm_cell(4).step(params, x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def losses_and_metrics(x: jax.Array) -> None:
    """Losses, metrics, regularizers and schedules."""
    nn.losses.huber_loss(x, x, detla=2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.losses.softmax_cross_entropy(x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    functools.partial(nn.losses.squared_error, x)(y=x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.metrics.accuracy(x, x)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.metrics.top_k_accuracy("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.metrics.f1(classes=3, average="mcro")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.metrics.accuracy().update(x, x, x, x, x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.metrics.accuracy().result(x)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    nn.losses.dice_loss(x, x, reduction="max")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.regularizers.l2("1e-4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.schedules.cosine_decay_schedule(0.1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.schedules.join_schedules([0.1, 0.2], [100])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def optimizers(params: PyTree, grads: PyTree, opt_state: PyTree) -> None:
    """Optimizers and their calls."""
    nn.optimizers.adam()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.optimizers.adam(lr=1e-3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.optimizers.adam("cosine")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.adam(nn.schedules.cosine_decay_schedule)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.sgd(0.1, nesterov=0.9)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.adam(1e-3, mu_dtype=16)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.adamw(1e-3, weight_decay=0.1, mask=0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.chain([nn.optimizers.clip(1.0), nn.optimizers.sgd(0.1)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.chain(nn.optimizers.clip, nn.optimizers.sgd(0.1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.chain(nn.dense(4))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.params_ema(0.999)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.optimizers.partition({"*": nn.optimizers.freeze})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    nn.optimizers.adam(1e-3).init()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.optimizers.adam(1e-3).step(grads, opt_state)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    nn.optimizers.adam(1e-3).update(grads)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.optimizers.apply_updates(params)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.optimizers.Optimizer(init=lambda params: (), update=lambda grads: grads)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def training(model: nn.Layer, x: jax.Array, key: jax.Array) -> None:
    """What trains."""
    loss, optimizer = nn.losses.squared_error, nn.optimizers.adam(1e-3)
    nn.fit(model, x, x, loss=loss, optimizer=optimizer, key=key, epochs=3)  # type: ignore[arg-type, misc]  # pyright: ignore[reportCallIssue]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=0, epochs=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss="mse", optimizer=optimizer, key=key, epochs=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss(x, x), optimizer=optimizer, key=key, epochs=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, metrics=["accuracy"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, callbacks=print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, batchsize=32)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, early_stopping=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, regularizer=1e-4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3).parms)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    nn.training_run(model, (x, x), loss=loss, optimizer=optimizer, epochs=3)  # type: ignore[arg-type, misc]  # pyright: ignore[reportCallIssue]
    nn.fit([model], (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(nn.dense, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=nn.optimizers.adam, key=key, epochs=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer="adam", key=key, epochs=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, on_nonfinite="skp")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, progress="dots")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.training_run(model, loss=loss, optimizer=optimizer, epochs=3, on_nonfinite="raise")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.train_state({}, {}, nn.optimizers.adam, key)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, members="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.fit(model, (x, x), loss=loss, optimizer=optimizer, key=key, epochs=3, hyperparams=0.1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.sweep(nn.training_run, key, {"rate": [0.1]}, (x, x))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.training_run(model, loss=loss, optimizer=optimizer, epochs=3)(key, x, x, x, x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.sweep(model, key, {"rate": [0.1]}, (x, x))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.log_uniform("1e-4", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.train_step(model, optimizer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.evaluate(model, {}, {}, (x, x), loss=loss, metrics=[nn.metrics.accuracy()])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.predict(model, {}, x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.early_stopping("val_loss", 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def files(params: dict[str, jax.Array]) -> None:
    """What is kept."""
    nn.save(params, "params.safetensors")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.load(params)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nn.callbacks.csv_log()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    nn.summary(nn.dense(4))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
