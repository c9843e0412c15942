"""Trees come back from files bit for bit, and other programs read and write the same files."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxnn as nn
from tests import test_hostile_files as hostile_files
from tests.parameters import each_value_once, quick_first

SAFETENSORS = {
    "bool": "BOOL",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
AS_BYTES = ("int2", "int4", "uint2", "uint4", "float4_e2m1fn", "float8_e3m4", "complex128")
NARROW = {"bool": 1, "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tree.safetensors"


def any_bits(dtype, shape, seed=0):
    """A NumPy array of random bits: also NaN with payloads, infinities and denormals."""
    dtype = np.dtype(dtype)
    data = np.random.default_rng(seed).integers(0, 256, (*shape, dtype.itemsize), np.uint8)
    if dtype.name in NARROW:
        data %= 2 ** NARROW[dtype.name]
    if dtype.name in ("int2", "int4"):  # with their sign in all the bits
        return data[..., 0].view(np.int8).astype(dtype)
    return data.view(dtype).reshape(shape)


def assert_same(got, expected):
    """The same tree of the same kinds of leaves, to the last bit."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if isinstance(theirs, jax.Array):
            assert isinstance(ours, jax.Array)
        else:
            assert type(ours) is type(theirs)
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype.newbyteorder("=")
        assert ours.tobytes() == theirs.astype(ours.dtype).tobytes()


def round_trip(path, tree):
    nn.save(path, tree)
    return nn.load(path, tree)


