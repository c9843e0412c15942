"""Handwritten digits: train a network, test it, and draw how it went.

The data are the 1,797 images of 8 by 8 pixels that come with scikit-learn. A fifth is held out for
the test and looked at once, at the end; validation, during training, has images of its own.
"""

import argparse
import functools
import time
from typing import Any

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

BATCH_SIZE = 64

MODEL = nn.serial(
    nn.dense(256, use_bias=False),
    nn.batch_norm(),
    nn.relu,
    nn.dropout(0.3),
    nn.dense(128),
    nn.relu,
    nn.dropout(0.3),
    nn.dense(10),
)
LOSS = functools.partial(nn.losses.softmax_cross_entropy, label_smoothing=0.1)


def load(seed: int) -> tuple[Any, Any, Any]:
    """The pairs (images, labels) to train on, 1,280, to validate with, 157, and to test with, 360.

    20 batches of 64 make 1,280: with no smaller batch left over, there is one step to compile.
    """
    digits = load_digits()
    x = (digits.data / 16).astype(np.float32)
    y = digits.target.astype(np.int32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=seed)
    x, x_val, y, y_val = train_test_split(x, y, test_size=157, stratify=y, random_state=seed)
    return (x, y), (x_val, y_val), (x_test, y_test)


def train(training: Any, validation: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW, its learning rate going up in a line and down in a cosine."""
    steps = epochs * len(training[0]) // BATCH_SIZE
    learning_rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 5e-3, steps // 10, steps)
    return nn.fit(
        MODEL,
        training,
        loss=LOSS,
        optimizer=nn.optimizers.adamw(learning_rate, weight_decay=1e-2),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        validation=validation,
        metrics={"accuracy": nn.metrics.accuracy()},
        progress=True,
    )


# The picture

RIGHT, WRONG, TRAINING, VALIDATION = "#3a3a3a", "#d1242f", "#8da0b3", "#0a69c7"


def draw(
    history: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, probs: np.ndarray
) -> Figure:
    """Learning curves above, images from the test with their predictions below."""
    figure = Figure(figsize=(10, 9), dpi=120, layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=[4, 5])
    loss_axes, accuracy_axes = figure.add_subfigure(grid[0]).subplots(1, 2)
    draw_curves(loss_axes, history["loss"], history["val_loss"])
    loss_axes.set(title="Cross-entropy with smoothed labels", xlabel="epoch", ylim=(0.4, 1.4))
    draw_curves(accuracy_axes, 100 * history["accuracy"], 100 * history["val_accuracy"])
    lowest = min(80, 100 * history["val_accuracy"][-1] - 10)
    accuracy_axes.set(title="Accuracy in %", xlabel="epoch", ylim=(lowest, 100.5))
    accuracy_axes.legend(loc="lower right", frameon=False)
    draw_predictions(figure.add_subfigure(grid[1]), images, labels, probs)
    return figure


def draw_curves(axes: Any, training: np.ndarray, validation: np.ndarray) -> None:
    """A curve for the training set, as seen in training, and one for the validation set."""
    epochs = np.arange(1, len(training) + 1)
    axes.plot(epochs, training, color=TRAINING, lw=2, label="training (with dropout)")
    axes.plot(epochs, validation, color=VALIDATION, lw=2, label="validation")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_predictions(
    figure: Any, images: np.ndarray, labels: np.ndarray, probs: np.ndarray
) -> None:
    """The mistakes first, in red, then as many right predictions as fill three rows."""
    predicted = probs.argmax(axis=-1)
    is_wrong = predicted != labels
    shown = np.argsort(~is_wrong, kind="stable")[:30]
    figure.suptitle(
        f"Test: {np.mean(~is_wrong):.1%} right, {is_wrong.sum()} of {len(labels)} wrong (red)"
    )
    for axes, i in zip(figure.subplots(3, 10).flat, shown, strict=True):
        color = WRONG if is_wrong[i] else RIGHT
        axes.imshow(images[i].reshape(8, 8), cmap="gray_r")
        text = f"{predicted[i]}, not {labels[i]}" if is_wrong[i] else f"{predicted[i]}"
        axes.set_title(f"{text}\n{probs[i].max():.0%} sure", color=color, fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=color, linewidth=2 if is_wrong[i] else 0.5)


def main() -> None:
    """Train, test and draw."""
    parser = argparse.ArgumentParser(description="Train a network on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    parser.add_argument("--output", default="digits.png", help="where the picture goes")
    options = parser.parse_args()

    training, validation, (images, labels) = load(options.seed)
    began = time.perf_counter()
    result = train(training, validation, options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    logits = nn.predict(MODEL, result.params, result.state, images)
    probs = np.asarray(nn.softmax(logits))
    print(f"Test accuracy: {np.mean(probs.argmax(axis=-1) == labels):.2%}")

    draw(result.history, images, labels, probs).savefig(options.output)
    print(f"Picture: {options.output}")


if __name__ == "__main__":
    main()
