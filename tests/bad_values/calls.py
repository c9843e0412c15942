"""A valid call of every public callable, and what is to be done with what it returns."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from tests.schedule_cases import ROWS as SCHEDULES
from tests.table import FUNCTIONS, LAYERS
from tests.table.rows import rng_for
from tests.test_completeness import PUBLIC, from_jax

ones = functools.partial(jnp.ones, dtype=jnp.float32)
optimizers, metrics, losses = nn.optimizers, nn.metrics, nn.losses


def key():
    """A key."""
    return jax.random.key(0)


class Call(NamedTuple):
    """A public callable, arguments by name, and how the result is used."""

    name: str
    arguments: dict[str, Any]
    use: Callable[[Any], Any]

    @property
    def function(self):
        """What is called."""
        return PUBLIC[self.name]

    @property
    def parameters(self):
        """Its parameters."""
        return inspect.signature(self.function).parameters.values()

    def run(self, **changes):
        """Call it with some arguments changed, and use what it returns."""
        arguments = self.arguments | changes
        has_rest = any(p.kind is p.VAR_POSITIONAL for p in self.parameters)
        args = []
        for p in self.parameters:
            by_position = p.kind is p.POSITIONAL_ONLY or (
                has_rest and p.kind is p.POSITIONAL_OR_KEYWORD
            )
            if by_position and p.name in arguments:
                args.append(arguments.pop(p.name))
            elif p.kind is p.VAR_POSITIONAL:
                args += arguments.pop(p.name, ())
            elif p.kind is p.VAR_KEYWORD:
                arguments |= arguments.pop(p.name, {})
        return self.use(self.function(*args, **arguments))


# What is done with a result


def nothing(result):
    """A function's result is all there is."""


def applied(x):
    """Initialise and apply a layer."""

    def use(layer):
        params, state = layer.init(jax.random.key(1), x)
        return layer.apply(params, state, x, key=jax.random.key(2), train=True)

    return use


def stepped(x):
    """Run a cell over a sequence."""
    return lambda cell: applied(x)(nn.recurrent(cell))


def positioned(positions):
    """Attend with positions."""
    return applied(ones((1, 3, 8)))(nn.attention(2, positions=positions))


def drawn(shape):
    """Use an initializer."""
    return lambda init: init(jax.random.key(1), shape, jnp.float32)


def measured(predictions, targets):
    """Use a metric."""
    return lambda metric: metric.compute(metric.update(metric.init(), predictions, targets))


def penalised(regularizer):
    """Use a regularizer."""
    return regularizer({"kernel": ones((2, 3)), "bias": ones(3)})


def optimized(optimizer):
    """Make one update."""
    if inspect.isfunction(optimizer):  # of inject_hyperparams
        optimizer = optimizer(learning_rate=0.1)
    params = {"kernel": ones((2, 3))}
    extra = {
        "value": jnp.float32(1.0),
        "grad": params,
        "value_fn": lambda p: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p)),
    }
    declared = inspect.signature(optimizer.update).parameters
    takes = any(p.kind is p.VAR_KEYWORD for p in declared.values())
    given = extra if takes else {k: v for k, v in extra.items() if k in declared}
    return optimizer.update(params, optimizer.init(params), params, **given)


def scheduled(schedule):
    """Ask for one step."""
    return schedule(jnp.int32(3))


# Calls


def _recorded(row):
    """The arguments in the call of a row of layers."""
    given = {}

    def recorder(*args, **kwargs):
        given["args"], given["kwargs"] = args, kwargs

    eval(row.call, {**row.make.__globals__, **vars(nn), row.constructor: recorder})
    return _by_name(PUBLIC[row.constructor], *given["args"], **given["kwargs"])


def _by_name(function, *args, **kwargs):
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)


def _narrow(value):
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return jnp.asarray(value, jnp.float32 if value.dtype.kind == "f" else jnp.int32)
    return value


def calls_of_rows():
    """Those of the table of layers and functions."""
    seen = set()
    for row in LAYERS:
        if row.constructor in seen or row.constructor not in PUBLIC or row.constructor in BY_HAND:
            continue
        seen.add(row.constructor)
        x = jnp.asarray(row.draw_x(rng_for(row.name), row.shapes[0], np.float32))
        yield Call(row.constructor, _recorded(row), applied(x))
    for row in FUNCTIONS:
        if row.name in seen or row.function is not PUBLIC[row.name] or from_jax(row.function):
            continue
        seen.add(row.name)
        args = map(_narrow, row.draw(rng_for(row.name), row.shapes[0]))
        yield Call(row.name, _by_name(row.function, *args, **row.options), nothing)


