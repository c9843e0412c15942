"""Fine-tune a language model of Hugging Face on a text: all weights, or adapters of low rank.

The directory has config.json, *.safetensors and, for what is no bytes, tokenizer.json, which needs
the package `tokenizers`. Without one, a small Llama with random weights is made, whose tokens are
bytes. Results are written as transformers and PEFT load them.

    python examples/finetune.py text.txt
    python examples/finetune.py text.txt --model Llama-3.2-1B --rank 8 --dtype bfloat16
    python examples/finetune.py text.txt --model gemma-2-2b --sharding fsdp
"""

import argparse
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

sys.path.insert(0, str(Path(__file__).parent / "pretrained"))

RECIPES = {
    "gpt2": "gpt2",
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3"), "llama"),
    **dict.fromkeys(("gemma2", "gemma3_text"), "gemma"),
}
SMALL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
}
ADAPTED = ["*attention*/kernel", "*mlp*/kernel"]
SHARDINGS = {
    "none": None,
    "data": nn.sharding(),
    "fsdp": nn.sharding(params=nn.fsdp("data")),
}
TOKEN = jax.ShapeDtypeStruct((1, 1), jnp.int32)


def make_small(directory: Path) -> Path:
    """A directory with a model that has learned nothing yet."""
    llama = importlib.import_module("llama")
    params, _ = jax.jit(llama.model(SMALL).init)(jax.random.key(0), TOKEN)
    nn.export_params(directory, params, **llama.names(SMALL))
    (directory / "config.json").write_text(json.dumps(SMALL))
    return directory


def tokenizer_of(directory: Path) -> tuple[Any, Any]:
    """From text to tokens, and back."""
    if not (directory / "tokenizer.json").exists():
        return str.encode, lambda tokens: bytes(tokens).decode(errors="replace")
    tokenizers = importlib.import_module("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    return lambda text: tokenizer.encode(text).ids, tokenizer.decode


def load(recipe: Any, config: dict[str, Any], directory: Path, dtype: Any, sharding: Any) -> Any:
    """The parameters of a directory, each device reading its part of them."""
    like, _ = jax.eval_shape(recipe.model(config).init, jax.random.key(0), TOKEN)
    if sharding is not None:
        like = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            like,
            sharding.of_params(like),
        )
    return nn.import_params(directory, like, dtype=dtype, **recipe.names(config))


def windows(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens in pieces, and the token that follows each of them."""
    starts = np.arange(0, len(tokens) - length, length)
    pieces = tokens[starts[:, None] + np.arange(length + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def finetune(
    model: nn.Layer,
    params: Any,
    tokens: np.ndarray,
    *,
    rank: int | None = None,
    scale: float = 2.0,
    dtype: Any = jnp.float32,
    length: int = 128,
    sharding: Any = None,
    learning_rate: float = 1e-3,
    **options: Any,
) -> nn.FitResult:
    """Train all parameters, or with a rank corrections of the kernels of each block."""
    optimizer = nn.optimizers.chain(
        nn.optimizers.clip_by_global_norm(1.0), nn.optimizers.adam(learning_rate, b2=0.99)
    )
    if rank is not None:
        model = nn.lora(model, rank, scale=scale, where=ADAPTED)

        def corrections(key: jax.Array) -> Any:
            fresh, _ = model.init(key, TOKEN)
            return {side: fresh[side] for side in ("down", "up")}

        params = {"layer": params, **jax.jit(corrections)(jax.random.key(1))}
        optimizer = nn.optimizers.partition({"layer/*": nn.optimizers.freeze(), "*": optimizer})
    held_out = max(len(tokens) // 10, length + 1)
    return nn.fit(
        nn.mixed_precision(model, dtype, output_dtype=jnp.float32),
        windows(tokens[:-held_out], length),
        validation=windows(tokens[-held_out:], length),
        loss=nn.losses.softmax_cross_entropy,
        optimizer=optimizer,
        key=jax.random.key(0),
        params=params,
        sharding=sharding,
        **options,
    )


def main() -> None:
    """Write, train, write again, export."""
    parser = argparse.ArgumentParser(description="Fine-tune a language model on a text.")
    parser.add_argument("text", type=Path, help="a file of plain text")
    parser.add_argument("--model", type=Path, help="a directory of Hugging Face")
    parser.add_argument("--output", type=Path, default=Path("finetuned"))
    parser.add_argument("--rank", type=int, help="of adapters; all weights are trained without")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--sharding", choices=SHARDINGS, default="none")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="of a piece of the text, in tokens")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--prompt", default="The ")
    options = parser.parse_args()

    directory = options.model or make_small(options.output / "base")
    config = json.loads((directory / "config.json").read_text())
    recipe = importlib.import_module(RECIPES[config["model_type"]])
    encode, decode = tokenizer_of(directory)
    sharding, scale = SHARDINGS[options.sharding], 2.0
    # What is trained stays in float32, where small updates are not lost; what is not need not.
    stored = options.dtype if options.rank else "float32"
    params = load(recipe, config, directory, stored, sharding)

    prompt = jnp.asarray(list(encode(options.prompt)))
    cell = nn.autoregressive(recipe.model(config, cache_length=len(prompt) + 60))

    def sample(params: Any) -> str:
        tokens = nn.generate(cell, params, prompt, length=60, sharding=sharding)
        return repr(options.prompt + decode(np.asarray(tokens).tolist()))

    print(f"Before: {sample(params)}")
    result = finetune(
        recipe.model(config),
        params,
        np.asarray(list(encode(options.text.read_text("utf-8"))), np.int32),
        rank=options.rank,
        scale=scale,
        dtype=jnp.dtype(options.dtype),
        length=options.length,
        sharding=sharding,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
        progress=True,
    )
    print(f"Validation loss: {result.history['val_loss'][-1]:.3f} nats per token")
    table = {k: v for k, v in recipe.names(config).items() if k != "ignore"}
    if options.rank:
        print(f"After: {sample(nn.merge_lora(result.params, scale=scale))}")
        about = {"base_model_name_or_path": str(directory), "task_type": "CAUSAL_LM"}
        nn.export_lora(options.output, result.params, scale=scale, config=about, **table)
    else:
        print(f"After: {sample(result.params)}")
        nn.export_params(options.output, result.params, dtype=options.dtype, **table)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            if (directory / name).exists():
                shutil.copy(directory / name, options.output)


if __name__ == "__main__":
    main()