def write_raw(path, header, data=b""):
    """A file of a header, given as JSON or as bytes, and data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def raw_header(path):
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


class Pair(NamedTuple):
    first: object
    second: object


@jax.tree_util.register_pytree_node_class
class Box:
    """A node that does not name its children."""

    def __init__(self, *items):
        self.items = items

    def tree_flatten(self):
        return self.items, None

    @classmethod
    def tree_unflatten(cls, _, items):
        return cls(*items)


# Round trips


@quick_first(3)
@pytest.mark.parametrize("shape", [(), (5,), (3, 1, 4), (0,), (2, 0, 3)])
def test_every_dtype_comes_back_bit_for_bit(path, x64, shape):
    host = {name: any_bits(name, shape) for name in (*SAFETENSORS, *AS_BYTES)}
    assert_same(round_trip(path, host), host)
    device = {name: jnp.asarray(value) for name, value in host.items()}
    assert_same(round_trip(path, device), device)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_every_bit_pattern_comes_back(path, dtype):
    width = np.dtype(dtype).itemsize * 8
    patterns = np.arange(2**width, dtype=f"uint{width}").view(dtype)
    tree = {"host": patterns, "device": jnp.asarray(patterns)}
    assert_same(round_trip(path, tree), tree)


def test_nan_payloads_and_negative_zero_come_back(path):
    single = np.array([0x7FC00001, 0x7F800001, 0xFFC12345, 0x80000000, 1], np.uint32)
    double = np.array([0x7FF8000000000001, 0x7FF0000000000001, 1 << 63, 1], np.uint64)
    tree = {"single": single.view(np.float32), "double": double.view(np.float64)}
    assert_same(round_trip(path, tree), tree)
    assert_same(round_trip(path, jnp.asarray(tree["single"])), jnp.asarray(tree["single"]))


def leaves():
    names = st.sampled_from([*SAFETENSORS, *AS_BYTES])
    shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    arrays = st.builds(any_bits, names, shapes, st.integers(0, 2**32))
    numbers = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.complex_numbers()
    return arrays | numbers


def keys():
    return st.text(max_size=4).filter(lambda text: "/" not in text and text != "__metadata__")


def nodes(children):
    lists = st.lists(children, max_size=3)
    nested = st.builds(Pair, children, children) | lists.map(lambda items: Box(*items))
    return lists | lists.map(tuple) | st.dictionaries(keys(), children, max_size=3) | nested


@given(tree=st.recursive(leaves(), nodes, max_leaves=8))
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_tree_comes_back(path, tree):
    got = round_trip(path, tree)
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    "value",
    [True, 0, -(2**63), 2**63 - 1, -0.0, float("inf"), 1e-320, 2 - 3j],
    ids=repr,
)
def test_numbers_of_python_come_back_as_such(path, value):
    assert_same(round_trip(path, {"value": value}), {"value": value})


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float32", "bfloat16", "complex128"])
def test_scalars_of_numpy_come_back_as_such(path, dtype):
    value = any_bits(dtype, (1,))[0]
    assert isinstance(value, np.generic)
    assert_same(round_trip(path, value), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(12.0)[::-3],
        np.arange(24).reshape(2, 3, 4)[:, 1, ::2],
        np.arange(5, dtype=">f4"),
        np.arange(6, dtype=">i8").reshape(2, 3).T,
        np.array([1 + 2j], dtype=">c16"),
        np.broadcast_to(np.float32(3), (4, 2)),
    ],
    ids=["transposed", "fortran", "reversed", "sliced", "big", "big-t", "big-complex", "broadcast"],
)
def test_the_layout_of_a_numpy_array_does_not_matter(path, array):
    tree = {"x": array}
    assert_same(round_trip(path, tree), tree)
    np.testing.assert_array_equal(nn.load(path)["x"], array)


def test_a_memory_map_is_saved_as_an_array(path, tmp_path):
    mapped = np.memmap(tmp_path / "mapped", np.float32, "w+", shape=(3, 2))
    mapped[:] = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(round_trip(path, {"x": mapped})["x"], mapped)


def test_a_checkpoint_of_training_comes_back(path, key):
    model = nn.serial(nn.dense(3), nn.batch_norm(), nn.relu, nn.dense(1))
    params, state = model.init(key, jnp.ones((4, 2)))
    opt_state = nn.optimizers.adam(1e-3).init(params)
    tree = {"params": params, "state": state, "opt_state": opt_state, "key": None, "step": 7}
    assert_same(round_trip(path, tree), tree)


@pytest.mark.parametrize("tree", [{}, (), None, {"a": {}, "b": None}], ids=repr)
def test_a_tree_without_leaves_comes_back(path, tree):
    assert round_trip(path, tree) == ({} if tree is None else tree)


@each_value_once
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0)])
def test_keys_come_back_typed(path, impl, shape):
    keys = jax.random.split(jax.random.key(7, impl=impl), shape)
    for like in (keys, jax.ShapeDtypeStruct(keys.shape, keys.dtype)):
        nn.save(path, {"key": keys})
        got = nn.load(path, {"key": like})["key"]
        assert got.dtype == keys.dtype
        assert got.shape == shape
        assert_same(jax.random.key_data(got), jax.random.key_data(keys))
    assert nn.load(path)["key"].dtype == keys.dtype


def test_a_key_that_was_saved_can_still_be_used(path, key):
    got = round_trip(path, key)
    expected = jax.random.normal(jax.random.key(0), (3,))
    np.testing.assert_array_equal(jax.random.normal(key, (3,)), expected)
    np.testing.assert_array_equal(jax.random.normal(got, (3,)), expected)


def test_loaded_arrays_can_be_donated(path):
    got = round_trip(path, jnp.arange(1024.0))
    np.testing.assert_array_equal(
        jax.jit(lambda x: x + 1, donate_argnums=0)(got), 1 + np.arange(1024.0)
    )


def test_the_same_tree_gives_the_same_bytes(tmp_path):
    tree = {"b": jnp.ones(3), "a": (jnp.zeros((2, 2), jnp.int8), 3)}
    for name in ("one", "two"):
        nn.save(tmp_path / name, tree, metadata={"k": "v"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("as_path", [str, Path])
def test_paths_may_be_text_or_paths(path, as_path):
    nn.save(as_path(path), 1.5, metadata={"a": "b"})
    assert nn.load(as_path(path), 0.0) == 1.5
    assert nn.saved_metadata(as_path(path)) == {"a": "b"}


# What `like` says


def test_like_may_be_abstract(path, key):
    model = nn.serial(nn.dense(3), nn.relu)
    params, _ = model.init(key, jnp.ones((1, 2)))
    like, _ = jax.eval_shape(model.init, key, jnp.ones((1, 2)))
    nn.save(path, params)
    assert_same(nn.load(path, like), params)


def test_like_says_what_kind_of_arrays_to_return(path):
    nn.save(path, {"x": jnp.ones(2)})
    assert type(nn.load(path, {"x": np.empty(2, np.float32)})["x"]) is np.ndarray
    assert isinstance(nn.load(path, {"x": jnp.empty(2)})["x"], jax.Array)
    nn.save(path, {"x": np.float32(1)})
    assert isinstance(nn.load(path, {"x": jnp.float32(0)})["x"], jax.Array)


def test_without_like_there_are_numpy_arrays_by_name(path):
    tree = {"a": [jnp.ones(2), {"b": 3}], "c": any_bits("complex128", (2,))}
    nn.save(path, tree)
    got = nn.load(path)
    expected = {"a/0": np.ones(2, np.float32), "a/1/b": np.array(3), "c": tree["c"]}
    assert_same(got, expected)
    got["a/0"][0] = 5  # nobody else's memory


def test_a_committed_array_comes_back_to_its_device(path):
    free, committed = jnp.ones(3), jax.device_put(jnp.ones(3), jax.devices()[0])
    got = round_trip(path, {"free": free, "committed": committed})
    assert not got["free"].committed
    assert got["committed"].committed
    struct = jax.ShapeDtypeStruct((3,), jnp.float32, sharding=committed.sharding)
    assert nn.load(path, {"free": struct, "committed": free})["free"].committed


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "complex128"])
def test_nothing_is_narrowed_in_silence(path, dtype):
    wide = np.ones(3, dtype)
    nn.save(path, {"a": {"b": wide}})
    assert_same(nn.load(path, {"a": {"b": wide}}), {"a": {"b": wide}})
    with pytest.raises(ValueError, match=rf"load: .*leaf 'a/b' has dtype {dtype}.*jax_enable_x64"):
        nn.load(path, {"a": {"b": jax.ShapeDtypeStruct((3,), dtype)}})


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": 1.0}, "it lacks 'a'; it has 'w/k', which is not in like; it has 'w/b', which"),
        ({"w": {"k": np.zeros((2, 3))}}, "it has 'w/b', which is not in like"),
        (
            {"w": {"k": np.zeros((3, 2)), "b": np.zeros(3, np.float32)}},
            r"leaf 'w/k' has shape \(2, 3\) and dtype float64, expected shape \(3, 2\) and dtype",
        ),
        (
            {"w": {"k": np.zeros((2, 3)), "b": np.zeros(3, jnp.bfloat16)}},
            r"leaf 'w/b' has shape \(3,\) and dtype float32, expected .* and dtype bfloat16",
        ),
        (
            {"w": {"k": np.zeros((2, 3)), "b": 1.0}},
            r"leaf 'w/b' has shape \(3,\) and dtype float32, expected shape \(\) and dtype float64",
        ),
    ],
    ids=["names", "unexpected", "shape", "dtype", "kind"],
)
def test_errors_name_the_file_and_the_leaf(path, like, message):
    nn.save(path, {"w": {"k": np.zeros((2, 3)), "b": np.zeros(3, np.float32)}})
    with pytest.raises(ValueError, match=f"^load: {re.escape(str(path))}: {message}"):
        nn.load(path, like)


def test_a_long_list_of_missing_leaves_is_cut(path):
    nn.save(path, {})
    with pytest.raises(ValueError, match=r"lacks '0'; .* lacks '4'; and 15 more$"):
        nn.load(path, list(range(20)))


def test_a_key_is_not_its_numbers(path, key):
    nn.save(path, {"key": key})
    with pytest.raises(ValueError, match=r"leaf 'key' has .* key<fry>, expected .* uint32"):
        nn.load(path, {"key": jax.random.key_data(key)})
    with pytest.raises(ValueError, match=r"leaf 'key' has .* key<fry>, expected .* key<rbg>"):
        nn.load(path, {"key": jax.random.key(0, impl="rbg")})
    nn.save(path, {"key": jax.random.key_data(key)})
    with pytest.raises(ValueError, match=r"leaf 'key' has .* uint32, expected .* key<fry>"):
        nn.load(path, {"key": key})


# What is refused


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ("text", "a str, expected an array or a number"),
        (object(), "a object, expected an array or a number"),
        (np.array(["text"]), "of dtype <U4, expected one of bool, uint8"),
        (np.array([None]), "of dtype object"),
        (np.zeros(2, "datetime64[s]"), "of dtype datetime64"),
        (np.zeros(2, "f4,f4"), "of dtype"),
        (np.longdouble(1), "of dtype (float|longdouble|float64)"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "a MaskedArray"),
        (jax.ShapeDtypeStruct((2,), jnp.float32), "a ShapeDtypeStruct, expected an array"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_saved_is_named(path, leaf, message):
    nn.save(path, {"old": 1})
    with pytest.raises(TypeError, match=f"^save: leaf 'a/1' is {message}"):
        nn.save(path, {"a": [1.0, leaf]})
    assert nn.load(path, {"old": 0}) == {"old": 1}
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_integers_beyond_64_bits_are_refused(path, value):
    with pytest.raises(ValueError, match=rf"save: leaf 'n' is {value}, expected .* 64 bits"):
        nn.save(path, {"n": value})


def test_like_has_arrays_only(path):
    nn.save(path, {"a": 1})
    with pytest.raises(TypeError, match="load: leaf 'a' is a str, expected an array or a number"):
        nn.load(path, {"a": "text"})


def test_traced_and_donated_arrays_are_refused(path):
    with pytest.raises(TypeError, match=r"save: leaf 'x' is traced, .* outside of jit"):
        jax.jit(lambda x: nn.save(path, {"x": x}))(jnp.ones(3))
    gone = jnp.ones(3)
    gone.delete()
    with pytest.raises(ValueError, match="save: leaf 'x' was deleted or donated"):
        nn.save(path, {"x": gone})
    nn.save(path, {"x": jnp.ones(3)})
    assert_same(nn.load(path, {"x": gone}), {"x": jnp.ones(3)})  # its shape is all that is needed


def test_paths_that_are_the_same_are_refused(path):
    ambiguous = {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}
    with pytest.raises(ValueError, match=r"save: two leaves have the path 'a/b'.*contain '/'"):
        nn.save(path, ambiguous)
    assert not path.exists()
    nn.save(path, {"a/b": 1, "c": 2})  # by itself it is a name like another
    assert nn.load(path, {"a": {"b": 0}, "c": 0}) == {"a": {"b": 1}, "c": 2}
    with pytest.raises(ValueError, match="load: two leaves have the path 'a/b'"):
        nn.load(path, ambiguous)


def test_names_that_the_format_has_not_are_refused(path):
    with pytest.raises(ValueError, match="save: a leaf is named '__metadata__'"):
        nn.save(path, {"__metadata__": 1})
    with pytest.raises(ValueError, match=r"save: the path 'a/\\ud800' is not valid Unicode"):
        nn.save(path, {"a": {"\ud800": 1}})


# Metadata


def test_metadata_come_back(path):
    metadata = {"": "", "é\n\"'\\": '{"jaxnn.sha256":"0"}', "epoch": "3"}
    nn.save(path, {"jaxnn.sha256": 1}, metadata=metadata)
    assert nn.saved_metadata(path) == metadata
    assert nn.load(path) == {"jaxnn.sha256": 1}
    nn.save(path, {})
    assert nn.saved_metadata(path) == {}


def test_metadata_are_strings_and_not_ours(path):
    with pytest.raises(TypeError, match="save: metadata has 'epoch': 3, expected strings"):
        nn.save(path, {}, metadata={"epoch": 3})
    with pytest.raises(ValueError, match=r"save: metadata has 'jaxnn.leaves', expected no name"):
        nn.save(path, {}, metadata={"jaxnn.leaves": "x"})
    with pytest.raises(ValueError, match=r"'\\udfff' in metadata is not valid Unicode"):
        nn.save(path, {}, metadata={"a": "\udfff"})


# Other programs


@pytest.fixture
def peer():
    return pytest.importorskip("safetensors.numpy")


def test_the_data_are_aligned(path):
    tree = {name: any_bits(name, (3,)) for name in (*SAFETENSORS, *AS_BYTES)}
    nn.save(path, tree, metadata={"odd": "x"})
    header = raw_header(path)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    del header["__metadata__"]
    for name, code in SAFETENSORS.items():
        assert header[name]["dtype"] == code
        assert header[name]["data_offsets"][0] % tree[name].dtype.itemsize == 0


def test_safetensors_reads_what_we_write(path, peer):
    of_numpy = [n for n in SAFETENSORS if n == "bfloat16" or not n.startswith(("float8", "bf"))]
    tree = {name: any_bits(name, (2, 3)) for name in of_numpy if name != "bfloat16"}
    nn.save(path, {"a": [tree, np.float64(3), np.zeros((0, 2))]}, metadata={"epoch": "3"})
    got = peer.load_file(path)
    for name, value in tree.items():
        assert got[f"a/0/{name}"].dtype == value.dtype
        assert got[f"a/0/{name}"].tobytes() == value.tobytes()
    assert (got["a/1"], got["a/1"].shape, got["a/2"].shape) == (3, (), (0, 2))
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata()["epoch"] == "3"


@pytest.mark.parametrize("n", range(9))
def test_safetensors_reads_headers_of_any_length(path, peer, n):
    nn.save(path, {"x" * n: np.arange(3.0), "key": jax.random.key(1)})
    np.testing.assert_array_equal(peer.load_file(path)["x" * n], np.arange(3.0))


def test_torch_reads_what_we_write(path, peer):
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    types = {
        "bfloat16": torch.bfloat16,
        "float8_e4m3fn": torch.float8_e4m3fn,
        "float8_e5m2": torch.float8_e5m2,
        "complex64": torch.complex64,
        "bool": torch.bool,
        "int8": torch.int8,
    }
    tree = {name: jnp.asarray(any_bits(name, (2, 3))) for name in types}
    nn.save(path, tree)
    for name, got in load_file(path).items():
        assert (got.dtype, tuple(got.shape)) == (types[name], (2, 3))
        assert got.view(torch.uint8).numpy().tobytes() == np.asarray(tree[name]).tobytes()


def test_we_read_what_safetensors_writes(path, peer):
    names = [name for name in SAFETENSORS if not name.startswith(("float8", "bf"))]
    tree = {f"layer.{name}": any_bits(name, (3, 2)) for name in names}
    tree |= {"empty": np.zeros((0, 4)), "scalar": np.array(2.5)}
    peer.save_file(tree, path, {"format": "np"})
    assert_same(nn.load(path, tree), tree)
    assert_same(nn.load(path), dict(sorted(tree.items())))
    assert nn.saved_metadata(path) == {"format": "np"}


def test_we_read_the_weights_of_torch(path, peer):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1).to(torch.bfloat16))
    save_file(module.state_dict(), path)
    got = nn.load(path)
    for name, weight in module.state_dict().items():
        np.testing.assert_array_equal(got[name].astype(np.float32), weight.float().numpy())
    assert got["1.bias"].dtype == jnp.bfloat16


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(), "b": entry()}, "'b' overlaps"),
        ({"a": entry(shape=(1,), offsets=(0, 4))}, "8 bytes of data where its header says 4"),
        ({"a": entry(shape=(1,), offsets=(4, 8))}, "'a' has a hole before it"),
        ({"a": entry(shape=(3,), offsets=(0, 12))}, "8 bytes of data where its header says 12"),
        ({"a": entry(shape=(3,))}, r"'a' has data_offsets \[0, 8\], but .* takes 12"),
        ({"a": entry(shape=(2**62, 2**62, 16))}, r"'a' has shape .* which no array has"),
        ({"a": entry(shape=(2**62, 0), offsets=(0, 0))}, r"'a' has shape .* which no array has"),
        ({"x" * 5000: entry()}, "it has a name of 5000 characters"),
        ({"a": entry(shape=(-1, -2))}, r"'a' has shape \[-1, -2\]"),
        ({"a": entry(shape=(True, 2))}, "'a' has shape"),
        ({"a": entry(shape=(2.0,))}, "'a' has shape"),
        ({"a": entry(offsets=(8, 0))}, "'a' has data_offsets"),
        ({"a": entry(offsets=(0, 8, 8))}, "'a' has shape"),
        ({"a": entry(offsets=(-8, 0))}, "'a' has shape"),
        ({"a": entry(dtype="F31")}, "'a' has dtype 'F31', which is none of BOOL, U8"),
        ({"a": entry(dtype=[])}, r"'a' has dtype \[\]"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "the entry of 'a' is not"),
        ({"a": 3}, "the entry of 'a' is not"),
        ({"a": entry(), "__metadata__": {"k": 3}}, "__metadata__ is not from strings"),
        ({"a": entry(), "__metadata__": "k"}, "__metadata__ is not from strings"),
        (b'{"a":{},"a":{}}', "'a' is there twice"),
        ([], "not a JSON object"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ('{"a":1}'.encode("utf-16"), "not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_header_of_another_program_is_checked(path, header, message):
    write_raw(path, header, bytes(8))
    with pytest.raises(ValueError, match=f"load: .*tree.safetensors is damaged.*: .*{message}"):
        nn.load(path)
    with pytest.raises(ValueError, match=r"saved_metadata: .*tree.safetensors is damaged"):
        nn.saved_metadata(path)


def test_a_header_of_another_program_that_is_right_passes(path):
    write_raw(path, {"a": entry()}, bytes(8))
    assert_same(nn.load(path), {"a": np.zeros(2, np.float32)})


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, b"\x10" + bytes(7) + b"{}"])
def test_a_file_that_is_too_short_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="do not hold the header"):
        nn.load(path, {})


def test_booleans_are_zero_or_one(path):
    write_raw(path, {"a": entry("BOOL") | {"data_offsets": [0, 2]}}, b"\x01\x02")
    with pytest.raises(ValueError, match="leaf 'a' has booleans that are neither 0 nor 1"):
        nn.load(path)


def test_a_file_that_was_rewritten_with_our_metadata_is_refused(path, peer):
    nn.save(path, {"a": np.ones(2)})
    metadata = raw_header(path)["__metadata__"]
    peer.save_file({"a": np.zeros(2)}, path, metadata)
    with pytest.raises(ValueError, match="is damaged"):
        nn.load(path)


def reseal(path, old, new):
    """Change the header of a file of ours, and give it the digest that it then must have."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert len(old) == len(new)
    assert content.count(old) == 1
    path.write_bytes(hostile_files.resealed(content[:start].replace(old, new) + content[start:]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"w":{"dtype"', b'"v":{"dtype"', "is damaged .* its metadata are of other leaves"),
        (b"jaxnn.leaves", b"jaxnn.LEAVES", "is damaged .* its metadata are of other leaves"),
        (b"complex128", b"complex256", "leaf 'w' is said to have dtype 'complex256', expected one"),
        (b"threefry2x32", b"threefry2x33", "leaf 'k' does not have keys of 'threefry2x33'"),
    ],
    ids=["name", "notes", "dtype", "keys"],
)
def test_a_file_whose_digests_are_right_is_still_checked(path, old, new, message):
    nn.save(path, {"w": np.ones(3, complex), "k": jax.random.key(0)})
    reseal(path, b"complex128", b"complex128")
    assert nn.load(path).keys() == {"w", "k"}
    reseal(path, old, new)
    with pytest.raises(ValueError, match=f"load: .*{message}"):
        nn.load(path)


# Several devices

OVER_DEVICES = """
    import sys, tracemalloc
    import jax, jax.numpy as jnp, numpy as np, jaxnn as nn
    from jax.sharding import NamedSharding, PartitionSpec

    path, size = sys.argv[1], 1 << 18
    mesh = jax.make_mesh((4,), ("d",))
    over, whole = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("d",), ()))
    make = lambda i, sharding: jax.device_put(np.arange(size, dtype=np.float32) + i, sharding)
    tree = {"over": [make(i, over) for i in range(8)], "whole": make(9, whole)}
    tree["keys"] = jax.device_put(jax.random.split(jax.random.key(0), 4), over)
    tracemalloc.start()
    nn.save(path, tree)
    assert tracemalloc.get_traced_memory()[0] < 1e6, "save keeps copies"
    assert tracemalloc.get_traced_memory()[1] < 2.5 * 4 * size, "save has more than one leaf"
    tracemalloc.stop()
    for like in (tree, jax.tree.map(lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding), tree)):
        got = nn.load(path, like)
        for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
            assert ours.sharding == theirs.sharding and ours.dtype == theirs.dtype
        assert all(np.array_equal(a, b) for a, b in zip(got["over"], tree["over"]))
        assert np.array_equal(got["whole"], tree["whole"])
        assert np.array_equal(*(jax.random.key_data(t["keys"]) for t in (got, tree)))
    print("done")
"""


def test_sharded_arrays_come_back_and_are_copied_one_by_one(path):
    flags = "--xla_force_host_platform_device_count=4"
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OVER_DEVICES), str(path)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.stdout == "done\n", out.stderr


# A part


def test_a_file_that_another_program_wrote_again_is_loaded(tmp_path):
    peer = pytest.importorskip("safetensors")
    path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tree = {
        "z": np.ones((2, 3), np.complex128),
        "a": np.arange(4, dtype=np.int8),
        "k": jax.random.key(3),
    }
    nn.save(path, tree, metadata={"epoch": "3"})
    with peer.safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())[::-1]}
        peer.numpy.save_file(tensors, again, file.metadata())
    found = nn.load(again, tree)
    assert found["z"].dtype == np.complex128
    np.testing.assert_array_equal(found["a"], tree["a"])
    assert nn.saved_metadata(again) == {"epoch": "3"}
    peer.numpy.save_file(tensors, again)  # without the metadata it is a file of anybody's
    assert nn.load(again)["z"].dtype == np.uint8


