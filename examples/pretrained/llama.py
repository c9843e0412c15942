"""The Llama line, Mixtral and Qwen: the model of a `config.json`, its names in the files."""

import math
from typing import Any

import jax

import jaxnn as nn

Config = dict[str, Any]


def model(config: Config, *, cache_length: int | None = None) -> nn.Layer:
    """From tokens (batch, time) to logits (batch, time, vocabulary)."""
    features, kind = config["hidden_size"], config["model_type"]
    num_heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or features // num_heads
    norm = nn.rms_norm(epsilon=config["rms_norm_eps"])
    positions, sharpness = rotary(config)
    has_bias = config.get("attention_bias", False)
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    block = nn.transformer_block(
        nn.attention(
            num_heads,
            num_kv_heads=config.get("num_key_value_heads") or num_heads,
            head_dim=head_dim,
            is_causal=True,
            window=None if window is None else (window - 1, 0),
            positions=positions,
            scale=sharpness / math.sqrt(head_dim),
            qk_norm=norm if kind == "qwen3" else None,
            use_bias=dict.fromkeys(("query", "key", "value"), True)
            if kind == "qwen2"
            else has_bias,
            cache_length=cache_length,
        ),
        network(config),
        norm=norm,
    )

    def tied(f: Any, tokens: jax.Array) -> jax.Array:
        logits: jax.Array = f.embed(f.norm(f.blocks(f.embed(tokens))), attend=True)
        return logits

    children = {
        "embed": nn.embedding(config["vocab_size"], features),
        "blocks": nn.stack(block, config["num_hidden_layers"]),
        "norm": norm,
    }
    if config.get("tie_word_embeddings"):
        return nn.compose(tied, **children)
    return nn.serial(**children, head=nn.dense(config["vocab_size"], use_bias=False))


def network(config: Config) -> nn.Layer:
    """The gated network of a block, or several as a mixture of experts."""
    one = nn.feed_forward(
        2 * config["intermediate_size"], nn.swiglu, use_bias=config.get("mlp_bias", False)
    )
    if config["model_type"] != "mixtral":
        return one
    return nn.mixture_of_experts(
        one, config["num_local_experts"], top_k=config["num_experts_per_tok"]
    )


def rotary(config: Config) -> tuple[nn.Positions, float]:
    """The rotary encoding, and the factor by which attention is sharper."""
    options = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = options.get("rope_theta") or config.get("rope_theta", 10000.0)
    kind = options.get("rope_type", options.get("type", "default"))
    factor = options.get("factor", 1.0)
    length: int = (
        options.get("original_max_position_embeddings") or config["max_position_embeddings"]
    )
    if kind == "default":
        return nn.rotary(base=base), 1.0
    if kind == "linear":
        return nn.rotary(base=base, scaling=lambda frequencies: frequencies / factor), 1.0
    if kind == "llama3":
        scaling = nn.llama3_scaling(
            factor,
            original_length=length,
            low_frequency_factor=options["low_freq_factor"],
            high_frequency_factor=options["high_freq_factor"],
        )
        return nn.rotary(base=base, scaling=scaling), 1.0
    if kind == "yarn":
        scaling = nn.yarn_scaling(
            factor,
            original_length=length,
            beta_fast=options.get("beta_fast") or 32.0,
            beta_slow=options.get("beta_slow") or 1.0,
            truncate=options.get("truncate", True),
        )
        sharpness = options.get("attention_factor") or 0.1 * math.log(factor) + 1
        return nn.rotary(base=base, scaling=scaling), sharpness**2
    raise ValueError(f"rope_type is {kind!r}, expected 'default', 'linear', 'llama3' or 'yarn'")


def names(config: Config) -> dict[str, Any]:
    """The arguments of `nn.import_params` and `nn.export_params`."""
    layer = "model.layers.*."
    expert = layer + "block_sparse_moe.experts.*."
    return {
        "names": {
            "embed": "model.embed_tokens",
            "blocks/attention_norm": layer + "input_layernorm",
            "blocks/attention/query": layer + "self_attn.q_proj",
            "blocks/attention/key": layer + "self_attn.k_proj",
            "blocks/attention/value": layer + "self_attn.v_proj",
            "blocks/attention/out": layer + "self_attn.o_proj",
            "blocks/attention/query_norm": layer + "self_attn.q_norm",
            "blocks/attention/key_norm": layer + "self_attn.k_norm",
            "blocks/mlp_norm": layer + "post_attention_layernorm",
            "blocks/mlp/hidden": (layer + "mlp.up_proj", layer + "mlp.gate_proj"),
            "blocks/mlp/out": layer + "mlp.down_proj",
            "blocks/mlp/router": layer + "block_sparse_moe.gate",
            "blocks/mlp/experts/hidden": (expert + "w3", expert + "w1"),
            "blocks/mlp/experts/out": expert + "w2",
            "blocks/mlp/balance_loss": None,
            "norm": "model.norm",
            "head": "lm_head",
        }
    }
