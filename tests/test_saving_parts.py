"""A tree of several processes: a file for each, and one tree again for any number of them."""

import json
import os
from contextlib import ExitStack

import jax
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._files.drafts import draft
from jaxnn._files.spread import Piece, Spread, mark_of
from tests import processes
from tests.test_hostile_files import resealed

ARRAY = np.arange(24, dtype=np.float32).reshape(4, 6)
QUARTERS = {
    0: [(range(2), range(3)), (range(2), range(3, 6))],
    1: [(range(2, 4), range(3))],
    2: [(range(2, 4), range(3, 6))],
}


def of_process(array, owned, process):
    """What a process has of an array whose regions are `owned`."""
    spread = Spread.__new__(Spread)
    spread.shape, spread.dtype, spread.impl = array.shape, array.dtype, None
    spread.owners = frozenset(owned)
    spread.pieces = [Piece(region, array[np.ix_(*region)]) for region in owned.get(process, [])]
    return spread


def saved(path, owned, monkeypatch, mark="0" * 32, array=ARRAY):
    """Write a file and its parts, one process after the other."""
    with ExitStack() as stack:
        for process in reversed(range(3)):
            monkeypatch.setattr(jax, "process_index", lambda process=process: process)
            tree = {"a": of_process(array, owned, process), "b": np.arange(3)}
            stack.enter_context(draft(str(path), tree, {"epoch": "7"}, mark))
        monkeypatch.undo()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tree.safetensors"


def parts_beside(path):
    return sorted(file.name for file in path.parent.glob("part-*"))


def change_part(path, process, old, new):
    """Change the header of a part as somebody might who means it."""
    part = path.with_name(f"part-{'0' * 32}-{process}.safetensors")
    raw = part.read_bytes()
    length = int.from_bytes(raw[:8], "little") + 8
    header = json.loads(raw[8:length])
    notes = header["__metadata__"]["jaxnn.leaves"].replace(old, new)
    header["__metadata__"]["jaxnn.leaves"] = notes
    text = json.dumps(header, separators=(",", ":")).encode()
    part.write_bytes(resealed(len(text).to_bytes(8, "little") + text + raw[length:]))


def test_parts_are_one_tree(path, monkeypatch):
    saved(path, QUARTERS, monkeypatch)
    loaded = nn.load(path)
    np.testing.assert_array_equal(loaded["a"], ARRAY)
    np.testing.assert_array_equal(loaded["b"], np.arange(3))
    assert nn.saved_metadata(path) == {"epoch": "7"}
    assert nn.load_partial(path, {"a": ARRAY}).unexpected == ("b",)


def test_one_process_that_has_all_writes_an_ordinary_file(path, monkeypatch):
    saved(path, {0: [(range(4), range(6))]}, monkeypatch)
    written = path.read_bytes()
    nn.save(path, {"a": ARRAY, "b": np.arange(3)}, metadata={"epoch": "7"})
    assert path.read_bytes() == written
    assert parts_beside(path) == []


def test_parts_go_with_the_last_file_that_has_them(path, monkeypatch):
    saved(path, QUARTERS, monkeypatch)
    os.link(path, path.with_name("older.safetensors"))
    saved(path, QUARTERS, monkeypatch, "1" * 32, 2 * ARRAY)
    assert len(parts_beside(path)) == 4
    np.testing.assert_array_equal(nn.load(path.with_name("older.safetensors"))["a"], ARRAY)
    nn.save(path, {"a": ARRAY})
    assert parts_beside(path) == [f"part-{'0' * 32}-{i}.safetensors" for i in (1, 2)]
    stale = path.with_name(f"part-{'2' * 32}-1.safetensors")
    stale.write_bytes(b"")
    nn.save(path, {"a": ARRAY})
    assert stale.exists()  # somebody may be writing it
    os.utime(stale, (0, 0))
    nn.save(path, {"a": ARRAY})
    assert not stale.exists()


def test_a_failure_leaves_what_was_there(path, monkeypatch):
    saved(path, QUARTERS, monkeypatch)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        tree = {"a": of_process(2 * ARRAY, QUARTERS, process)}
        with pytest.raises(OSError, match="full"), draft(str(path), tree, {}, "1" * 32):
            raise OSError("full")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"at":[2,0]', '"at":[1,0]', "leave gaps or overlap along axis 0"),
        ('"at":[2,0]', '"at":[2,3]', "has 4 parts, expected 4 that differ"),
        ('"at":[2,0]', '"at":[0,2]', "leave gaps or overlap"),
        ('"at":[2,0]', '"at":[2,1000000000000]', "is said to lie at"),
        ('"at":[2,0]', '"at":[-2,0]', "is said to lie at"),
        ('"at":[2,0]', '"at":[2]', "is said to lie at"),
        ('"at":[2,0]', '"at":null', "is said to lie at"),
        ('"at":[2,0]', '"at":[2,[0]]', "is said to lie at"),
        ('"shape":[4,6]', '"shape":[4,7]', "different shapes or dtypes"),
        ('"shape":[4,6]', f'"shape":[{2**62},{2**62}]', "which no array has"),
        ('"shape":[4,6]', '"shape":{}', "is said to lie at"),
        ('"leaf":"a"', '"leaf":"b"', "leaf 'b' has parts of different shapes"),
        ('"leaf":"a"', '"leaf":1', "its metadata say"),
        ('"leaf":"a",', "", "its metadata say"),
    ],
)
def test_parts_that_do_not_fit_are_refused(path, monkeypatch, old, new, words):
    saved(path, QUARTERS, monkeypatch)
    change_part(path, 1, old, new)
    with pytest.raises(ValueError, match=f"load: .*tree.safetensors is damaged.*{words}"):
        nn.load(path)


def test_parts_that_are_missing_or_damaged_are_refused(path, monkeypatch):
    saved(path, QUARTERS, monkeypatch)
    first, second = (path.with_name(name) for name in parts_beside(path))
    raw = second.read_bytes()
    second.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged: leaf 'a' does not have its digest"):
        nn.load(path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"its part part-0.*-2.safetensors is of something else"):
        nn.load(path)
    second.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"its part part-0.* do not hold the header"):
        nn.load(path)
    second.unlink()
    with pytest.raises(ValueError, match=r"its part part-0.*-2.safetensors is not there"):
        nn.load(path)
    assert mark_of(path) == "0" * 32


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_save_together(count, tmp_path):
    processes.run(count, "saving", tmp_path)


@pytest.mark.slow
def test_a_full_disk_of_one_process(tmp_path):
    processes.run(2, "full_disk", tmp_path)
