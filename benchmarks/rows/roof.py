"""What the machine can do: nothing that follows is faster."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row

PRODUCT, STREAM = 2048, 1 << 25


def product_data(tiny: bool) -> Any:
    """The size of the square matrices."""
    return {"size": 64 if tiny else PRODUCT, "dtype": "float32"}


def narrow_data(tiny: bool) -> Any:
    """The same in bfloat16, larger: it is for a GPU."""
    return {"size": 64 if tiny else 4 * PRODUCT, "dtype": "bfloat16"}


def stream_data(tiny: bool) -> Any:
    """A vector of 128 MB."""
    return {"x": np.ones(1024 if tiny else STREAM, np.float32)}


ROWS = {
    "roof_product": Row(
        title=f"Roof: matrix product of {PRODUCT} x {PRODUCT} in float32",
        data=product_data,
        contestants={
            "XLA": Contestant("by_hand:product"),
            "torch": Contestant("with_torch:product"),
        },
        work=2e-9 * PRODUCT**3,
        unit="GFLOP/s",
    ),
    "roof_stream": Row(
        title="Roof: a vector of 128 MB updated in place, bytes read and written",
        data=stream_data,
        contestants={
            "XLA": Contestant("by_hand:stream"),
            "torch": Contestant("with_torch:stream"),
        },
        work=8e-9 * STREAM,
        unit="GB/s",
    ),
    "roof_bfloat16": Row(
        title=f"Roof: matrix product of {4 * PRODUCT} x {4 * PRODUCT} in bfloat16",
        data=narrow_data,
        contestants={
            "XLA": Contestant("by_hand:product"),
            "torch": Contestant("with_torch:product"),
        },
        tolerance=1e-2,
        work=2e-9 * (4 * PRODUCT) ** 3,
        unit="GFLOP/s",
        gpu_only=True,
    ),
}