MODEL, SGD, ADAM = nn.dense(3), optimizers.sgd(0.1), optimizers.adam(0.1)
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)), jnp.float32)
Y = jnp.arange(8) % 3
DATA = (X, Y)
PARAMS = {"kernel": ones((2, 3)), "bias": ones(3)}
ADAPTED = {"layer": PARAMS, "down": {"kernel": ones((2, 1))}, "up": {"kernel": ones((1, 3))}}
SWEPT = nn.SweepResult(
    {"rate": np.ones(1), "seed": np.zeros(1), "loss": np.ones(1)}, {}, {}, {}, None
)
DIAGNOSIS = nn.Diagnosis(
    (),
    {name: np.ones(2) for name in ("path", "std", "gradient_norm")},
    {name: np.ones(2) for name in ("multiple", "loss")},
    {},
)
CROSS_ENTROPY = losses.softmax_cross_entropy
TRAINING = {"loss": CROSS_ENTROPY, "optimizer": SGD, "epochs": 1}
SCORES, LABELS = jnp.asarray(np.eye(3) + 0.1, jnp.float32), jnp.arange(3)
BINARY = measured(ones(4) * jnp.array([1.0, -1.0, 2.0, -2.0]), jnp.array([1, 0, 0, 1]))
CLASSES = measured(SCORES, LABELS)
NUMBERS = measured(ones(4), jnp.arange(4.0))
SEQUENCE = ones((2, 3, 4))


def loss_function(params, state, batch, key):
    """A whole loss function."""
    x, y = batch
    return jnp.mean(CROSS_ENTROPY(MODEL.apply(params, {}, x)[0], y)), (state, {})


def decoder():
    """A cell over tokens."""
    return nn.autoregressive(nn.serial(nn.embedding(5, 4), nn.dense(5)))


def trained(run):
    """Train by what training_run returns."""
    return run(key(), DATA)


def step_taken(step):
    """Take a step by what train_step returns."""
    return step(nn.train_state(PARAMS, {}, SGD, key()), DATA)


f = nn.functional
HEADS = ones((1, 3, 2, 4))
IMAGE = ones((2, 4, 4, 3))
NORM = nn.batch_norm()
FROZEN_PARAMS, FROZEN_STATE = nn.frozen(MODEL).init(key(), X)

