"""BERT: the model of a `config.json`, and where its parameters stand in the files."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxnn as nn

Config = dict[str, Any]


def model(config: Config) -> nn.Layer:
    """From tokens (batch, time) to hidden states (batch, time, features).

    `apply` takes `kinds=`, the integers that tell first from second sentences, and `mask=`,
    booleans (batch, time), True where there is a token.
    """
    features = config["hidden_size"]
    norm = nn.layer_norm(epsilon=config["layer_norm_eps"])
    activation = {"gelu": exact_gelu, "relu": nn.relu}[config["hidden_act"]]
    block = nn.transformer_block(
        nn.attention(config["num_attention_heads"]),
        nn.feed_forward(config["intermediate_size"], activation),
        norm=norm,
        norm_first=False,
    )

    def forward(f: Any, tokens: jax.Array, *, kinds: Any = None, mask: Any = None) -> jax.Array:
        kinds = jnp.zeros_like(tokens) if kinds is None else kinds
        x = f.norm(f.positions(f.words(tokens) + f.kinds(kinds)))
        given = {} if mask is None else {"mask": jnp.asarray(mask)[:, None, None, :]}
        hidden: jax.Array = f.blocks(x, **given)
        return hidden

    return nn.compose(
        forward,
        words=nn.embedding(config["vocab_size"], features),
        kinds=nn.embedding(config["type_vocab_size"], features),
        positions=nn.learned_positions(config["max_position_embeddings"]),
        norm=norm,
        blocks=nn.stack(block, config["num_hidden_layers"]),
    )


def exact_gelu(x: jax.Array) -> jax.Array:
    """Without the approximation by tanh."""
    return nn.gelu(x, approximate=False)


def names(config: Config) -> dict[str, Any]:
    """The arguments of `nn.import_params` and `nn.export_params`."""
    layer = "encoder.layer.*."
    return {
        "names": {
            "words": "embeddings.word_embeddings",
            "kinds": "embeddings.token_type_embeddings",
            "positions": "embeddings.position_embeddings",
            "norm": "embeddings.LayerNorm",
            "blocks/attention/query": layer + "attention.self.query",
            "blocks/attention/key": layer + "attention.self.key",
            "blocks/attention/value": layer + "attention.self.value",
            "blocks/attention/out": layer + "attention.output.dense",
            "blocks/attention_norm": layer + "attention.output.LayerNorm",
            "blocks/mlp/hidden": layer + "intermediate.dense",
            "blocks/mlp/out": layer + "output.dense",
            "blocks/mlp_norm": layer + "output.LayerNorm",
        }
    }
