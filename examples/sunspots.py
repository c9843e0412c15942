"""A time series: how many sunspots there will be next year, and in the years after.

The number of sunspots of each year since 1700 comes with statsmodels. Its cycle of about 11 years
rises faster than it falls, which a linear autoregression cannot tell. Networks that see the last 12
years, twenty of them side by side, learn it; their mean is the forecast. As in the paper below, all
are fitted to the years up to 1920, and tested on 1921 to 1955; what they forecast is fed back to
them for a forecast of several years.

Weigend, Huberman and Rumelhart, Predicting the Future: A Connectionist Approach,
https://doi.org/10.1142/S0129065790000102
"""

import argparse
import time
from collections.abc import Callable

import jax
import numpy as np

import jaxnn as nn

try:
    from statsmodels.datasets import sunspots
except ImportError as error:
    raise SystemExit(f"{error}: this example needs statsmodels: pip install statsmodels") from error

LAGS, MEMBERS = 12, 20
MODEL = nn.mlp([8, 1], activation=nn.tanh)

Forecast = Callable[[np.ndarray], np.ndarray]  # of the next year, from windows (n, LAGS)


def load() -> tuple[np.ndarray, np.ndarray]:
    """The years, and the square roots of their numbers of sunspots, whose noise is even."""
    table = sunspots.load_pandas().data
    numbers = np.sqrt(table["SUNACTIVITY"].to_numpy(np.float32)) / 10
    return table["YEAR"].to_numpy(int), numbers


def windows(series: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The values from place `first` to before `last`, `(n, 1)`, and those before each of them."""
    places = np.arange(first, last)
    return series[places[:, None] + np.arange(-LAGS, 0)], series[places, None]


def network(training: tuple[np.ndarray, np.ndarray], epochs: int, seed: int) -> Forecast:
    """The mean forecast of networks that are trained side by side, each from its own start."""
    result = nn.fit(
        MODEL,
        training,
        loss=nn.losses.squared_error,
        optimizer=nn.optimizers.adamw(
            nn.schedules.cosine_decay_schedule(1e-2, epochs), weight_decay=0.1
        ),
        key=jax.random.key(seed),
        epochs=epochs,
        members=MEMBERS,
        progress=True,
    )
    ensemble = nn.ensemble(MODEL, MEMBERS)
    return lambda x: np.mean(nn.predict(ensemble, result.params, result.state, x), axis=0)[:, 0]


def autoregression(training: tuple[np.ndarray, np.ndarray]) -> Forecast:
    """The linear function of the same years with the least squared error."""
    x, y = training
    weights = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y[:, 0], rcond=None)[0]
    return lambda x: np.c_[x, np.ones(len(x))] @ weights


def errors(
    forecast: Forecast, series: np.ndarray, first: int, last: int, ahead: int
) -> list[float]:
    """The mean squared error so many years ahead, as a part of the variance of the series."""
    x, _ = windows(series, first, last - ahead + 1)
    found = []
    for years in range(ahead):
        y = forecast(x)
        off = y**2 - series[first + years : last - ahead + 1 + years] ** 2
        found.append(float(np.mean(off**2) / np.var(series**2)))
        x = np.c_[x[:, 1:], np.maximum(y, 0)].astype(np.float32)
    return found


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description="Forecast the number of sunspots.")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    years, series = load()
    first, last = np.searchsorted(years, [1921, 1956])
    training = windows(series, LAGS, first)
    began = time.perf_counter()
    forecasts = {
        "last year's number": lambda x: x[:, -1],
        "linear autoregression": autoregression(training),
        "networks": network(training, options.epochs, options.seed),
    }
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")
    print("Squared error from 1921 to 1955, as a part of the variance, 1, 2, 4 and 8 years ahead:")
    for name, forecast in forecasts.items():
        found = errors(forecast, series, first, last, 8)
        print(f"{name}: {'  '.join(f'{found[ahead - 1]:.3f}' for ahead in (1, 2, 4, 8))}")


if __name__ == "__main__":
    main()
