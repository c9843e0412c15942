"""Gemma 2 and 3 (text): the model of a `config.json`, and its names in the files."""

import math
from typing import Any

import jax
import jax.numpy as jnp

import jaxnn as nn

Config = dict[str, Any]


def model(config: Config, *, cache_length: int | None = None) -> nn.Layer:
    """From tokens (batch, time) to logits (batch, time, vocabulary).

    Layers alternate: some with a sliding window, then one that attends to everything. A stack has
    whole periods of them; what is left over follows.
    """
    kinds = config["layer_types"]
    period = kinds.index("full_attention") + 1
    depth, left = divmod(len(kinds), period)
    children = {
        "embed": nn.embedding(config["vocab_size"], config["hidden_size"]),
        "norm": norm(config),
        "periods": nn.stack(
            nn.serial(
                local=nn.stack(block(config, "sliding_attention", cache_length), period - 1),
                full=block(config, "full_attention", cache_length),
            ),
            depth,
        ),
    }
    if left:
        children["last"] = nn.stack(block(config, "sliding_attention", cache_length), left)

    def forward(f: Any, tokens: jax.Array) -> jax.Array:
        x = f.embed(tokens)
        x = f.periods(x * jnp.asarray(math.sqrt(config["hidden_size"]), x.dtype))
        logits: jax.Array = f.embed(f.norm(f.last(x) if left else x), attend=True)
        cap = config.get("final_logit_softcapping")
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    return nn.compose(forward, **children)


def norm(config: Config) -> nn.Layer:
    """Its factor is one more than its scale."""
    return nn.rms_norm(epsilon=config["rms_norm_eps"], scale_offset=1.0)


def block(config: Config, kind: str, cache_length: int | None) -> nn.Layer:
    """Attention and a gated network, each with a norm before and after."""
    is_local = kind == "sliding_attention"
    is_third = config["model_type"] != "gemma2"
    rope = config["rope_parameters"]
    rope = rope[kind] if is_third else rope
    factor = rope.get("factor", 1.0)
    attention = nn.attention(
        config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        is_causal=True,
        window=(config["sliding_window"] - 1, 0) if is_local else None,
        positions=nn.rotary(
            base=rope["rope_theta"],
            scaling=None if factor == 1 else lambda frequencies: frequencies / factor,
        ),
        qk_norm=norm(config) if is_third else None,
        scale=config["query_pre_attn_scalar"] ** -0.5,
        soft_cap=config.get("attn_logit_softcapping"),
        use_bias=config.get("attention_bias", False),
        cache_length=cache_length,
    )
    network = nn.feed_forward(2 * config["intermediate_size"], nn.geglu, use_bias=False)
    return nn.transformer_block(
        nn.serial(main=attention, norm=norm(config)),
        nn.serial(main=network, norm=norm(config)),
        norm=norm(config),
    )


def names(config: Config) -> dict[str, Any]:
    """The arguments of `nn.import_params` and `nn.export_params`."""
    period = config["layer_types"].index("full_attention") + 1
    whole = len(config["layer_types"]) // period * period
    places = {
        "periods/local": f"{{{period}*i+j}}",
        "periods/full": f"{{{period}*i+{period - 1}}}",
        "last": f"{{{whole}+i}}",
    }
    modules: dict[str, Any] = {
        "attention_norm": "input_layernorm",
        "attention/main/query": "self_attn.q_proj",
        "attention/main/key": "self_attn.k_proj",
        "attention/main/value": "self_attn.v_proj",
        "attention/main/out": "self_attn.o_proj",
        "attention/main/query_norm": "self_attn.q_norm",
        "attention/main/key_norm": "self_attn.k_norm",
        "attention/norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp/main/hidden": ("mlp.up_proj", "mlp.gate_proj"),
        "mlp/main/out": "mlp.down_proj",
        "mlp/norm": "post_feedforward_layernorm",
    }
    table: dict[str, Any] = {"embed": "model.embed_tokens", "norm": "model.norm"}
    for here, place in places.items():
        for module, name in modules.items():
            layer = f"model.layers.{place}."
            several = not isinstance(name, str)
            table[f"{here}/{module}"] = tuple(layer + n for n in name) if several else layer + name
    return {"names": table}
