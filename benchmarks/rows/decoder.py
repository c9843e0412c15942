"""A decoder with a hundred million parameters, for a GPU."""

from typing import Any

from benchmarks.row import Contestant, Row
from benchmarks.rows import transformer

BATCH, TIME, WIDTH, HEADS, DEPTH, VOCABULARY = 16, 1024, 768, 12, 12, 16384
TOKENS = BATCH * TIME
# Six operations for each token and weight in a product, and those of attention, all of it computed.
MULTIPLIED = DEPTH * 12 * WIDTH**2 + WIDTH * VOCABULARY
GFLOP = 6e-9 * TOKENS * (MULTIPLIED + DEPTH * 2 * TIME * WIDTH)


def data(tiny: bool) -> Any:
    """Weights in float32, for computing in bfloat16."""
    sizes = (2, 6, 8, 2, 2, 11) if tiny else (BATCH, TIME, WIDTH, HEADS, DEPTH, VOCABULARY)
    return transformer.data_of(*sizes, dtype="bfloat16")


ROWS = {
    "decoder100m": Row(
        title=f"Decoder, 110M parameters, bfloat16, a step of AdamW on {TOKENS} tokens",
        data=data,
        contestants={
            "jaxnn, `nn.stack`": Contestant("with_jaxnn:transformer"),
            "jaxnn, layer by layer": Contestant("with_jaxnn:transformer_unrolled"),
            "torch, autocast": Contestant("with_torch:transformer"),
        },
        tolerance=2e-2,
        work=GFLOP,
        unit="GFLOP/s",
        roof="roof_bfloat16",
        gpu_only=True,
    )
}
