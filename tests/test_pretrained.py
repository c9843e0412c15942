"""The recipes of pretrained models against the originals, with random weights."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # theirs
]

RECIPES = Path(__file__).parents[1] / "examples" / "pretrained"
VOCABULARY, TIME = 97, 20
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SMALL_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
LOCAL, FULL = "sliding_attention", "full_attention"


def rope(kind, **options):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, "factor": 4.0, **options}}


# name: (recipe, model, configuration, options of the configuration)
FAMILIES = {
    "gpt2": ("gpt2", "GPT2LMHeadModel", "GPT2Config", SMALL_GPT2),
    "llama2": ("llama", "LlamaForCausalLM", "LlamaConfig", DECODER),
    "llama3": (
        "llama",
        "LlamaForCausalLM",
        "LlamaConfig",
        DECODER
        | {"tie_word_embeddings": True}
        | rope(
            "llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
        ),
    ),
    "llama_linear": (
        "llama",
        "LlamaForCausalLM",
        "LlamaConfig",
        DECODER | {"attention_bias": True, "mlp_bias": True} | rope("linear"),
    ),
    "llama_yarn": (
        "llama",
        "LlamaForCausalLM",
        "LlamaConfig",
        DECODER | rope("yarn", original_max_position_embeddings=16),
    ),
    "mistral": ("llama", "MistralForCausalLM", "MistralConfig", DECODER | {"sliding_window": 5}),
    "mixtral": (
        "llama",
        "MixtralForCausalLM",
        "MixtralConfig",
        DECODER | {"num_local_experts": 5, "num_experts_per_tok": 2},
    ),
    "qwen2": ("llama", "Qwen2ForCausalLM", "Qwen2Config", DECODER),
    "qwen3": ("llama", "Qwen3ForCausalLM", "Qwen3Config", DECODER | {"head_dim": 16}),
    "gemma2": (
        "gemma",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        DECODER
        | {
            "num_hidden_layers": 5,
            "head_dim": 8,
            "sliding_window": 5,
            "query_pre_attn_scalar": 10,
            "attn_logit_softcapping": 0.7,
            "final_logit_softcapping": 0.9,
        },
    ),
    "gemma3": (
        "gemma",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        DECODER
        | {
            "num_hidden_layers": 8,
            "head_dim": 8,
            "sliding_window": 5,
            "query_pre_attn_scalar": 10,
            "layer_types": [LOCAL, LOCAL, FULL] * 2 + [LOCAL] * 2,
        },
    ),
    "bert": ("bert", "BertModel", "BertConfig", ENCODER | {"vocab_size": VOCABULARY}),
    "vit": ("vit", "ViTModel", "ViTConfig", ENCODER | {"image_size": 16, "patch_size": 4}),
    "resnet_basic": (
        "resnet",
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"},
    ),
    "resnet_bottleneck": (
        "resnet",
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 2]},
    ),
}
DECODERS = {"gpt2", "llama", "gemma"}


def recipe_of(name):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def original(family):
    """The model of the other library, its parameters drawn so that each of them matters."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    _, model, config, options = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, config)(**options)
    made = getattr(transformers, model)(config, **extra_of(family)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for name, buffer in made.named_buffers():
            if "running" in name:
                buffer += 0.1 * torch.rand_like(buffer)
    return made


def inputs(recipe):
    """Tokens or images, as torch has them and as they are here."""
    rng = np.random.default_rng(0)
    if recipe in ("vit", "resnet"):
        size = 16 if recipe == "vit" else 64
        x = rng.normal(size=(2, 3, size, size)).astype(np.float32)
        return x, jnp.asarray(x.transpose(0, 2, 3, 1))
    x = rng.integers(1, VOCABULARY, (2, TIME))  # 0 is padding there, which has no gradient
    return x, jnp.asarray(x, jnp.int32)


def output(recipe, result):
    """What the recipe computes, of what the original gives."""
    if recipe == "bert":
        return result.last_hidden_state
    return result.last_hidden_state[:, 0] if recipe == "vit" else result.logits


def extra_of(family):
    return {"add_pooling_layer": False} if family in ("bert", "vit") else {}


@pytest.fixture(params=FAMILIES)
def saved(request, tmp_path):
    """A family, the original, and the recipe, configuration and table of its files."""
    family = request.param
    theirs = original(family)
    theirs.save_pretrained(tmp_path / "theirs")
    recipe = recipe_of(FAMILIES[family][0])
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    return family, theirs, recipe, config, recipe.names(config)


def imported(saved, tmp_path, x, dtype=None):
    _, _, recipe, config, table = saved
    model = recipe.model(config)
    like, state = jax.eval_shape(model.init, jax.random.key(0), x)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    return model, *nn.import_params(tmp_path / "theirs", like, state=state, dtype=dtype, **table)


def for_export(table):
    return {name: value for name, value in table.items() if name != "ignore"}


@pytest.mark.parametrize("is_double", [False, True])
def test_outputs_and_gradients(saved, is_double, tmp_path):
    _, theirs, recipe, _, table = saved
    if is_double and recipe.__name__ in ("llama", "gemma"):
        pytest.skip("their norms and rotations are in float32 always")
    tolerance = 1e-12 if is_double else 3e-6
    torch = sys.modules["torch"]
    with jax.enable_x64(is_double):
        given, x = inputs(recipe.__name__)
        t = torch.tensor(given)
        if is_double:
            theirs = theirs.double()
            if t.is_floating_point():
                t, x = t.double(), x.astype(jnp.float64)
        model, params, state = imported(saved, tmp_path, x, x64_or_32(is_double))
        expected = output(recipe.__name__, theirs(t))
        weights = np.random.default_rng(1).normal(size=expected.shape).astype(x64_or_32(is_double))
        (expected * torch.tensor(weights)).sum().backward()

        def loss(params):
            y, _ = model.apply(params, state, x)
            return (y * weights).sum(), y

        gradients, y = jax.jit(jax.grad(loss, has_aux=True))(params)
        expected = expected.detach().numpy()
        close(y, expected, tolerance * np.abs(expected).max())
        assert np.ptp(y, axis=0).max() > 1e-4
        nn.export_params(tmp_path / "gradients", gradients, **for_export(table))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(tmp_path / "their_gradients")
    found, expected = (
        nn.load(tmp_path / d / "model.safetensors") for d in ("gradients", "their_gradients")
    )
    # That of a bias of keys is 0 to rounding: the softmax does not see it.
    largest = max(np.abs(np.asarray(array)).max() for array in found.values())
    for name, array in found.items():
        close(array, expected[name], 2 * tolerance * largest)


def x64_or_32(is_double):
    return np.float64 if is_double else np.float32


def close(got, expected, tolerance):
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def test_files_come_back_bit_for_bit(saved, tmp_path):
    family, theirs, recipe, config, table = saved
    torch = sys.modules["torch"]
    _, params, state = imported(saved, tmp_path, inputs(recipe.__name__)[1])
    nn.export_params(tmp_path / "ours", params, state=state, **for_export(table))
    before, after = (nn.load(tmp_path / d / "model.safetensors") for d in ("theirs", "ours"))
    assert {name for name in before if not name.endswith("num_batches_tracked")} == after.keys()
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], strict=True)
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config))
    again = type(theirs).from_pretrained(tmp_path / "ours", **extra_of(family))
    both = zip(again.named_parameters(), theirs.named_parameters(), strict=True)
    assert all(torch.equal(ours, other) for (_, ours), (_, other) in both)


