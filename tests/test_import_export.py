"""Checkpoints of other libraries, judged by NumPy and by safetensors' own reader."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxnn as nn

RNG = np.random.default_rng(0)


def drawn(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def written(directory, tensors, **metadata):
    save_file({name: np.array(x, order="C") for name, x in tensors.items()}, directory)
    return directory


# (tensors of the file, names, params): what one is in the other, by hand.
A, B, C, D = drawn(4, 3), drawn(4), drawn(4, 3), drawn(4)
STACKED = {f"h.{i}.fc.weight": drawn(5, 3) for i in range(6)}
CONV = drawn(4, 3, 2, 5)
FUSED, SMALL, LARGE = drawn(8, 3), drawn(2, 3), drawn(6, 3)
EXPERTS = {f"l.{i}.e.{j}.w.weight": drawn(4, 3) for i in range(2) for j in range(3)}
CASES = {
    "module": (
        {"fc.weight": A, "fc.bias": B},
        {"dense": "fc"},
        {"dense": {"kernel": A.T, "bias": B}},
    ),
    "root": ({"fc.weight": A, "fc.bias": B}, {"": "fc"}, {"kernel": A.T, "bias": B}),
    "norm and embedding": (
        {"ln.weight": B, "ln.bias": D, "wte.weight": A},
        {"0": "wte", "1": "ln"},
        ({"embedding": A}, {"scale": B, "bias": D}),
    ),
    "convolution": ({"c.weight": CONV}, {"": "c"}, {"kernel": CONV.transpose(2, 3, 1, 0)}),
    "leaf": ({"cls_token": B}, {"cls": "cls_token"}, {"cls": B}),
    "number": ({"t": np.float32(3.5)}, {"t": "t"}, {"t": np.float32(3.5)}),
    "stack": (
        STACKED,
        {"blocks/fc": "h.*.fc"},
        {"blocks": {"fc": {"kernel": np.stack([x.T for x in STACKED.values()])}}},
    ),
    "every second": (
        STACKED,
        {"even": "h.{2*i}.fc", "odd": "h.{2*i+1}.fc"},
        {
            name: {"kernel": np.stack([STACKED[f"h.{i}.fc.weight"].T for i in numbers])}
            for name, numbers in {"even": (0, 2, 4), "odd": (1, 3, 5)}.items()
        },
    ),
    "stack of stacks": (
        STACKED,
        {"pairs": "h.{3*i+j}.fc", "last": "h.{2+3*i}.fc"},
        {
            "pairs": {
                "kernel": np.stack(
                    [[STACKED[f"h.{3 * i + j}.fc.weight"].T for j in range(2)] for i in range(2)]
                )
            },
            "last": {"kernel": np.stack([STACKED[f"h.{i}.fc.weight"].T for i in (2, 5)])},
        },
    ),
    "experts": (
        EXPERTS,
        {"": "l.*.e.*.w"},
        {"kernel": np.stack([x.T for x in EXPERTS.values()]).reshape(2, 3, 3, 4)},
    ),
    "axes in another order": (
        EXPERTS,
        {"": "l.{j}.e.*.w"},
        {"kernel": np.stack([x.T for x in EXPERTS.values()]).reshape(2, 3, 3, 4).swapaxes(0, 1)},
    ),
    "side by side": (
        {"up.weight": A, "gate.weight": C, "up.bias": B, "gate.bias": D},
        {"hidden": ("up", "gate")},
        {"hidden": {"kernel": np.concatenate([A, C]).T, "bias": np.concatenate([B, D])}},
    ),
    "unequal parts": (
        {"q.weight": LARGE, "k.weight": SMALL},
        {"": {"q": 6, "k": 2}},
        {"kernel": np.concatenate([LARGE, SMALL]).T},
    ),
    "split": (
        {"qkv.weight": FUSED},
        {"{q,k}": "qkv"},
        {"q": {"kernel": FUSED[:6].T}, "k": {"kernel": FUSED[6:].T}},
    ),
    "two tensors over three leaves": (
        {"a.weight": A, "b.weight": C},
        {"{x,y,z}": ("a", "b")},
        {
            name: {"kernel": np.concatenate([A, C])[rows].T}
            for name, rows in {"x": slice(3), "y": slice(3, 5), "z": slice(5, 8)}.items()
        },
    ),
    "converted": (
        {"c_attn.weight": A},
        {"": "c_attn"},
        {"kernel": A},
        {"convert": {"*.weight": None}},
    ),
    "functions": (
        {"position": A[None]},
        {"position": "position"},
        {"position": A},
        {"convert": {"pos*": (lambda x: x[0], lambda x: x[None])}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_tensors_become_leaves_and_tensors_again(case, tmp_path):
    tensors, names, params, *options = CASES[case]
    options = options[0] if options else {}
    file = written(tmp_path / "a.safetensors", tensors)
    found = nn.import_params(file, abstract(params), names, **options)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(found))
    nn.export_params(tmp_path / "b.safetensors", found, names, **options)
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == tensors.keys()
    for name, x in tensors.items():
        np.testing.assert_array_equal(again[name], x, strict=True)


def test_a_sum_is_written_as_its_first_term(tmp_path):
    tensors, names = {"b_ih": B, "b_hh": D}, {"bias": ("b_ih", "+b_hh")}
    file = written(tmp_path / "a.safetensors", tensors)
    params = nn.import_params(file, {"bias": jnp.zeros(4)}, names)
    np.testing.assert_array_equal(params["bias"], B + D)
    nn.export_params(file, params, names)
    assert load_file(file)["b_hh"].tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(load_file(file)["b_ih"], B + D)


def test_a_model_with_statistics_has_one_table(tmp_path):
    model = nn.serial(conv=nn.conv(4, (3, 3)), norm=nn.batch_norm(), out=nn.global_avg_pool())
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    names = {"conv": "layer.conv1", "norm": "layer.bn1"}
    nn.export_params(tmp_path, params, names, state=state)
    file = load_file(tmp_path / "model.safetensors")
    assert {"layer.bn1.running_mean", "layer.bn1.running_var"} < file.keys()
    got = nn.import_params(tmp_path, abstract(params), names, state=abstract(state))
    jax.tree.map(np.testing.assert_array_equal, got, (params, state))


def test_shards_have_an_index_and_replace_what_was_there(tmp_path):
    _, names, params = CASES["stack"]
    nn.export_params(tmp_path, params, names)
    nn.export_params(tmp_path, params, names, max_shard_size=130)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)] + [
        "model.safetensors.index.json"
    ]
    index = json.loads((tmp_path / files[-1]).read_text())
    assert index["metadata"]["total_size"] == 6 * 60
    assert index["weight_map"]["h.2.fc.weight"] == files[1]
    found = nn.import_params(tmp_path, params, names)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    nn.export_params(tmp_path, params, names)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("wide", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("narrow", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_are_converted_on_the_way(wide, narrow, tmp_path):
    values = np.array([[1.0, 1 / 3], [-7.0, 100.7]], np.float32).astype(wide)
    nn.save(tmp_path / "a.safetensors", {"fc.weight": values})
    like = {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}
    params = nn.import_params(tmp_path / "a.safetensors", like, {"": "fc"}, dtype=narrow)
    assert params["kernel"].dtype == narrow
    np.testing.assert_array_equal(params["kernel"], values.T.astype(narrow))
    nn.export_params(tmp_path / "b.safetensors", params, {"": "fc"}, dtype=wide)
    again = nn.load(tmp_path / "b.safetensors")["fc.weight"]
    assert again.dtype == wide
    np.testing.assert_array_equal(again, values.astype(narrow).astype(wide))


def test_each_device_has_its_region(tmp_path):
    mesh = jax.make_mesh((1,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("data"))
    tensors, names, params = CASES["stack"]
    file = written(tmp_path / "a.safetensors", tensors)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), params)
    found = nn.import_params(file, like, names)
    assert jax.tree.leaves(found)[0].sharding == sharding
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_arrays_of_numpy_stay_such(tmp_path):
    tensors, names, params = CASES["stack"]
    file = written(tmp_path / "a.safetensors", tensors)
    found = nn.import_params(file, params, names)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(found))


def test_a_leaf_of_which_the_file_has_nothing_stays(tmp_path):
    file = written(tmp_path / "a.safetensors", {"fc.weight": A, "fc.bias": B})
    head = {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}
    like = {"trunk": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}, "head": {"x": head}}
    names = {"trunk": "fc", "head": None}
    found = nn.import_params(file, like, names)
    assert found["head"]["x"]["kernel"] is head["kernel"]
    np.testing.assert_array_equal(found["trunk"]["kernel"], A.T)
    nn.export_params(file, found, names)
    assert load_file(file).keys() == {"fc.weight", "fc.bias"}
    with pytest.raises(
        ValueError, match=r"None for 'head/x/bias', and like has no array to keep there"
    ):
        nn.import_params(file, abstract(like), names)


def test_tied_leaves_are_one_tensor(tmp_path):
    names = {"embed": "wte", "head/kernel": "wte.weight"}
    params = {"embed": {"embedding": jnp.array(A)}, "head": {"kernel": jnp.array(A.T)}}
    nn.export_params(tmp_path, params, names)
    assert load_file(tmp_path / "model.safetensors").keys() == {"wte.weight"}
    found = nn.import_params(tmp_path, abstract(params), names)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    params["head"]["kernel"] += 1
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"'wte.weight' stands for 'embed/embedding' and 'head/k"):
        nn.export_params(tmp_path, params, names)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_tree_of_another_library_has_our_layout():
    theirs = {"params": {"layer_0": {"kernel": A, "bias": B}, "layer_1": {"kernel": C, "bias": D}}}
    like = {"kernel": jnp.zeros((2, 4, 3)), "bias": jnp.zeros((2, 4))}
    found = nn.import_params(theirs, like, {"": "params/layer_*"})
    np.testing.assert_array_equal(found["kernel"], np.stack([A, C]))
    np.testing.assert_array_equal(found["bias"], np.stack([B, D]))


DENSE = {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}
FILE = {"fc.weight": A, "fc.bias": B}
WRONG = {
    "missing": ({"fc.weight": A}, DENSE, {"": "fc"}, "it lacks 'fc.bias'"),
    "nearest": (
        {"fc.weight": A, "fc.biaz": B},
        DENSE,
        {"": "fc"},
        "it lacks 'fc.bias'; the nearest is 'fc.biaz'",
    ),
    "unexpected": (
        FILE | {"x": B},
        DENSE,
        {"": "fc"},
        "it has 'x', which neither names nor ignore",
    ),
    "unnamed": (FILE, DENSE, {"bias": "fc.bias"}, "no tensor for the leaf 'kernel'"),
    "misshapen": (
        {"fc.weight": A.T, "fc.bias": B},
        DENSE,
        {"": "fc"},
        "'fc.weight' has shape (3, 4), expected (4, 3) for 'kernel'",
    ),
    "twice": (
        FILE,
        DENSE,
        {"": "fc", "bias": "fc.bias"},
        "names has 'bias' twice, by '' and 'bias'",
    ),
    "parts": (
        {"a": B, "b": B},
        {"bias": jnp.zeros(7)},
        {"bias": ("a", "b")},
        "'a', 'b' are to fill the 7 features of 'bias', and do not",
    ),
    "unequal parts": (
        {"a": B, "b": B[:2]},
        {"bias": jnp.zeros(6)},
        {"bias": ("a", "b")},
        "'a' has shape (4,), expected (3,) for 'bias'",
    ),
    "too many stars": (FILE, DENSE, {"bias": "h.*.*.bias"}, "has 2 numbers, expected each"),
    "stars differ": (FILE, DENSE, {"bias": ("h.*.b", "b")}, "as many numbers; 'h.*.b', 'b' differ"),
    "expression": (FILE, DENSE, {"bias": "h.{i-1}"}, "'h.{i-1}' has {i-1}, expected a sum"),
    "integers": (
        {"fc.bias": np.arange(4)},
        {"bias": jnp.zeros(4)},
        {"": "fc"},
        "'fc.bias' has dtype int64, expected one that 'bias', of float32",
    ),
    "split over leaves that differ": (
        FILE,
        {"a": DENSE, "b": {"kernel": jnp.zeros((3, 4))}},
        {"{a,b}": "fc"},
        "of 'a/bias', 'b/bias' there is no 'b/bias'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told(case, tmp_path):
    tensors, like, names, message = WRONG[case]
    file = written(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        nn.import_params(file, like, names)
    assert str(caught.value).startswith("import_params: ")


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    file = written(tmp_path / "a.safetensors", {"x": B, "y": B})
    with pytest.raises(ValueError, match=r"lacks 'fc.bias'.*lacks 'fc.weight'.*has 'x'.*has 'y'"):
        nn.import_params(file, DENSE, {"": "fc"})
    many = written(tmp_path / "b.safetensors", {f"x{i}": B for i in range(30)} | FILE)
    with pytest.raises(ValueError, match=r"; and 22 more$"):
        nn.import_params(many, DENSE, {"": "fc"})
    assert nn.import_params(many, DENSE, {"": "fc"}, ignore=["x*"])["bias"].tolist() == B.tolist()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": "fc"}, TypeError, "names is 'fc', expected a dict"),
        ({"names": {"": 3}}, TypeError, r"names\[''\] is 3, expected a name"),
        ({"names": {"": ()}}, TypeError, r"names\[''\] is \(\), expected a name"),
        ({"names": {"": {"fc": 1.5}}}, TypeError, "expected integers as numbers of features"),
        ({"names": {3: "fc"}}, TypeError, r"names\[3\] is 'fc'"),
        ({"ignore": "x*"}, TypeError, "ignore is 'x\\*', expected a sequence of strings"),
        ({"ignore": 3}, TypeError, "ignore is 3, expected a sequence of strings"),
        ({"convert": {"x": abs}}, TypeError, r"convert\['x'\] is .*, expected two functions"),
        ({"convert": 3}, TypeError, "convert is 3, expected a dict"),
        ({"dtype": "int32"}, ValueError, "dtype is 'int32', expected a floating dtype"),
        ({"like": {"bias": 1.0}}, TypeError, "leaf 'bias' of like or state is 1.0, expected"),
    ],
)
def test_arguments_are_checked(options, error, message, tmp_path):
    file = written(tmp_path / "a.safetensors", FILE)
    arguments = {"path": file, "like": DENSE, "names": {"": "fc"}} | options
    with pytest.raises(error, match=f"import_params: .*{message}"):
        nn.import_params(**arguments)


def test_directories(tmp_path):
    def fails(error, message):
        with pytest.raises(error, match=message):
            nn.import_params(tmp_path, DENSE, {"": "fc"})

    fails(FileNotFoundError, "has no \\*.safetensors file")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    fails(FileNotFoundError, "has pytorch_model.bin and no \\*.safetensors file")
    written(tmp_path / "a.safetensors", FILE)
    written(tmp_path / "b.safetensors", FILE)
    fails(ValueError, "has a.safetensors, b.safetensors, expected the path of one of them")
    index = tmp_path / "model.safetensors.index.json"
    for content, message in {
        "[": "it is not JSON",
        "[1]": "it has no weight_map",
        '{"weight_map": {"a": "../a"}}': "'a' is in '../a', expected the name of a file beside it",
        '{"weight_map": {"a": 3}}': "'a' is in 3, expected the name",
        '{"weight_map": {"fc.weight": "a.safetensors"}}': "'fc.bias' is not in the index",
        '{"weight_map": {"fc.weight": "a.safetensors", "fc.bias": "a.safetensors", "x": '
        '"a.safetensors"}}': "'x' is not in the file",
    }.items():
        index.write_text(content)
        fails(ValueError, message)
    index.write_text('{"weight_map": {"fc.weight": "c.safetensors"}}')
    fails(FileNotFoundError, "c.safetensors")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(FILE, "a.safetensors")}))
    found = nn.import_params(tmp_path, DENSE, {"": "fc"})
    np.testing.assert_array_equal(found["kernel"], A.T)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path):
    bad = {
        "no tensor for 'bias'": (DENSE, {"kernel": "w"}),
        "dtype int4": ({"kernel": jnp.zeros((3, 4), jnp.int4)}, {"": "fc"}),
        "'kernel' has 4 features": (DENSE, {"": ("a", "b", "c")}),
    }
    for message, (params, names) in bad.items():
        with pytest.raises(ValueError, match=f"export_params: .*{message}"):
            nn.export_params(tmp_path / "out", params, names)
    assert not any(tmp_path.iterdir())
