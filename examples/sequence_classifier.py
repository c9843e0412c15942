"""Handwritten digits, read row by row: classify sequences with an LSTM or a GRU.

Each image of scikit-learn's digits, 8 by 8 pixels, is a sequence of 8 steps with 8 features. The
network reads it from top to bottom and from bottom to top, and says which digit it was. It is
trained on each image twice, once without some of its lower rows: sequences of different lengths,
from which it learns to guess. So the test is made with all rows and with fewer.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxnn as nn

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    raise SystemExit(
        f"{error}: this example needs scikit-learn: pip install scikit-learn"
    ) from error

BATCH_SIZE = 64
CELLS: dict[str, Callable[[int], nn.Cell]] = {"lstm": nn.lstm_cell, "gru": nn.gru_cell}


def make_model(cell: str, features: int = 64) -> nn.Layer:
    """From sequences, and their lengths beside them, to the logits of ten digits."""

    def forward(f: Any, x: Any) -> Any:
        return f.out(f.drop(f.rnn(x["rows"], lengths=x["lengths"])))

    return nn.compose(
        forward,
        rnn=nn.bidirectional(CELLS[cell](features), last=True),
        drop=nn.dropout(0.2),
        out=nn.dense(10),
    )


def load(seed: int) -> tuple[Any, Any]:
    """The pairs (sequences, labels) to train on, 2,816, and to test with, 389."""
    digits = load_digits()
    rows = (digits.images / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    rows, rows_test, labels, labels_test = train_test_split(
        rows, labels, test_size=389, stratify=labels, random_state=seed
    )
    shortened = np.random.default_rng(seed).integers(3, 8, len(rows))
    lengths = np.concatenate([np.full(len(rows), 8), shortened])
    twice = sequences(np.concatenate([rows, rows]), lengths)
    return (twice, np.concatenate([labels, labels])), (sequences(rows_test, 8), labels_test)


def sequences(rows: np.ndarray, lengths: Any) -> dict[str, np.ndarray]:
    """The first rows of each image; what comes after is padding, which the network does not see."""
    return {"rows": rows, "lengths": np.full(len(rows), lengths, np.int32)}


def train(model: nn.Layer, training: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW, its learning rate going up in a line and down in a cosine."""
    steps = epochs * len(training[1]) // BATCH_SIZE
    learning_rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 5e-3, steps // 10, steps)
    return nn.fit(
        model,
        training,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=nn.optimizers.adamw(learning_rate, weight_decay=1e-2),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        metrics={"accuracy": nn.metrics.accuracy()},
        progress=True,
    )


def accuracy(model: nn.Layer, result: nn.FitResult, x: Any, labels: np.ndarray) -> float:
    """The fraction of sequences whose most likely digit is the right one."""
    logits = nn.predict(model, result.params, result.state, x)
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description="Train a recurrent network on handwritten digits.")
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    options = parser.parse_args()

    training, (x, labels) = load(options.seed)
    model = make_model(options.cell)
    began = time.perf_counter()
    result = train(model, training, options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    print(f"Test accuracy: {accuracy(model, result, x, labels):.2%}")
    for length in (7, 6, 5, 4):
        shorter = sequences(x["rows"], length)
        print(f"With {length} of 8 rows: {accuracy(model, result, shorter, labels):.2%}")


if __name__ == "__main__":
    main()
