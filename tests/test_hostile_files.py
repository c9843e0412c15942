"""No file harms who opens it: a bad one is a ValueError with its path, whatever is in it."""

import contextlib
import copy
import functools
import hashlib
import itertools
import json
import os
import random
import re
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.training_cases import LINEAR, SGD, fitted

LIKE = {"a": jnp.zeros((2, 3)), "key": jax.random.key(0)}
ZEROS = "0" * 64


def sealed(content, data=b"", notes=None):
    """A file of a header with a valid seal, as if somebody had meant it."""
    if notes is not None:
        metadata = {"jaxnn.leaves": json.dumps(notes), "jaxnn.sha256": ZEROS}
        content = {"__metadata__": metadata, **content}
    if not isinstance(content, bytes):
        content = json.dumps(content, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return resealed(len(content).to_bytes(8, "little") + content + data)


def resealed(raw):
    """The file with the seal that its header should have, if it has one and can be read at all."""
    length = int.from_bytes(raw[:8], "little") + 8
    found = re.search(rb'"jaxnn.sha256":"([0-9a-f]{64})"', raw[:length])
    try:
        content = json.loads(raw[8:length])
        metadata = dict(content.pop("__metadata__"))
        forms = {name: [entry["dtype"], entry["shape"]] for name, entry in content.items()}
        metadata.pop("jaxnn.sha256")
        text = json.dumps([forms, metadata], sort_keys=True, separators=(",", ":"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return raw
    seal = hashlib.sha256(text.encode()).hexdigest().encode()
    return raw if found is None else raw.replace(found[1], seal, 1)


def tensor(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ONE = {"a": tensor()}
DATA = bytes(24)
CRAFTED = {
    "empty": b"",
    "short": b"\x01\x00",
    "no header": (10**6).to_bytes(8, "little"),
    "length of a header above all": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": sealed(b"nothing"),
    "no text": sealed(b"\xff\xfe{}"),
    "no object": sealed(b"[1, 2]"),
    "number": sealed(b"3"),
    "deep": sealed(b"[" * 100_000 + b"]" * 100_000),
    "deep object": sealed(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a million nines": sealed({"a": tensor(shape=[9] * 1_000_000)}),
    "digits": sealed(
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 100_000 + b'],"data_offsets":[0,4]}}'
    ),
    "equal names": sealed(
        b"{" + b",".join(b'"a":' + json.dumps(tensor()).encode() for _ in range(20_000)) + b"}"
    ),
    "infinity": sealed(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}', bytes(4)),
    "float": sealed({"a": tensor(shape=[6.0])}, DATA),
    "boolean": sealed({"a": tensor(shape=[True, 6])}, DATA),
    "negative": sealed({"a": tensor(shape=[-2, -3])}, DATA),
    "negative place": sealed({"a": tensor(offsets=(-24, 0))}, DATA),
    "place beyond": sealed({"a": tensor(offsets=(8, 32))}, DATA),
    "three places": sealed({"a": tensor(offsets=(0, 24, 24))}, DATA),
    "shape as text": sealed({"a": tensor(shape="23")}, DATA),
    "no shape": sealed({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, DATA),
    "dtype as list": sealed({"a": tensor(dtype=[])}, DATA),
    "unknown dtype": sealed({"a": tensor(dtype="F31")}, DATA),
    "entry as null": sealed({"a": None}),
    "metadata as list": sealed({"__metadata__": [], **ONE}, DATA),
    "metadata of numbers": sealed({"__metadata__": {"a": 1}, **ONE}, DATA),
    "hole": sealed({"a": tensor(offsets=(0, 24)), "b": tensor(offsets=(48, 72))}, bytes(72)),
    "overlap": sealed({"a": tensor(), "b": tensor(offsets=(12, 36))}, bytes(36)),
    "too little data": sealed(ONE, bytes(8)),
    "too much data": sealed(ONE, bytes(80)),
    "notes of null": sealed(ONE, DATA, notes={"a": None}),
    "notes of lists": sealed(ONE, DATA, notes={"a": {"dtype": []}}),
    "notes as list": sealed(ONE, DATA, notes=["a"]),
    "notes as text": sealed(ONE, DATA, notes="a"),
    "notes of others": sealed(ONE, DATA, notes={"b": {"sha256": ZEROS}}),
    "digest as number": sealed(ONE, DATA, notes={"a": {"sha256": 3}}),
    "more digests than data": sealed(ONE, DATA, notes={"a": {"sha256": ZEROS * 2}}),
    "unknown note": sealed(ONE, DATA, notes={"a": {"sha256": ZEROS, "code": "import os"}}),
    "unknown dtype in a note": sealed(ONE, DATA, notes={"a": {"sha256": ZEROS, "dtype": "int3"}}),
    "unknown keys": sealed(ONE, DATA, notes={"a": {"sha256": ZEROS, "key": "enigma"}}),
    "deep notes": sealed(
        {"__metadata__": {"jaxnn.leaves": "[" * 10**5, "jaxnn.sha256": ZEROS}, **ONE}, DATA
    ),
    "long name": sealed({"n" * 1_000_000: tensor(dtype="F31")}),
    "long dtype": sealed({"a": tensor(dtype="F" * 1_000_000)}),
    "long note": sealed(ONE, DATA, notes={"a": {"sha256": ZEROS, "dtype": "f" * 1_000_000}}),
    "many tensors": sealed({str(i): tensor(shape=[0], offsets=[0, 0]) for i in range(50_001)}),
    "many items": sealed(b'{"a":[' + b"1," * 2**20 + b"1]}"),
    "many equal names": sealed(b"{" + b'"a":1,' * 2**20 + b'"a":1}'),
    "nothing of a large shape": sealed({"a": tensor(shape=[2**40, 2**40, 0], offsets=[0, 0])}),
    "pickle": b"\x80\x04\x95" + bytes(50),
}


def crafted_by_field():
    """A file that is right but for one field, which has another value."""
    header = {"a": tensor(), "__metadata__": {"jaxnn.leaves": "", "jaxnn.sha256": ZEROS}}
    notes = {"a": {"sha256": ZEROS, "dtype": "int4", "key": "fry"}}
    fields = [
        *itertools.product([header], [("a",), ("__metadata__",), ("__metadata__", "x")]),
        *itertools.product([header], [("a", name) for name in (*tensor(), "other")]),
        *itertools.product([notes], [("a",), *(("a", name) for name in notes["a"])]),
    ]
    values = [None, True, -1, 0, 1.5, 2**63, 10**18, "", "x", [], {}, [[]], [None], [-1, 2]]
    values += [[10**18, 10**18], [2**62, 0], {"x": {}}, {"x": 1}]
    for (whole, path), value in itertools.product(fields, values):
        changed = copy.deepcopy(whole)
        functools.reduce(dict.__getitem__, path[:-1], changed)[path[-1]] = value
        if whole is header:
            yield sealed(changed, DATA)
        else:
            yield sealed(ONE, DATA, notes=changed)


def readers(path):
    names = {"a": "a", "key": None}
    yield lambda: nn.load(path)
    yield lambda: nn.load(path, LIKE)
    yield lambda: nn.load_partial(path, LIKE, rename={"*n*n*x": "*x*x*"})
    yield lambda: nn.saved_metadata(path)
    yield lambda: nn.import_params(path, LIKE, names)


def attempt(path, read):
    """Whether a file was read; what it raises instead must be meant."""
    try:
        read()
    except (ValueError, OSError) as error:
        refused = error
    else:
        return True
    assert str(path) in str(refused), refused
    return False


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_file_is_refused(case, tmp_path):
    path = tmp_path / "crafted.safetensors"
    path.write_bytes(CRAFTED[case])
    found = [attempt(path, read) for read in readers(path)]
    assert found[:2] == [False, False]


def test_a_file_with_one_wrong_field_is_read_or_refused(tmp_path):
    path = tmp_path / "crafted.safetensors"
    for content in crafted_by_field():
        path.write_bytes(content)
        for read in readers(path):
            attempt(path, read)


@contextlib.contextmanager
def counting_calls():
    """How many functions are called: what work costs, whatever the machine does besides."""
    count = [0]

    def profile(frame, event, arg):
        count[0] += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)


@pytest.mark.slow
@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_file_costs_no_more_than_its_size(case, tmp_path):
    path = tmp_path / "crafted.safetensors"
    path.write_bytes(CRAFTED[case])
    for read in readers(path):
        tracemalloc.start()
        attempt(path, read)
        assert tracemalloc.get_traced_memory()[1] < len(CRAFTED[case]) + 1e8
        tracemalloc.stop()
        with counting_calls() as calls:
            attempt(path, read)
        assert calls[0] < 2e6


def test_a_message_is_short(tmp_path):
    path = tmp_path / "crafted.safetensors"
    for case in ("long name", "long dtype", "long note", "many equal names"):
        path.write_bytes(CRAFTED[case])
        with pytest.raises(ValueError, match="is damaged") as refused:
            nn.load(path)
        assert len(str(refused.value)) < 1000


def test_the_seal_of_crafted_files_is_right(tmp_path):
    path = tmp_path / "crafted.safetensors"
    path.write_bytes(CRAFTED["notes of lists"])
    with pytest.raises(ValueError, match=r"its metadata say {'dtype': \[\]} of 'a'"):
        nn.load(path)


def mutated(content, rng):
    """Some bytes of a file changed, cut out, doubled or put elsewhere, above all in its header."""
    content = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        end = rng.choice([8, 40, 400, len(content)])
        at = rng.randrange(min(end, len(content)) or 1)
        match rng.randrange(5):
            case 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                content[at : at + 1] = rng.choice([b"9", b"-", b'"', b"[", b"}", b"null", b"1e9"])
            case 2:
                del content[at : at + rng.randrange(1, 20)]
            case 3:
                content[at:at] = content[at : at + rng.randrange(1, 20)]
            case _:
                other = rng.randrange(len(content) or 1)
                content[at : at + 4] = content[other : other + 4]
    return bytes(content)


def mutate_many(path, whole, count, seed):
    rng = random.Random(seed)
    read_at_all = 0
    for i in range(count):
        changed = mutated(whole, rng)
        path.write_bytes(resealed(changed) if i % 2 else changed)
        read_at_all += sum(attempt(path, read) for read in readers(path))
    return read_at_all


@pytest.fixture
def whole(tmp_path):
    nn.save(tmp_path / "whole.safetensors", LIKE, metadata={"epoch": "3"})
    return (tmp_path / "whole.safetensors").read_bytes()


def test_mutated_files_are_read_or_refused(whole, tmp_path):
    mutate_many(tmp_path / "mutated.safetensors", whole, 300, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_hundred_thousand_mutated_files(seed, whole, tmp_path):
    mutate_many(tmp_path / "mutated.safetensors", whole, 10_000, seed)


def test_pipes_and_devices_are_refused(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("pipes with a name are POSIX's")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        assert not any(attempt(path, read) for read in readers(path))
    assert not any(attempt(tmp_path, read) for read in list(readers(tmp_path))[:3])


def test_an_index_is_checked(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for content in ("[" * 10**5, "9" * 10**5, '{"weight_map": {"a": "/etc/passwd"}}', "\xff", ""):
        index.write_text(content, "latin-1")
        assert not attempt(index, lambda: nn.import_params(tmp_path, LIKE, {"a": "a"}))


OPTIONS = {"model": LINEAR, "batch_size": 8, "epochs": 2, "optimizer": SGD}
NONSENSE = {
    "number": [-1, "x", None, 1.5, True],
    "step": [-3, "x", [], None],
    "seconds": ["x", -1.0, None, []],
    "seen": [3, [1], [1, -1], ["a", "b"], None],
    "best_epoch": ["x", -7, [None]],
    "told": [None, [], "x"],
    "versions": [None, {"jax": 3}],
    "callbacks": [None, [], 3],
    "data": [3, [], {"bytes": 3}, {"value": 1, "bytes": ""}],
}


def with_metadata(path, text):
    """The checkpoint with other metadata, sealed as if they were meant."""
    nn.save(path, nn.load(path), metadata={"fit": text})


@pytest.fixture
def checkpoint(tmp_path):
    fitted(checkpoint=tmp_path, **OPTIONS)
    path = tmp_path / "last.safetensors"
    return path, json.loads(nn.saved_metadata(path)["fit"])


def refused(path, text):
    with_metadata(path, text)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        fitted(checkpoint=path.parent, resume=True, **OPTIONS)


def test_what_a_checkpoint_says_is_checked_field_by_field(checkpoint):
    path, content = checkpoint
    for text in ("", "null", "[]", "3", "[" * 10**5, '{"number": 1}'):
        refused(path, text)
    for name, values in NONSENSE.items():
        for value in values:
            refused(path, json.dumps(content | {name: value}))
    with_metadata(path, json.dumps(content))
    assert len(fitted(checkpoint=path.parent, resume=True, **OPTIONS).history["loss"]) == 2


def test_arrays_of_a_checkpoint_that_say_nonsense_are_refused(checkpoint):
    path, content = checkpoint
    arrays = nn.load(path)
    for name, value in {
        "epoch": np.array(-3, np.int32),
        "step": np.array(-1, np.int32),
        "carry/train/params/kernel": np.zeros((2, 2), np.float32),
        "history/loss": np.zeros(1, np.float32),
    }.items():
        nn.save(path, arrays | {name: value}, metadata={"fit": json.dumps(content)})
        with pytest.raises(ValueError, match=re.escape(str(path))):
            fitted(checkpoint=path.parent, resume=True, **OPTIONS)
