"""GPT-2: the model of a `config.json`, and where its parameters stand in the files."""

from typing import Any

import jax

import jaxnn as nn

Config = dict[str, Any]


def model(config: Config, *, cache_length: int | None = None) -> nn.Layer:
    """From tokens (batch, time) to logits (batch, time, vocabulary)."""
    norm = nn.layer_norm(epsilon=config.get("layer_norm_epsilon", 1e-5))
    features = config["n_embd"]
    block = nn.transformer_block(
        nn.attention(config["n_head"], is_causal=True, cache_length=cache_length),
        nn.feed_forward(config.get("n_inner") or 4 * features, nn.gelu),
        norm=norm,
    )

    def forward(f: Any, tokens: jax.Array) -> jax.Array:
        x = f.norm(f.blocks(f.positions(f.embed(tokens))))
        logits: jax.Array = f.embed(x, attend=True)
        return logits

    return nn.compose(
        forward,
        embed=nn.embedding(config["vocab_size"], features),
        positions=nn.learned_positions(config["n_positions"], cached=cache_length is not None),
        blocks=nn.stack(block, config["n_layer"]),
        norm=norm,
    )


def names(config: Config) -> dict[str, Any]:
    """The arguments of `nn.import_params` and `nn.export_params`."""
    layer = "transformer.h.*."
    return {
        "names": {
            "embed": "transformer.wte",
            "positions": "transformer.wpe",
            "blocks/attention_norm": layer + "ln_1",
            "blocks/attention/{query,key,value}": layer + "attn.c_attn",
            "blocks/attention/out": layer + "attn.c_proj",
            "blocks/mlp_norm": layer + "ln_2",
            "blocks/mlp/hidden": layer + "mlp.c_fc",
            "blocks/mlp/out": layer + "mlp.c_proj",
            "norm": "transformer.ln_f",
        },
        "convert": {"*.c_*.weight": None},  # these kernels lie as ours do
    }
