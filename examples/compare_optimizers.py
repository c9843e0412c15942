"""All optimizers on one task: how fast, with which learning rate, at what cost in memory.

Each trains the same small network on scikit-learn's handwritten digits, from the same start, with
five learning rates at once: the runs are one program under `jax.vmap`. A rate falls to zero by a
cosine, and the best is the one with the least validation loss in the end. The program prints a
table and draws the curves of the training loss.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxnn as nn

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    raise SystemExit(
        f"{error}: this example needs more packages: pip install scikit-learn matplotlib"
    ) from error

O = nn.optimizers  # noqa: E741
MODEL = nn.serial(nn.dense(64), nn.relu, nn.dense(64), nn.relu, nn.dense(10))
BATCH_SIZE = 64
FACTORS = 10.0 ** np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # the rates tried, of a usual one


class Contender(NamedTuple):
    """An optimizer as a function of its learning rate, and a usual one."""

    make: Callable[[Any], Any]
    rate: float
    decays: bool = True  # whether the rate falls
    is_tuned: bool = True  # whether other rates are tried
    whole_set: bool = False  # a step for each pass over the data, for those that batches mislead


FAMILIES = {
    "Gradient descent": {
        "sgd": Contender(O.sgd, 0.3),
        "sgd, momentum": Contender(lambda rate: O.sgd(rate, 0.9), 0.1),
        "sgd, nesterov": Contender(lambda rate: O.sgd(rate, 0.9, nesterov=True), 0.1),
        "schedule_free_sgd": Contender(O.schedule_free_sgd, 1.0, decays=False),
        "sign_sgd": Contender(O.sign_sgd, 3e-3),
        "lion": Contender(O.lion, 1e-3),
    },
    "A rate for each element": {
        "adagrad": Contender(O.adagrad, 0.3),
        "adadelta": Contender(O.adadelta, 10.0),
        "rmsprop": Contender(O.rmsprop, 0.01),
        "adam": Contender(O.adam, 0.01),
        "adamw": Contender(lambda rate: O.adamw(rate, weight_decay=0.01), 0.01),
        "amsgrad": Contender(O.amsgrad, 0.01),
        "adamax": Contender(O.adamax, 0.02),
        "nadam": Contender(O.nadam, 0.01),
    },
    "Variants of Adam": {
        "radam": Contender(O.radam, 0.03),
        "adabelief": Contender(O.adabelief, 0.01),
        "yogi": Contender(O.yogi, 0.03),
        "adan": Contender(O.adan, 0.02),
        "adopt": Contender(O.adopt, 0.01),
        "ademamix": Contender(O.ademamix, 0.01),
        "schedule_free_adamw": Contender(O.schedule_free_adamw, 0.03, decays=False),
    },
    "Norms and matrices": {
        "lars": Contender(lambda rate: O.lars(rate, trust_coefficient=1.0), 0.01),
        "lamb": Contender(O.lamb, 0.01),
        "novograd": Contender(O.novograd, 0.01),
        "adafactor": Contender(lambda rate: O.adafactor(rate, min_dim_size_to_factor=32), 0.03),
        "soap": Contender(O.soap, 0.01),
        "muon": Contender(lambda rate: O.muon(rate, adam_learning_rate=0.01), 0.1),
    },
    "Curvature, and a rate found": {
        "sophia": Contender(O.sophia, 1e-3),
        "prodigy": Contender(O.prodigy, 1.0, is_tuned=False),
        "rprop": Contender(O.rprop, 0.01, decays=False, whole_set=True),
        "lbfgs": Contender(O.lbfgs, 1.0, decays=False, is_tuned=False, whole_set=True),
    },
}


class Result(NamedTuple):
    """How the best of the runs of an optimizer went."""

    bytes_per_parameter: float
    rate: float
    losses: np.ndarray  # of training, in each epoch
    accuracy: float


def load(seed: int) -> tuple[Any, Any]:
    """The pairs (images, labels) to train on, 1,280, and to validate with, 517."""
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)
    x, x_val, y, y_val = train_test_split(x, y, test_size=517, stratify=y, random_state=seed)
    return (x, y), (x_val, y_val)


def state_size(optimizer: Any, example: np.ndarray) -> float:
    """The bytes of an optimizer's state for each parameter of the network."""
    params, _ = jax.eval_shape(MODEL.init, jax.random.key(0), example)
    state = jax.eval_shape(optimizer.init, params)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return float(size / sum(leaf.size for leaf in jax.tree.leaves(params)))


