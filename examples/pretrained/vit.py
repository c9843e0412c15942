"""ViT: the model of a `config.json`, and where its parameters stand in the files."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxnn as nn

Config = dict[str, Any]

PROJECTIONS = ("query", "key", "value")


def model(config: Config) -> nn.Layer:
    """From images (batch, height, width, channels) to the features of the class token."""
    features, patch = config["hidden_size"], config["patch_size"]
    count = (config["image_size"] // patch) ** 2 + 1
    norm = nn.layer_norm(epsilon=config["layer_norm_eps"])
    block = nn.transformer_block(
        nn.attention(
            config["num_attention_heads"],
            use_bias={"out": True} | {name: bool(config["qkv_bias"]) for name in PROJECTIONS},
        ),
        nn.feed_forward(config["intermediate_size"], exact_gelu),
        norm=norm,
    )

    def forward(f: Any, images: jax.Array) -> jax.Array:
        patches = f.patches(images)
        batch = patches.shape[0]
        tokens = jnp.broadcast_to(f.token(), (batch, 1, features)).astype(patches.dtype)
        x = f.positions(jnp.concatenate([tokens, patches.reshape(batch, -1, features)], axis=1))
        y: jax.Array = f.norm(f.blocks(x))[:, 0]
        return y

    return nn.compose(
        forward,
        patches=nn.conv(features, (patch, patch), strides=patch, padding="VALID"),
        token=nn.parameter((1, 1, features)),
        positions=nn.learned_positions(count),
        blocks=nn.stack(block, config["num_hidden_layers"]),
        norm=norm,
    )


def exact_gelu(x: jax.Array) -> jax.Array:
    """Without the approximation by tanh."""
    return nn.gelu(x, approximate=False)


def names(config: Config) -> dict[str, Any]:
    """The arguments of `nn.import_params` and `nn.export_params`."""
    layer = "encoder.layer.*."
    return {
        "names": {
            "patches": "embeddings.patch_embeddings.projection",
            "token": "embeddings.cls_token",
            "positions/embedding": "embeddings.position_embeddings",
            "blocks/attention_norm": layer + "layernorm_before",
            "blocks/attention/query": layer + "attention.attention.query",
            "blocks/attention/key": layer + "attention.attention.key",
            "blocks/attention/value": layer + "attention.attention.value",
            "blocks/attention/out": layer + "attention.output.dense",
            "blocks/mlp_norm": layer + "layernorm_after",
            "blocks/mlp/hidden": layer + "intermediate.dense",
            "blocks/mlp/out": layer + "output.dense",
            "norm": "layernorm",
        },
        "convert": {"embeddings.position_embeddings": (lambda x: x[0], lambda x: x[None])},
    }