def test_a_part_of_a_tree_is_loaded_and_the_rest_told(tmp_path):
    path = tmp_path / "a.safetensors"
    nn.save(path, {"encoder": {"0": jnp.ones(2), "1": jnp.zeros(3)}, "old": jnp.ones(1)})
    like = {"model": [jnp.full(2, 5.0), jnp.full(3, 5.0)], "head": jnp.full(4, 5.0)}
    tree, missing, unexpected = nn.load_partial(path, like, rename={"encoder/*": "model/*"})
    assert missing == ("head",)
    assert unexpected == ("old",)
    assert [x.tolist() for x in tree["model"]] == [[1, 1], [0, 0, 0]]
    assert tree["head"] is like["head"]


def test_the_first_pattern_counts_and_stars_keep_their_order(tmp_path):
    path = tmp_path / "a.safetensors"
    nn.save(path, {"a": {"x": jnp.ones(1), "y": jnp.zeros(1)}})
    like = {"x": {"a": jnp.zeros(1)}, "z": jnp.ones(1)}
    tree, missing, unexpected = nn.load_partial(path, like, rename={"a/y": "z", "*/*": "*/*"})
    assert (missing, unexpected) == (("x/a",), ("a/x",))
    assert tree["z"].tolist() == [0]
    nn.save(path, {"a": {"b": {"c": jnp.ones(1)}}})
    like = {"x": {"a": {"b": {"y": {"c": jnp.zeros(1)}}}, "b": {"y": {"c": jnp.zeros(1)}}}}
    found = nn.load_partial(path, like, rename={"a/*/*": "x/*/y/*"})
    assert found.missing == ("x/a/b/y/c",)


