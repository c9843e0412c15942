"""Adapters of nn.lora in PEFT's layout: against PEFT where it is installed, and by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.test_pretrained import FAMILIES, imported, inputs, original, output, recipe_of

# family: options of peft.LoraConfig
CASES = {
    "llama2": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]},
    "llama_linear": {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"},
    "gemma3": {"r": 3, "target_modules": ["gate_proj", "o_proj"], "layers_to_transform": [1, 2, 7]},
    "gpt2": {"r": 3, "lora_alpha": 5, "target_modules": ["c_attn", "c_proj"], "use_rslora": True},
    "resnet_basic": {
        "r": 2,
        "target_modules": ["convolution"],
        "rank_pattern": {"embedder.convolution": 3},
        "alpha_pattern": {"embedder.convolution": 12},
    },
}


@pytest.fixture(params=CASES)
def adapted(request, tmp_path):
    """A model, its recipe and params, and an adapter of it that PEFT made and saved."""
    family = request.param
    peft = pytest.importorskip("peft")
    theirs = original(family)
    theirs.save_pretrained(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    recipe = recipe_of(FAMILIES[family][0])
    table = recipe.names(config)
    x = inputs(recipe.__name__)[1]
    model, params, state = imported((family, theirs, recipe, config, table), tmp_path, x)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**CASES[family])).eval()
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "adapter")
    return theirs, recipe.__name__, table, model, params, state


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_adapters_of_peft_in_and_out(adapted, tmp_path):
    theirs, recipe, table, model, params, state = adapted
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    given, x = inputs(recipe)
    with torch.no_grad():
        expected = output(recipe, theirs(torch.tensor(given))).numpy()
    with_lora, scale, config = nn.import_lora(tmp_path / "adapter", params, **table)
    layer = nn.lora(model, 1, scale=scale, where=list(with_lora["down"]))

    def outputs(params):
        plain, _ = model.apply(params["layer"], state, x)
        merged, _ = model.apply(nn.merge_lora(params, scale=scale), state, x)
        return plain, layer.apply(params, {"layer": state} if state else {}, x)[0], merged

    plain, unmerged, merged = jax.jit(outputs)(with_lora)
    size = np.abs(expected).max()
    np.testing.assert_allclose(unmerged, expected, rtol=0, atol=4e-6 * size)
    np.testing.assert_allclose(merged, expected, rtol=0, atol=4e-6 * size)
    assert np.abs(plain - expected).max() > 1e-2 * size

    table = {name: value for name, value in table.items() if name != "ignore"}
    nn.export_lora(tmp_path / "ours", with_lora, scale=scale, config=config, **table)
    before, after = (
        nn.load(tmp_path / d / "adapter_model.safetensors") for d in ("adapter", "ours")
    )
    assert before.keys() == after.keys()
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], strict=True)
    again = peft.PeftModel.from_pretrained(theirs.unload(), tmp_path / "ours").eval()
    with torch.no_grad():
        found = output(recipe, again(torch.tensor(given))).numpy()
    np.testing.assert_array_equal(found, expected)

    rng = np.random.default_rng(0)  # trained: every correction of ours is another
    trained, _ = layer.init(jax.random.key(0), x)
    trained |= {
        "layer": params,
        "up": {path: rng.normal(size=up.shape) * 0.1 for path, up in trained["up"].items()},
    }
    trained = jax.tree.map(jnp.float32, trained)
    nn.export_lora(tmp_path / "trained", trained, scale=scale, **table)
    _, expected, _ = jax.jit(outputs)(trained)
    again = peft.PeftModel.from_pretrained(again.unload(), tmp_path / "trained").eval()
    with torch.no_grad():
        found = output(recipe, again(torch.tensor(given))).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * size)


# By hand

MODEL = {
    "blocks": {
        "attention": {
            name: {"kernel": np.ones((2, 3, 4), np.float32)} for name in ("query", "key", "value")
        },
        "hidden": {"kernel": np.ones((2, 3, 6), np.float32)},
    },
    "head": {"kernel": np.ones((3, 5), np.float32), "bias": np.zeros(5, np.float32)},
    "embed": {"embedding": np.ones((7, 3), np.float32)},
}
NAMES = {
    "blocks/attention/{query,key,value}": "h.*.attn",
    "blocks/hidden": ("h.*.up", "h.*.gate"),
    "head": "head",
    "embed": "embed",
}
RNG = np.random.default_rng(0)


def adapter_of(module, rank=2, inputs=3, outputs=5):
    shapes = {"A": (rank, inputs), "B": (outputs, rank)}
    return {
        f"base_model.model.{module}.lora_{side}.weight": RNG.normal(size=shape).astype(np.float32)
        for side, shape in shapes.items()
    }


def write(directory, tensors, **config):
    directory.mkdir(exist_ok=True)
    nn.save(directory / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config
    (directory / "adapter_config.json").write_text(json.dumps(config))


def delta(tensors, module):
    down, up = (tensors[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
    return np.float64(down.T) @ np.float64(up.T)


def test_adapters_add_up_where_modules_lie_otherwise(tmp_path):
    tensors = {
        **adapter_of("h.0.attn", outputs=12),
        **adapter_of("h.1.attn", outputs=12),
        **adapter_of("h.0.up"),
        **adapter_of("h.0.gate"),
        **adapter_of("head"),
    }
    tensors = {
        name: array[:3] if "up.lora_B" in name or "gate.lora_B" in name else array
        for name, array in tensors.items()
    }
    write(tmp_path, tensors, target_modules=["attn", "up", "gate", "head"])
    params, scale, config = nn.import_lora(tmp_path, MODEL, NAMES)
    assert (scale, config["r"]) == (2.0, 2)
    merged = nn.merge_lora(params, scale=scale)
    expected = jax.tree.map(np.float64, MODEL)
    for i in range(2):
        parts = np.split(2 * delta(tensors, f"h.{i}.attn"), 3, -1)
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            expected["blocks"]["attention"][name]["kernel"][i] += part
    both = [delta(tensors, f"h.0.{name}") for name in ("up", "gate")]
    expected["blocks"]["hidden"]["kernel"][0] += 2 * np.concatenate(both, -1)
    expected["head"]["kernel"] += 2 * delta(tensors, "head")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), merged, expected)

    nn.export_lora(tmp_path / "again", params, NAMES, scale=scale, config=config)
    again = nn.load(tmp_path / "again" / "adapter_model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, again, tensors)
    written = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert written["target_modules"] == ["attn", "h.0.gate", "h.0.up", "head"]
    assert (written["r"], written["lora_alpha"], written["rank_pattern"]) == (2, 4, {})


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (adapter_of("head"), {"peft_type": "LOHA"}, "peft_type 'LOHA', expected 'LORA'"),
        (adapter_of("head"), {"use_dora": True}, "use_dora=True, which nn.lora lacks"),
        (adapter_of("head"), {"modules_to_save": ["head"]}, "modules_to_save"),
        (adapter_of("head"), {"bias": "all"}, "bias='all'"),
        (adapter_of("head"), {"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        (adapter_of("head"), {"r": 0}, "r=0, expected a positive number"),
        (adapter_of("head"), {"alpha_pattern": {"head": -1}}, "alpha_pattern"),
        (adapter_of("heap"), {}, "adapter of 'heap', which names has not; the nearest is 'head'"),
        (adapter_of("embed", 2, 7, 3), {}, "'embed' is 'embed/embedding'"),
        (adapter_of("head", outputs=6), {}, r"'head' .* to 6 features, expected .* to 5"),
        (adapter_of("h.0.attn", outputs=12) | adapter_of("head", 3), {}, "has scale .*one for all"),
        (dict([*adapter_of("head").items()][:1]), {}, "'head' has lora_A alone"),
        ({"head.lora_A.weight": np.ones((2, 3))}, {}, "it has 'head.lora_A.weight', expected"),
    ],
)
def test_what_is_no_adapter_of_the_model_is_told(tensors, config, message, tmp_path):
    write(tmp_path, tensors, **config)
    with pytest.raises(ValueError, match=f"import_lora: .*{message}"):
        nn.import_lora(tmp_path, MODEL, NAMES)


def corrected(path, **sizes):
    shapes = {"down": (3, 2), "up": (2, 5)} | sizes
    sides = {name: {path: np.ones(shape, np.float32)} for name, shape in shapes.items()}
    return {"layer": MODEL, **sides}


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        (MODEL, {}, "params has no correction of nn.lora"),
        (corrected("head/kernel"), {"scale": 0.0}, "scale is 0.0"),
        (corrected("tail/kernel"), {}, "names has no module for 'tail/kernel'"),
        (corrected("head/kernel", up=(2, 4)), {}, r"'head/kernel' of shape \(3, 5\)"),
        (corrected("head/kernel", up=(3, 5)), {}, r"shapes \(3, 2\) and \(3, 5\), expected"),
        (corrected("embed/embedding", down=(7, 2), up=(2, 3)), {}, "'embed' is 'embed/embedding'"),
        (corrected("head/kernel"), {"config": {"use_dora": True}}, "config has use_dora=True"),
        (corrected("head/kernel"), {"dtype": "int8"}, "dtype is int8"),
        (corrected("head/kernel"), {"convert": {"head*": (abs, abs)}}, "'head.weight' is conv"),
    ],
)
def test_corrections_that_are_no_adapter_are_refused(params, options, message, tmp_path):
    with pytest.raises(ValueError, match=f"export_lora: .*{message}"):
        nn.export_lora(tmp_path / "out", params, NAMES, **options)
    assert not (tmp_path / "out").exists()


def test_corrections_inside_of_layers_and_of_frozen_kernels_are_written(tmp_path):
    dense = nn.lora(nn.frozen(nn.dense(4, use_bias=False)), 2)
    params, _ = nn.stack(dense, 2).init(jax.random.key(0), np.ones((1, 4), np.float32))
    nn.export_lora(tmp_path, {"blocks": params}, {"blocks": "h.*.fc"}, dtype="bfloat16")
    found = nn.load(tmp_path / "adapter_model.safetensors")
    assert {name: str(array.dtype) for name, array in found.items()} == {
        f"base_model.model.h.{i}.fc.lora_{side}.weight": "bfloat16" for i in (0, 1) for side in "AB"
    }
    down = np.asarray(params["down"]["kernel"][1].astype("bfloat16"))
    np.testing.assert_array_equal(found["base_model.model.h.1.fc.lora_A.weight"], down.T)
