"""How long a deep network takes to compile: the time to the first step, in a fresh process."""

from typing import Any

from benchmarks.row import Contestant, Row
from benchmarks.rows import transformer


def data(tiny: bool) -> Any:
    """24 layers and few tokens, so that it is compilation that takes the time."""
    sizes = (2, 6, 8, 2, 2, 11) if tiny else (2, 64, 256, 8, 24, 256)
    return transformer.data_of(*sizes, dtype="float32")


ROWS = {
    "compile": Row(
        title="Transformer, 24 layers, width 256, 2 x 64 tokens, AdamW: the first step",
        data=data,
        contestants={
            "jaxnn, `nn.stack`": Contestant("with_jaxnn:transformer"),
            "flax linen + optax": Contestant("with_linen:transformer", 3),
            "flax linen, `nn.scan`": Contestant("with_linen:transformer_scanned"),
            "equinox + optax": Contestant("with_equinox:transformer", 3),
            "torch (compiles nothing)": Contestant("with_torch:transformer"),
        },
        cold=True,
    )
}