@pytest.mark.parametrize(
    ("like", "rename", "error", "message"),
    [
        ({"a": jnp.ones(3)}, {}, ValueError, r"'a' has shape \(2,\).*expected shape \(3,\)"),
        ({"a": np.ones(2)}, {}, ValueError, "leaf 'a' has .* float32, expected .* float64$"),
        ({"c": np.ones(2)}, {"b": "c"}, ValueError, "leaf 'b' has .*, expected .* for 'c'"),
        ({"w": jax.ShapeDtypeStruct((2,), float)}, {}, ValueError, "'w' .* with jax_enable_x64"),
        (
            {"c": jax.ShapeDtypeStruct((2,), "float32")},
            {},
            ValueError,
            "lacks 'c', and like has no array to keep there",
        ),
        ({"a": jnp.ones(2)}, {"*": "a*b*"}, ValueError, "expected as many stars in both"),
        ({"a": jnp.ones(2)}, {"b": "a"}, ValueError, "makes 'a' of '.' and of '.'"),
        ({"a": jnp.ones(2)}, {"b": 3}, TypeError, "rename is {'b': 3}, expected a mapping"),
        ({"a": jnp.ones(2)}, "b", TypeError, "rename is 'b', expected a dict"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(like, rename, error, message, tmp_path):
    nn.save(tmp_path / "a.safetensors", {"a": jnp.ones(2), "b": jnp.ones(2), "w": np.ones(2)})
    with pytest.raises(error, match=f"load_partial: .*{message}"):
        nn.load_partial(tmp_path / "a.safetensors", like, rename=rename)