def compete(contender: Contender, data: Any, validation: Any, epochs: int, seed: int) -> Result:
    """Train with all rates at once; the result is that of the best."""
    batch_size = len(data[0]) if contender.whole_set else BATCH_SIZE
    steps = epochs * len(data[0]) // batch_size

    def optimizer(rate: Any) -> Any:
        falling = nn.schedules.cosine_decay_schedule(rate, steps)
        return contender.make(falling if contender.decays else rate)

    train = nn.training_run(
        MODEL,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        metrics={"accuracy": nn.metrics.accuracy()},
    )
    factors = FACTORS if contender.is_tuned else np.ones(1)
    rates = (contender.rate * factors).astype(np.float32)
    run = jax.jit(jax.vmap(train, in_axes=(None, None, 0, None)))
    _, _, history = run(jax.random.key(seed), data, rates, validation)
    in_the_end = np.asarray(history["val_loss"])[:, -1]
    best = int(np.nan_to_num(in_the_end, nan=np.inf).argmin())
    return Result(
        state_size(optimizer(contender.rate), data[0]),
        float(rates[best]),
        np.asarray(history["loss"][best]),
        float(history["val_accuracy"][best, -1]),
    )


def table(results: dict[str, Result]) -> str:
    """The results as a table in Markdown, the least training loss first."""
    lines = [
        "| optimizer | state per parameter | best rate | training loss | validation accuracy |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, result in sorted(results.items(), key=lambda item: item[1].losses[-1]):
        lines.append(
            f"| {name} | {result.bytes_per_parameter:.1f} bytes | {result.rate:.2g} "
            f"| {result.losses[-1]:.4f} | {result.accuracy:.1%} |"
        )
    return "\n".join(lines)


def draw(results: dict[str, Result], epochs: int) -> Figure:
    """A panel for each family, with the curves of all others behind."""
    figure = Figure(figsize=(13, 8), dpi=80, layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    passes = np.arange(1, epochs + 1)
    for panel, (family, members) in zip(axes.flat, FAMILIES.items(), strict=False):
        for result in results.values():
            panel.plot(passes, result.losses, color="#d9dee3", lw=0.8)
        for i, name in enumerate(members):
            label = f"{name} ({results[name].rate:.2g})"
            style = "-" if i < 4 else "--"
            panel.plot(passes, results[name].losses, style, color=f"C{i}", lw=1.8, label=label)
        panel.set(title=family, yscale="log", ylim=(1e-4, 4))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(loc="lower left", frameon=False, fontsize=8)
    axes.flat[-1].set_axis_off()
    axes.flat[-1].text(
        0,
        0.9,
        "Training loss in each pass over the data,\n"
        "a network of 9,450 parameters on 1,280 images\n"
        "of handwritten digits, batches of 64.\n\n"
        "Of five learning rates that with the least\n"
        "validation loss, in brackets; prodigy and\n"
        "lbfgs find theirs.\n\n"
        "rprop and lbfgs take one step for each pass.",
        va="top",
    )
    figure.supxlabel("passes over the data")
    figure.supylabel("training loss")
    return figure


def main() -> None:
    """Let all compete, print the table and draw the picture."""
    parser = argparse.ArgumentParser(description="Compare all optimizers on one task.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    parser.add_argument("--out", default="optimizers.png", help="where the picture goes")
    options = parser.parse_args()

    data, validation = load(options.seed)
    began = time.perf_counter()
    results = {}
    for members in FAMILIES.values():
        for name, contender in members.items():
            results[name] = compete(contender, data, validation, options.epochs, options.seed)
    print(table(results))
    draw(results, options.epochs).savefig(options.out)
    print(f"\nTime: {time.perf_counter() - began:.0f} s. Picture: {options.out}")


if __name__ == "__main__":
    main()