BY_HAND = {
    "callbacks.csv_log": ({"path": "log.csv"}, nothing),
    "callbacks.json_log": ({"path": "log.jsonl"}, nothing),
    "callbacks.profile": ({"directory": "traces", "start": 1, "stop": 3}, nothing),
    "callbacks.tensorboard_log": ({"directory": "logs", "histograms": ["*"]}, nothing),
    "functional.alibi_slopes": ({"num_heads": 4}, nothing),
    **{
        f"functional.{name}": ({"key": key(), "x": ones((2, 4, 3)), number: 0.5}, nothing)
        for name, number in (
            ("alpha_dropout", "rate"),
            ("dropout", "rate"),
            ("gaussian_dropout", "rate"),
            ("gaussian_noise", "stddev"),
            ("spatial_dropout", "rate"),
            ("stochastic_depth", "rate"),
        )
    },
    "functional.center_crop": ({"x": IMAGE, "size": 3}, nothing),
    **{
        f"functional.{name}": ({"key": key(), "x": IMAGE} | amount, nothing)
        for name, amount in {
            "cutout": {"size": 3},
            "mixup": {"y": IMAGE},
            "random_crop": {"size": 3},
            "random_flip": {"rate": 0.4},
            "random_masking": {"max_width": 2},
            "random_shift": {"distance": 1},
        }.items()
    },
    "functional.causal_mask": ({"query_length": 3}, nothing),
    "functional.combine_masks": ({"masks": (jnp.array([True]), jnp.array([False]))}, nothing),
    "functional.dot_product_attention": ({"query": HEADS, "key": HEADS, "value": HEADS}, nothing),
    "functional.linear_attention": ({"query": HEADS, "key": HEADS, "value": HEADS}, nothing),
    "deferred": ({"layer": MODEL}, applied(X)),
    "functional.einsum": (
        {"equation": "bi,io->bo", "x": ones((2, 3)), "kernel": ones((3, 4))},
        nothing,
    ),
    "functional.group_norm": ({"x": ones((2, 4)), "num_groups": 2}, nothing),
    "functional.local_mask": ({"query_length": 3, "window": 1}, nothing),
    "functional.mixture_of_experts": (
        {"x": ones((4, 3)), "logits": ones((4, 2)), "experts": lambda x: x, "top_k": 1},
        nothing,
    ),
    "functional.nearest_code": ({"x": ones((2, 3)), "codes": ones((4, 3))}, nothing),
    "functional.padding_mask": ({"lengths": jnp.array([1, 2]), "key_length": 3}, nothing),
    "functional.segment_mask": ({"query_segment_ids": jnp.array([[0, 1]])}, nothing),
    "functional.segment_max": (
        {"x": ones(3), "segment_ids": jnp.array([0, 1, 1]), "num_segments": 2},
        nothing,
    ),
    "functional.segment_mean": (
        {"x": ones(3), "segment_ids": jnp.array([0, 1, 1]), "num_segments": 2},
        nothing,
    ),
    "functional.segment_softmax": (
        {"logits": ones(3), "segment_ids": jnp.array([0, 1, 1]), "num_segments": 2},
        nothing,
    ),
    "functional.segment_sum": (
        {"x": ones(3), "segment_ids": jnp.array([0, 1, 1]), "num_segments": 2},
        nothing,
    ),
    "functional.sinusoidal": ({"positions": jnp.arange(3), "features": 4}, nothing),
    "initializers.calculate_gain": ({"nonlinearity": "relu"}, nothing),
    "initializers.dirac": ({}, drawn((3, 3, 4, 4))),
    "initializers.identity": ({}, drawn((4, 4))),
    "initializers.sparse": ({"sparsity": 0.5}, drawn((4, 4))),
    "initializers.torch_uniform": ({}, drawn((4, 4))),
    "pack": ({"sequences": [[1, 2], [3]], "length": 4}, nothing),
    "bucket_by_length": ({"lengths": [1, 2], "sizes": 4, "batch_size": 2}, nothing),
    "pad_to": ({"batch": [[1, 2], [3, 4]], "sizes": 4}, nothing),
    "parameter": ({"shape": (2,)}, applied(X)),
    **{
        name: ({"factor": 2.0, "original_length": 64}, lambda s: positioned(nn.rotary(scaling=s)))
        for name in ("yarn_scaling", "llama3_scaling")
    },
    "load_partial": ({"path": "saved.safetensors", "like": PARAMS}, nothing),
    "checkpoints": ({"directory": "runs"}, nothing),
    "schedules.join_schedules": (
        {"schedules": [lambda count: 0.1, lambda count: 0.2], "boundaries": [2]},
        scheduled,
    ),
    "optimizers.map_params": (
        {
            "optimizer": ADAM,
            "function": lambda leaf, other: leaf,
            "state": ADAM.init(PARAMS),
            "trees": (PARAMS,),
        },
        nothing,
    ),
    "losses.ignoring": ({"loss": CROSS_ENTROPY, "label": 0}, lambda loss: loss(SCORES, LABELS)),
    "metrics.accuracy": ({}, CLASSES),
    "metrics.average_precision": ({}, BINARY),
    "metrics.confusion_matrix": ({"classes": 3}, CLASSES),
    "metrics.expected_calibration_error": ({}, BINARY),
    "metrics.explained_variance": ({}, NUMBERS),
    "metrics.f1": ({"classes": 3}, CLASSES),
    "metrics.iou": ({"classes": 3}, CLASSES),
    "metrics.log_loss": ({}, BINARY),
    "metrics.matthews_correlation": ({"classes": 3}, CLASSES),
    "metrics.mean": ({"function": CROSS_ENTROPY}, CLASSES),
    "metrics.mean_absolute_error": ({}, NUMBERS),
    "metrics.mean_absolute_percentage_error": ({}, NUMBERS),
    "metrics.mean_reciprocal_rank": ({}, CLASSES),
    "metrics.mean_squared_error": ({}, NUMBERS),
    "metrics.merge": (
        {"accumulators": [metrics.accuracy().init()] * 2},
        nothing,
    ),
    "metrics.merge_all": (
        {"stacked": jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), metrics.accuracy().init())},
        nothing,
    ),
    "metrics.ndcg": ({}, CLASSES),
    "metrics.pearson_correlation": ({}, NUMBERS),
    "metrics.perplexity": ({}, CLASSES),
    "metrics.precision": ({"classes": 3}, CLASSES),
    "metrics.psnr": ({}, NUMBERS),
    "metrics.r2_score": ({}, NUMBERS),
    "metrics.recall": ({"classes": 3}, CLASSES),
    "metrics.recall_at_k": ({"k": 2}, CLASSES),
    "metrics.roc_auc": ({}, BINARY),
    "metrics.root_mean_squared_error": ({}, NUMBERS),
    "metrics.top_k_accuracy": ({"k": 2}, CLASSES),
    "metrics.whole_set": ({"function": lambda p, t, w: jnp.mean(w)}, NUMBERS),
    "regularizers.elastic_net": ({"l1_strength": 0.1, "l2_strength": 0.1}, penalised),
    "regularizers.l1": ({"strength": 0.1}, penalised),
    "regularizers.l2": ({"strength": 0.1}, penalised),
    "activations.gumbel_softmax": ({"key": key(), "logits": ones((2, 3))}, nothing),
    "alibi": ({}, positioned),
    "rotary": ({}, positioned),
    "autoregressive": (
        {"layer": nn.serial(nn.embedding(5, 4), nn.dense(5))},
        lambda cell: applied(jnp.array([[1, 2]]))(nn.recurrent(cell)),
    ),
    "conv_lstm_cell": (
        {"features": 2, "kernel_size": (3, 3), "spatial_shape": (4, 4)},
        stepped(ones((1, 2, 4, 4, 3))),
    ),
    "gru_cell": ({"features": 3}, stepped(SEQUENCE)),
    "lstm_cell": ({"features": 3}, stepped(SEQUENCE)),
    "lru_cell": ({"hidden_features": 3}, stepped(SEQUENCE)),
    "rnn_cell": ({"features": 3}, stepped(SEQUENCE)),
    "stacked_cell": ({"cells": (nn.gru_cell(3), nn.gru_cell(2))}, stepped(SEQUENCE)),
    "early_stopping": (
        {},
        lambda stop: nn.fit(
            MODEL,
            DATA,
            key=key(),
            progress=False,
            validation=DATA,
            early_stopping=stop,
            **TRAINING,
        ),
    ),
    "evaluate": (
        {"model": MODEL, "params": PARAMS, "state": {}, "data": DATA, "loss": CROSS_ENTROPY},
        nothing,
    ),
    "fit": (
        {"model": MODEL, "data": DATA, "key": key(), "progress": False, **TRAINING},
        nothing,
    ),
    "freeze_params": ({"params": PARAMS, "state": {}}, nothing),
    "unfreeze_params": ({"params": FROZEN_PARAMS, "state": FROZEN_STATE}, nothing),
    "beam_search": (
        {
            "cell": decoder(),
            "params": decoder().init(key(), jnp.int32(0)),
            "prompt": jnp.array([[1, 2]]),
            "length": 2,
            "num_beams": 2,
        },
        nothing,
    ),
    "generate": (
        {
            "cell": decoder(),
            "params": decoder().init(key(), jnp.int32(0)),
            "prompt": jnp.array([[1, 2]]),
            "length": 2,
            "key": key(),
        },
        nothing,
    ),
    "stream": (
        {
            "cell": decoder(),
            "params": decoder().init(key(), jnp.int32(0)),
            "prompt": jnp.array([[1, 2]]),
            "length": 2,
            "key": key(),
        },
        list,
    ),
    "sampling": ({}, nothing),
    "load": ({"path": "saved.safetensors"}, nothing),
    "save": ({"path": "new.safetensors", "tree": PARAMS}, nothing),
    "saved_metadata": ({"path": "saved.safetensors"}, nothing),
    "export": (
        {"path": "model.jax", "model": MODEL, "params": PARAMS, "x": X, "platforms": ("cpu",)},
        nothing,
    ),
    "fsdp": ({}, nothing),
    "sharding": ({}, nothing),
    "export_params": ({"path": "exported", "params": PARAMS, "names": {"": "fc"}}, nothing),
    "import_params": (
        {"path": "imported", "like": PARAMS, "names": {"": "fc"}},
        nothing,
    ),
    "export_lora": (
        {"path": "exported", "params": ADAPTED, "names": {"": "fc"}},
        nothing,
    ),
    "import_lora": ({"path": "adapter", "params": PARAMS, "names": {"": "fc"}}, nothing),
    "log_uniform": ({"low": 0.1, "high": 1.0}, lambda draw: draw(key(), (3,))),
    "merge_lora": (
        {"params": ADAPTED},
        nothing,
    ),
    "quantize_params": ({"params": PARAMS}, nothing),
    "dequantize_params": (
        dict(zip(("params", "state"), nn.quantize_params(PARAMS), strict=True)),
        nothing,
    ),
    "quantized": ({"layer": MODEL}, applied(X)),
    "quantization_aware": ({"layer": MODEL}, applied(X)),
    "compose": ({"forward": lambda f, x: f.first(x), "children": {"first": MODEL}}, applied(X)),
    "mixed_precision": ({"layer": MODEL}, applied(X)),
    "pinned": ({"layer": MODEL, "spec": jax.sharding.PartitionSpec()}, nothing),
    "capture": ({"layer": MODEL, "params": PARAMS, "state": {}, "x": X}, nothing),
    "predict": ({"model": MODEL, "params": PARAMS, "state": {}, "x": X}, nothing),
    "predict_with_spread": (
        {
            "model": nn.ensemble(MODEL, 2),
            "params": jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS),
            "state": {},
            "x": X,
        },
        nothing,
    ),
    "predict_averaged": (
        {
            "model": MODEL,
            "params": PARAMS,
            "state": {},
            "x": X,
            "key": key(),
            "samples": 2,
            "train": True,
        },
        nothing,
    ),
    "update_batch_norm": (
        dict(zip(("params", "state"), NORM.init(key(), X), strict=True)) | {"model": NORM, "x": X},
        nothing,
    ),
    "cross_validate": (
        {"train": nn.training_run(MODEL, **TRAINING), "key": key(), "data": DATA, "folds": 2},
        nothing,
    ),
    "split": ({"data": DATA, "size": 1, "key": key()}, nothing),
    "balanced_weights": ({"labels": LABELS}, nothing),
    "temperature_scaling": ({"logits": SCORES, "labels": LABELS}, nothing),
    "stateless": ({"layer": MODEL}, lambda apply: apply(PARAMS, X)),
    "summary": ({"layer": MODEL, "x": X}, nothing),
    "diagnose": (
        {
            **{"model": MODEL, "data": DATA, "loss": CROSS_ENTROPY, "key": key()},
            **{"optimizer": SGD, "batch_size": 2, "steps": 1},
        },
        nothing,
    ),
    "diagnose_history": ({"history": {"loss": [1.0, 0.5]}}, nothing),
    "plot.learning_curves": ({"history": {"loss": [1.0, 0.5]}}, nothing),
    "plot.layers_over_depth": ({"diagnosis": DIAGNOSIS}, nothing),
    "plot.layers_over_time": ({"history": {"a/b": [1.0, 0.5]}, "kind": "a"}, nothing),
    "plot.rate_range": ({"diagnosis": DIAGNOSIS}, nothing),
    "plot.confusion_matrix": ({"matrix": ones((2, 2))}, nothing),
    "plot.roc": ({"scores": ones(2), "labels": jnp.arange(2)}, nothing),
    "plot.calibration": ({"probabilities": ones(2), "labels": jnp.arange(2)}, nothing),
    "plot.histograms": ({"values": {"a": ones(3)}}, nothing),
    "plot.embedding": ({"vectors": jnp.eye(3)}, nothing),
    "plot.attention_maps": ({"weights": ones((2, 3, 3))}, nothing),
    "plot.sweep": ({"result": SWEPT}, nothing),
    "plot.predictions": ({"x": ones(3), "mean": ones(3)}, nothing),
    "plot.predicted_against_true": ({"targets": ones(3), "predictions": ones(3)}, nothing),
    "plot.filters": ({"kernel": ones((3, 3, 1, 2))}, nothing),
    "sweep": (
        {
            "train": nn.training_run(
                MODEL, loss=CROSS_ENTROPY, epochs=1, optimizer=lambda h: optimizers.sgd(h["rate"])
            ),
            "key": key(),
            "grid": {"rate": [0.1]},
            "data": DATA,
            "progress": False,
        },
        nothing,
    ),
    "train_state": (
        {"params": PARAMS, "state": {}, "optimizer": SGD, "key": key()},
        nothing,
    ),
    "train_step": ({"loss_fn": loss_function, "optimizer": SGD}, step_taken),
    "training_run": ({"model": MODEL, **TRAINING}, trained),
}