def test_generation_with_a_cache(saved, tmp_path):
    _, theirs, recipe, config, _ = saved
    if recipe.__name__ not in DECODERS:
        pytest.skip("does not generate")
    torch = sys.modules["torch"]
    tokens, x = inputs(recipe.__name__)
    _, params, _ = imported(saved, tmp_path, x)
    cell = nn.autoregressive(recipe.model(config, cache_length=TIME))
    got = nn.generate(cell, params, x[:, :8], length=12)
    expected = theirs.generate(
        torch.tensor(tokens[:, :8]),
        attention_mask=torch.ones((2, 8), dtype=torch.int64),
        max_new_tokens=12,
        min_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    np.testing.assert_array_equal(got, expected[:, 8:].numpy())


@pytest.mark.parametrize("length_penalty", [1.0, -0.5])
def test_beam_search_with_end_tokens_and_padding(saved, tmp_path, length_penalty):
    family, theirs, recipe, config, _ = saved
    if family != "gpt2":
        pytest.skip("one family tells")
    torch = sys.modules["torch"]
    tokens, x = inputs(recipe.__name__)
    _, params, _ = imported(saved, tmp_path, x)
    cell = nn.autoregressive(recipe.model(config, cache_length=TIME))
    mask = np.arange(8)[None] >= np.array([[0], [3]])
    settings = {"length": 10, "num_beams": 4, "length_penalty": length_penalty}
    got, scores = nn.beam_search(
        cell, params, x[:, :8], prompt_mask=mask, end_token=[3, 7, 11], **settings
    )
    expected = theirs.generate(
        torch.tensor(tokens[:, :8]),
        attention_mask=torch.tensor(mask, dtype=torch.int64),
        max_new_tokens=10,
        num_beams=4,
        num_return_sequences=4,
        length_penalty=length_penalty,
        early_stopping="never",
        do_sample=False,
        pad_token_id=5,
        eos_token_id=[3, 7, 11],
        return_dict_in_generate=True,
        output_scores=True,
    )
    np.testing.assert_allclose(np.ravel(scores), expected.sequences_scores.numpy(), rtol=1e-4)
    theirs_new = expected.sequences[:, 8:].numpy().reshape(2, 4, -1)
    ours = np.asarray(got)[..., : theirs_new.shape[-1]]
    is_filled = np.cumsum(np.isin(ours, [3, 7, 11]), axis=-1) - np.isin(ours, [3, 7, 11]) > 0
    np.testing.assert_array_equal(np.where(is_filled, 5, ours), theirs_new)
