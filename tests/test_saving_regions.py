"""Files are read by regions, block by block, each with a digest of its own."""

import jax
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._files import blocks
from jaxnn._files.saved import reading

SHAPES = [(), (0, 3), (7,), (5, 4), (3, 1, 6), (2, 3, 4, 5)]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 24)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_region_is_that_of_numpy(shape, tmp_path, small_blocks):
    rng, path = np.random.default_rng(0), tmp_path / "a.safetensors"
    array = rng.standard_normal(shape)
    nn.save(path, {"before": np.arange(3), "a": array})
    with reading("load", path) as saved:
        for _ in range(50):
            ends = [sorted(rng.integers(0, size + 1, 2)) for size in shape]
            region = tuple(range(int(a), int(b)) for a, b in ends)
            (got,) = saved.read("a", [region])
            np.testing.assert_array_equal(got, array[tuple(slice(a, b) for a, b in ends)])


def test_only_blocks_with_some_of_the_region_are_read(tmp_path, small_blocks):
    path, array = tmp_path / "a.safetensors", np.arange(24.0).reshape(8, 3)  # a block is a row
    nn.save(path, array)
    raw = bytearray(path.read_bytes())
    raw[-24 * 3] ^= 1
    path.write_bytes(raw)
    with reading("load", path) as saved:
        for rows in (range(5), range(6, 8), range(3, 3)):
            (got,) = saved.read("", [(rows, range(3))])
            np.testing.assert_array_equal(got, array[list(rows)])
        with pytest.raises(ValueError, match=r"a.safetensors: it is damaged: leaf ''.*its digest"):
            saved.read("", [(range(1), range(1)), (range(4, 6), range(1))])


def test_a_digest_of_the_whole_tensor_is_read_as_well(tmp_path, monkeypatch):
    path, array = tmp_path / "a.safetensors", np.arange(24.0).reshape(8, 3)
    nn.save(path, array)  # one digest, as of a file with larger blocks
    monkeypatch.setattr(blocks, "BLOCK", 32)
    np.testing.assert_array_equal(nn.load(path)[""], array)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with reading("load", path) as saved, pytest.raises(ValueError, match="its digest"):
        saved.read("", [(range(1), range(1))])


def test_a_sharding_says_where_leaves_lie(tmp_path):
    path, spread = tmp_path / "a.safetensors", nn.sharding(params=nn.fsdp(min_size=1))
    tree = {"kernel": np.ones((2, 8), np.float32), "key": jax.random.key(3), "n": np.int32(2)}
    nn.save(path, tree)
    loaded = nn.load(path, tree, sharding=spread)
    assert {leaf.sharding.mesh for leaf in loaded.values()} == {spread.mesh}
    jax.tree.map(np.testing.assert_array_equal, loaded["kernel"], tree["kernel"])
    assert loaded["key"] == tree["key"]
    assert nn.load(path, sharding=spread)["kernel"].sharding == loaded["kernel"].sharding
    with pytest.raises(ValueError, match=r"sharding: params: .* match no path"):
        nn.load(path, sharding=nn.sharding(params={"haed": nn.fsdp()}))
    with pytest.raises(TypeError, match=r"load: sharding is 3, expected nn.sharding"):
        nn.load(path, sharding=3)
    with pytest.raises(ValueError, match="leaf 'n' has shape"):
        nn.load(path, tree | {"n": np.zeros(2, np.int32)}, sharding=spread)