OPTIMIZER_ARGUMENTS = {
    **dict.fromkeys(("learning_rate", "weight_decay", "clipping", "step_size"), 0.1),
    **dict.fromkeys(("eta", "gamma"), 0.1),
    **dict.fromkeys(("optimizer", "inner", "fast_optimizer", "base_optimizer"), SGD),
    **dict.fromkeys(("every", "max_consecutive_errors", "sync_period"), 2),
    **dict.fromkeys(("max_delta", "threshold", "max_norm"), 1.0),
    "key": key(),
    "decay": 0.9,
    "inner_factory": optimizers.sgd,
    "slow_step_size": 0.5,
    "mask": {"kernel": True},
    "step_size_fn": lambda count: 0.1,
    "max_linesearch_steps": 3,
    "transforms": {"*": SGD},
    "max_backtracking_steps": 3,
    "projection": optimizers.projection_simplex,
    "transformations": (SGD, optimizers.scale(1.0)),
}
AVERAGING = optimizers.schedule_free_sgd(0.1).init(PARAMS)
FUNCTIONS_OF_OPTIMIZERS = {
    "apply_updates": {"params": PARAMS, "updates": PARAMS},
    "evaluation_params": {
        "opt_state": AVERAGING,
        "params": PARAMS,
    },
    "get_state": {"state": AVERAGING, "name": "z"},
    "global_norm": {"tree": PARAMS},
    "incremental_update": {"new_tensors": PARAMS, "old_tensors": PARAMS, "step_size": 0.5},
    "periodic_update": {
        "new_tensors": PARAMS,
        "old_tensors": PARAMS,
        "steps": 3,
        "update_period": 2,
    },
    "projection_box": {"tree": PARAMS, "lower": 0.0, "upper": 1.0},
    **{
        f"projection_{name}": {"tree": PARAMS}
        for name in ("l1_ball", "l2_ball", "linf_ball", "non_negative", "simplex")
    },
    "set_state": {"state": AVERAGING, "name": "z", "value": PARAMS},
    "skip_large_updates": {
        "updates": PARAMS,
        "gradient_step": jnp.int32(0),
        "params": PARAMS,
        "max_squared_norm": 2.0,
    },
    "loss_scale": {"opt_state": optimizers.dynamic_loss_scale(SGD).init(PARAMS)},
    "schedule_free_eval_params": {
        "state": AVERAGING,
        "params": PARAMS,
    },
    "skip_not_finite": {"updates": PARAMS, "gradient_step": jnp.int32(0), "params": PARAMS},
    "unitwise_norm": {"x": ones((2, 3))},
    "value_and_grad_from_state": {"value_fn": lambda p: jnp.sum(p["kernel"])},
}


def calls_of_optimizers():
    """Those of optimizers and schedules."""
    for name, function in PUBLIC.items():
        if not name.startswith("optimizers.") or not inspect.isfunction(function):
            continue
        short = name.partition(".")[2]
        if short in FUNCTIONS_OF_OPTIMIZERS:
            yield Call(name, FUNCTIONS_OF_OPTIMIZERS[short], nothing)
            continue
        if short == "named_chain":
            yield Call(name, {"transformations": [("sgd", SGD)]}, optimized)
            continue
        needed = [
            p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty
        ]
        yield Call(
            name, {n: OPTIMIZER_ARGUMENTS[n] for n in needed if n in OPTIMIZER_ARGUMENTS}, optimized
        )
    seen = set()
    for name, arguments in SCHEDULES:
        if name not in seen:
            seen.add(name)
            yield Call(f"schedules.{name}", arguments, scheduled)


def calls():
    """A valid call of each public callable by name."""
    rows = {call.name: call for call in (*calls_of_rows(), *calls_of_optimizers())}
    return rows | {name: Call(name, *rest) for name, rest in BY_HAND.items()}
