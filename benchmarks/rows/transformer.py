"""A decoder-only transformer: norm first, learned positions, GELU, no dropout."""

from typing import Any

import numpy as np

from benchmarks.row import Contestant, Row, on_huge_pages, torches
from benchmarks.rows.weights import dense, labels, norm, normal


def data_of(
    batch: int, time: int, width: int, heads: int, depth: int, vocabulary: int, dtype: str
) -> Any:
    """Weights, those of the blocks with an axis for the depth before the others; and tokens."""
    rng, deep = np.random.default_rng(0), (depth,)
    attention = {
        name: dense(rng, width, width, depth=deep) for name in ("query", "key", "value", "out")
    }
    mlp = {
        "hidden": dense(rng, width, 4 * width, depth=deep),
        "out": dense(rng, 4 * width, width, depth=deep),
    }
    tokens = labels(rng, vocabulary, batch, time + 1)
    return {
        "weights": {
            "embed": {"embedding": normal(rng, vocabulary, width, scale=0.5)},
            "positions": {"embedding": normal(rng, time, width, scale=0.5)},
            "blocks": {
                "attention": attention,
                "attention_norm": norm(width, deep),
                "mlp": mlp,
                "mlp_norm": norm(width, deep),
            },
            "norm": norm(width),
            "logits": dense(rng, width, vocabulary),
        },
        "heads": heads,
        "x": tokens[:, :-1],
        "y": tokens[:, 1:],
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "dtype": dtype,
    }


def data(tiny: bool) -> Any:
    """Four layers."""
    sizes = (2, 6, 8, 2, 2, 11) if tiny else (8, 256, 256, 8, 4, 256)
    return data_of(*sizes, dtype="float32")


ROWS = {
    "transformer": Row(
        title="Transformer, 4 layers, width 256, 8 heads, 8 x 256 of 256 tokens, AdamW, a step",
        data=data,
        contestants={
            "jaxnn, `nn.stack`": Contestant("with_jaxnn:transformer"),
            "jaxnn, layer by layer": Contestant("with_jaxnn:transformer_unrolled"),
            "flax linen + optax": Contestant("with_linen:transformer", 1.1),
            "equinox + optax": Contestant("with_equinox:transformer", 1.1),
            **torches("transformer", 1.1),
            **on_huge_pages("transformer"),
            "XLA, the matrix products of the blocks alone": Contestant("products:transformer"),
        },
        work=8 * 256,
        unit="tokens/s",
    )
}
