"""Tabular data: the prices of Californian houses, with embeddings of categories.

The data are the districts of the census of 1990, a row each: housing.csv of
https://github.com/ageron/handson-ml2. A table has numbers, some of them missing, and categories.
Numbers are standardised, and logarithms where they are spread over orders of magnitude; a category
becomes a vector that is trained, as the place does, which is one of 20 by 20 cells of the map. A
fifth of the districts is held out for the test, and a linear regression on the same numbers shows
what the network adds.

    python examples/housing.py housing.csv
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

BATCH_SIZE, CELLS = 256, 20
SPREAD = ["total_rooms", "total_bedrooms", "population", "households", "median_income"]


def load(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns, as numbers `(n, 13)` and categories `(n, 3)`, and the prices in dollars."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "ocean_proximity"]
    table = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    price = table.pop("median_house_value")

    is_missing = np.isnan(table["total_bedrooms"])
    typical = np.nanmedian(table["total_bedrooms"] / table["total_rooms"])
    table["total_bedrooms"][is_missing] = typical * table["total_rooms"][is_missing]
    people, homes = table["population"], table["households"]
    ratios = [table["total_rooms"] / homes, table["total_bedrooms"] / homes, people / homes]
    columns = [np.log(v) if name in SPREAD else v for name, v in table.items()]
    columns += [*map(np.log, ratios), is_missing.astype(float)]
    numbers = np.stack(columns, axis=1)
    numbers = (numbers - numbers.mean(0)) / numbers.std(0)

    _, coast = np.unique([row["ocean_proximity"] for row in rows], return_inverse=True)
    places = [table["longitude"], table["latitude"]]
    cells = [np.searchsorted(np.quantile(v, np.linspace(0, 1, CELLS + 1)[1:-1]), v) for v in places]
    categories = np.stack([coast, cells[0] * CELLS + cells[1]], axis=1)
    x = {"numbers": numbers.astype(np.float32), "categories": categories.astype(np.int32)}
    return x, price


def network(hidden: int = 256) -> nn.Layer:
    """From the columns to the logarithm of the price, standardised, `(batch,)`."""

    def forward(f: Any, x: dict[str, jax.Array]) -> Any:
        coast, cell = x["categories"][:, 0], x["categories"][:, 1]
        columns = jnp.concatenate([x["numbers"], f.coast(coast), f.cell(cell)], axis=-1)
        return f.body(columns)[:, 0]

    def block() -> nn.Layer:
        body = nn.serial(nn.layer_norm(), nn.dense(hidden), nn.relu, nn.dropout(0.1))
        return nn.residual(nn.serial(body, nn.dense(hidden)))

    return nn.compose(
        forward,
        coast=nn.embedding(5, 4),
        cell=nn.embedding(CELLS**2, 8),
        body=nn.serial(nn.dense(hidden), block(), block(), nn.layer_norm(), nn.dense(1)),
    )


def train(model: nn.Layer, training: Any, validation: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW on the absolute error, which the few very dear districts disturb less."""
    steps = epochs * (len(training[1]) // BATCH_SIZE)
    learning_rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    return nn.fit(
        model,
        training,
        loss=nn.losses.absolute_error,
        optimizer=nn.optimizers.adamw(learning_rate, weight_decay=1e-2),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        validation=validation,
        progress=True,
    )


def root_mean_square(errors: np.ndarray) -> float:
    """In the unit of the errors."""
    return float(np.sqrt(np.mean(errors**2)))


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description="Predict the prices of Californian houses.")
    parser.add_argument("data", type=Path, help="housing.csv")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    options = parser.parse_args()

    x, price = load(options.data)
    mean, deviation = np.log(price).mean(), np.log(price).std()
    y = ((np.log(price) - mean) / deviation).astype(np.float32)
    test_key, validation_key = jax.random.split(jax.random.key(options.seed))
    training, (x_test, y_test) = nn.split((x, y), 0.2, test_key)
    training, validation = nn.split(training, 0.1, validation_key)

    model = network()
    began = time.perf_counter()
    result = train(model, training, validation, options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    dollars = np.exp(mean + deviation * y_test.astype(float))
    columns = [
        np.c_[part["numbers"], np.ones(len(part["numbers"]))] for part in (training[0], x_test)
    ]
    line = np.linalg.lstsq(columns[0], training[1], rcond=None)[0]
    predicted = nn.predict(model, result.params, result.state, x_test)
    for name, values in [("linear regression", columns[1] @ line), ("network", predicted)]:
        error = root_mean_square(np.exp(mean + deviation * np.asarray(values, float)) - dollars)
        print(f"Test error of the {name}: ${error:,.0f} (root mean square)")


if __name__ == "__main__":
    main()
