"""Streamed data: mapped files, iterables of batches, and functions that make them."""

import functools
import mmap
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn._training.data import sources
from jaxnn._training.data.arrays import take_batch
from jaxnn._training.data.shuffle import epoch_seeds, shuffled_indices
from jaxnn._training.data.sources import as_source, is_streamed
from tests.parameters import each_value_once

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3, 2)).astype(np.float32)
Y = RNG.integers(0, 9, size=23).astype(np.int32)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


@pytest.fixture
def mapped(tmp_path):
    """Arrays as mapped files."""
    count = 0

    def write(array):
        nonlocal count
        count += 1
        path = tmp_path / f"{count}.bin"
        array.tofile(path)
        return np.memmap(path, array.dtype, "r+", shape=array.shape)

    return write


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def source_of(data, batch_size=None, shuffle_key=None, **options):
    return as_source("fit", "data", data, batch_size=batch_size, shuffle_key=shuffle_key, **options)


def drawn(source, epoch=0, skip=0):
    with source.batches(epoch, skip) as batches:
        return list(batches)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def counting(batches=3, size=2):
    """A function that makes an iterator of recognisable batches of an epoch."""

    def make(epoch):
        for i in range(batches):
            yield {"x": np.full((size, 3), 10 * epoch + i, np.float32)}

    return make


def numbers(batches):
    return [int(jax.tree.leaves(batch)[0].ravel()[0]) for batch in batches]


# What is streamed


class Loader:
    """An iterable of batches that can be gone through again."""

    def __init__(self, batches):
        self.all, self.begun = list(batches), 0

    def __len__(self):
        return len(self.all)

    def __iter__(self):
        self.begun += 1
        yield from self.all


IN_MEMORY = {
    "pair": (X, Y),
    "list": [X, Y],
    "dict": {"x": X, "y": jnp.asarray(Y)},
    "array": X,
    "JAX array": jnp.asarray(Y),
    "None": None,
    "number": 3,
}
STREAMED = {
    "list of batches": [(X, Y)],
    "loader": Loader([(X, Y)]),
    "generator": counting()(0),
    "function": counting(),
    "partial": functools.partial(counting(), 3),
    "map": map(np.asarray, [X]),
}


@pytest.mark.parametrize("kind", [*IN_MEMORY, *STREAMED])
def test_what_is_streamed(kind):
    assert is_streamed((IN_MEMORY | STREAMED)[kind]) == (kind in STREAMED)


def test_mapped_files_are_streamed_wherever_they_are(mapped):
    x = mapped(X)
    for data in (x, (x, Y), (X, mapped(Y)), {"in": [X, x]}, (x[3:], Y[3:])):
        assert is_streamed(data)
    assert not is_streamed((np.array(x), Y))


def test_a_tensor_is_data_in_memory(torch):
    assert not is_streamed(torch.zeros(3))
    assert not is_streamed((torch.zeros(3), torch.zeros(3)))


# Mapped files


take = jax.jit(take_batch, static_argnums=(1, 3))


def in_memory(data, n, size, key, epoch):
    """The batches of a run in memory."""
    data = jax.tree.map(jnp.asarray, data)
    seeds = None if key is None or size == n else epoch_seeds(key, epoch)
    starts = range(0, n, size)
    return [take(data, n, start, min(size, n - start), seeds) for start in starts]


@each_value_once
@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 100, None])
def test_mapped_files_give_the_batches_of_a_run_in_memory(batch_size, shuffled, mapped, key):
    size = min(batch_size or 23, 23)
    key = key if shuffled else None
    data = {"a": X, "more": (Y, jnp.asarray(X[:, 0]))}
    on_disk = {"a": mapped(X), "more": (mapped(Y), data["more"][1])}
    source = source_of(on_disk, batch_size, key)
    assert (source.steps, source.examples) == (-(-23 // size), 23)
    for epoch in (0, 3):
        expected = in_memory(data, 23, size, key, epoch)
        same(drawn(source, epoch), expected)
        same(drawn(source, epoch, skip=2), expected[2:])
    orders = [np.concatenate([b["more"][0] for b in drawn(source, e)]) for e in (0, 1)]
    np.testing.assert_array_equal(*map(np.sort, orders))
    assert (orders[0] == orders[1]).all() == (not shuffled or size == 23)


@each_value_once
@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("stored", [">f4", "<f8", ">i8", "<i2", "?", "<c16"])
def test_mapped_files_of_any_dtype(stored, shuffled, mapped, key):
    array = (X[:, 0] * 9).astype(stored)
    expected = jnp.asarray(array.astype(array.dtype.newbyteorder("=")))
    source = source_of((mapped(array), Y), 5, key if shuffled else None)
    batches = drawn(source)
    assert source.example[0].dtype == expected.dtype
    same(batches, in_memory((expected, Y), 23, 5, key if shuffled else None, 0))


def test_double_precision_reaches_the_thread(mapped, x64):
    source = source_of((mapped(X.astype(np.float64)), Y), 5)
    assert source.example[0].dtype == np.float64
    assert {batch[0].dtype for batch in drawn(source)} == {np.dtype(np.float64)}
    stream = source_of(lambda: [X.astype(np.float64)] * 3)
    assert {batch.dtype for batch in drawn(stream)} == {np.dtype(np.float64)}


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_batch_of_a_mapped_file_is_a_copy(shuffled, mapped, key):
    y = mapped(np.arange(4096, dtype=np.int32))
    with source_of((y, y), 1024, key if shuffled else None).batches(0) as batches:
        batch = next(batches)[0]
        before = np.array(batch)
        y[:] = -1
        np.testing.assert_array_equal(batch, before)
        assert (before >= 0).all()


def test_a_file_larger_than_memory_is_read_row_by_row(tmp_path, key):
    n = 2**31 + 5  # more than int32 counts
    try:
        x = np.memmap(tmp_path / "sparse.bin", np.float32, "w+", shape=(n, 128))  # a tebibyte
    except OSError:
        pytest.skip("the file system has no files as large and sparse")
    indices = shuffled_indices(epoch_seeds(key, 1), n, jnp.arange(2**31, 2**31 + 5, dtype="uint32"))
    x[np.asarray(indices)] = np.arange(5)[:, None]
    with source_of(x, 2**20, key).batches(1, skip=2**11) as batches:
        last = list(batches)
    assert [batch.shape for batch in last] == [(5, 128)]
    np.testing.assert_array_equal(last[0], np.broadcast_to(np.arange(5)[:, None], (5, 128)))


# Iterables, and functions that make them


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_loader_is_gone_through_once_an_epoch(prefetch):
    batches = [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], Y[16:])]
    loader = Loader(batches)
    source = source_of(loader, prefetch=prefetch)
    assert (source.steps, source.examples) == (3, None)
    assert [s.shape for s in source.example] == [(1, 3, 2), (1,)]
    for epoch in range(3):
        same(drawn(source, epoch), [tuple(map(jnp.asarray, batch)) for batch in batches])
    assert loader.begun == 3


def test_the_first_batch_is_drawn_once_and_not_lost():
    made = []

    def make(epoch):
        for i in range(4):
            made.append((epoch, i))
            yield np.array([10 * epoch + i])

    source = source_of(make)
    assert made == [(0, 0)]
    assert numbers(drawn(source, 0)) == [0, 1, 2, 3]
    assert made == [(0, i) for i in range(4)]
    assert numbers(drawn(source, 1)) == [10, 11, 12, 13]
    assert numbers(drawn(source, 1, skip=2)) == [12, 13]


def test_a_run_that_goes_on_in_a_later_epoch():
    closed = []

    def make(epoch):
        try:
            yield from counting(4)(epoch)
        finally:
            closed.append((epoch, threading.current_thread()))

    source = source_of(make)
    with source.batches(3, skip=2) as batches:
        assert closed == [(0, threading.main_thread())]
        assert numbers(batches) == [32, 33]
    assert [epoch for epoch, _ in closed] == [0, 3]
    again = source_of(counting(4))
    assert numbers(drawn(again, 0, skip=3)) == [3]
    assert drawn(again, 1, skip=4) == []
    assert numbers(drawn(source_of(Loader(counting(4)(0))), 5, skip=1)) == [1, 2, 3]


def test_how_a_function_is_called():
    class Maker:
        def __call__(self, epoch):
            return counting()(epoch)

    def with_default(epoch=7):
        return counting()(epoch)

    def other_default(start=7):
        return counting()(start)

    def bound(size, epoch, *, batches=3):
        return counting(batches, size)(epoch)

    def any_number(*args, **kwargs):
        assert not args
        return counting()(7)

    seven = [70, 71, 72]
    calls = {
        counting(): [20, 21, 22],
        Maker(): [20, 21, 22],
        with_default: [20, 21, 22],
        functools.partial(bound, 5): [20, 21, 22],
        other_default: seven,
        (lambda: counting()(7)): seven,
        (lambda: list(counting()(7))): seven,
        any_number: seven,
    }
    for function, expected in calls.items():
        assert numbers(drawn(source_of(function), 2)) == expected


def test_a_generator_serves_one_epoch():
    source = source_of(counting()(0))
    assert source.steps is None
    assert numbers(drawn(source, 0)) == [0, 1, 2]
    message = "fit: data is a generator that has no batches left for epoch 1: give a function that"
    with pytest.raises(ValueError, match=message):
        drawn(source, 1)


def test_an_iterator_may_start_again():
    class Restarting:
        def __iter__(self):
            self.i = 0
            return self

        def __next__(self):
            self.i += 1
            if self.i > 2:
                raise StopIteration
            return np.array([self.i])

        def close(self):
            raise AssertionError("it is the caller's")

    source = source_of(Restarting())
    assert [numbers(drawn(source, epoch)) for epoch in range(3)] == [[1, 2]] * 3


def test_a_source_without_len():
    class Endless:
        def __len__(self):
            raise TypeError("has no length")

        def __iter__(self):
            return counting()(0)

    assert source_of(Endless()).steps is None
    assert source_of(lambda: list(counting(5)(0))).steps == 5


@pytest.mark.parametrize("epoch", [0, 1])
def test_leaving_early_ends_the_thread_and_closes_the_source(epoch):
    closed, kept = [], []

    def batches(epoch):
        try:
            yield from counting(100)(epoch)
        finally:
            closed.append(threading.current_thread().name)

    def make(epoch):
        kept.append(batches(epoch))  # so that it is not closed for want of references
        return kept[-1]

    before = threading.enumerate()
    with source_of(make).batches(epoch) as drawn:
        next(drawn)
    assert closed == ["MainThread"] * epoch + ["jaxnn-prefetch"]
    assert threading.enumerate() == before


def test_an_error_of_the_source_comes_after_the_batches_before_it():
    def make(epoch):
        yield from counting(2)(epoch)
        raise OSError("the disk is gone")

    got = []
    with pytest.raises(OSError, match="gone"), source_of(make).batches(0) as batches:
        got.extend(batches)
    assert numbers(got) == [0, 1]


# Leaves


def page_aligned(shape):
    memory = mmap.mmap(-1, int(np.prod(shape)) * 4)
    return np.frombuffer(memory, np.float32).reshape(shape)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_buffer_that_the_source_overwrites(prefetch):
    buffer = page_aligned((64, 64))

    def make():
        for i in range(50):
            buffer[:] = i
            yield {"x": buffer, "part": buffer[:32]}
            buffer[:] = -1

    total = jax.jit(lambda batch: batch["x"].sum() / 64**2 + batch["part"].sum() / 32 / 64)
    with source_of(make, prefetch=prefetch).batches(0) as batches:
        results = []
        for batch in batches:
            results.append((total(batch), batch))
            time.sleep(1e-3 * (len(results) % 3 == 0))
    assert [float(sum) for sum, _ in results] == [2.0 * i for i in range(50)]
    assert numbers([batch for _, batch in results]) == list(range(50))


def test_a_tensor_that_the_source_overwrites(torch):
    for dtype in (torch.float32, torch.bfloat16):
        buffer = torch.zeros(64, 64, dtype=dtype)

        def make(buffer=buffer):
            for i in range(50):
                buffer.fill_(i)
                yield buffer
                buffer.fill_(-1)

        assert numbers(drawn(source_of(make))) == list(range(50))


def test_leaves_become_what_jax_makes_of_them():
    array = jnp.arange(4)
    batch = {
        "list": [X.astype(np.float64), Y.astype(np.int64)],
        "none": None,
        "scalar": np.float32(3),
        "strided": X[::2, ::-1],
        "jax": array,
        "bf16": np.ones(3, jnp.bfloat16),
        "bool": Y > 3,
        "keys": jax.random.split(jax.random.key(0), 4),
    }
    source = source_of(lambda: [batch, batch])
    for got in drawn(source):
        assert got["jax"] is array
        assert jax.tree.structure(got) == jax.tree.structure(batch)
        expected = jax.tree.map(jnp.asarray, batch)
        keys = expected.pop("keys")
        assert (got.pop("keys") == keys).all()
        same(got, expected)
    shapes = jax.tree.map(lambda leaf: leaf.shape, source.example)
    assert (shapes["list"], shapes["scalar"]) == ([(1, 3, 2), (1,)], ())


def test_tensors_of_torch(torch):
    batch = [
        torch.arange(6.0).reshape(2, 3).T,
        torch.tensor([1, 2]),
        torch.ones(3, dtype=torch.bfloat16),
        torch.tensor(2.0, dtype=torch.float64),
    ]
    (got,) = drawn(source_of(lambda: [batch]))
    expected = [
        jnp.arange(6.0).reshape(2, 3).T,
        jnp.array([1, 2]),
        jnp.ones(3, jnp.bfloat16),
        jnp.array(2.0),
    ]
    same(got, expected)
    with pytest.raises(TypeError, match=r"has a Tensor at '0', expected an array .* grad"):
        source_of(lambda: [[torch.ones(3, requires_grad=True)]])


def test_the_loader_of_torch(torch):
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    in_order = torch.utils.data.DataLoader(dataset, batch_size=8)
    source = source_of(in_order)
    assert source.steps == 3
    expected = [list(batch) for batch in in_memory((X, Y), 23, 8, None, 0)]
    for epoch in range(2):
        same(drawn(source, epoch), expected)
    shuffled = source_of(torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True))
    epochs = [np.concatenate([y for _, y in drawn(shuffled, e)]) for e in range(2)]
    assert (epochs[0] != epochs[1]).any()
    np.testing.assert_array_equal(*map(np.sort, epochs))


@pytest.mark.slow
def test_the_loader_of_torch_with_processes(torch):
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=2, multiprocessing_context="spawn"
    )
    source = source_of(loader)
    expected = [list(batch) for batch in in_memory((X, Y), 23, 4, None, 0)]
    same(drawn(source, 0), expected)
    with source.batches(1) as batches:
        same(next(batches), expected[0])
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":  # torch's own, which it does not wait for
            thread.join()


# Batches that differ


@pytest.fixture
def caught():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def batches_of(*sizes, last_axis=784):
    return [{"x": np.zeros((size, last_axis), np.float32)} for size in sizes]


def test_more_than_16_shapes_are_warned_of_once(caught):
    sizes = [*range(1, 17)] * 2
    source = source_of(lambda epoch: batches_of(*sizes, *range(17, 20) if epoch else ()))
    assert len(drawn(source, 0)) == 32
    assert not caught
    for epoch in (1, 2):
        assert len(drawn(source, epoch)) == 35
    (warning,) = caught
    assert warning.category is UserWarning
    assert str(warning.message) == (
        "fit: data has batches of more than 16 different shapes, (17, 784) last: each new one "
        "compiles the step again; nn.pad_to pads batches to few shapes"
    )


def test_structures_that_differ():
    source = source_of(lambda: [(X, Y), (X, Y), (X,)])
    got = []
    message = r"fit: data: .* differ in structure: a later one lacks '1'"
    with pytest.raises(ValueError, match=message), source.batches(0) as batches:
        got.extend(batches)
    assert len(got) == 2


def test_dtypes_that_differ():
    source = source_of(lambda: [{"a": X, "b": Y}, {"a": X, "b": Y.astype(np.float32)}])
    message = "fit: data has a batch of dtype float32 at 'b', expected int32, as in the first batch"
    with pytest.raises(ValueError, match=message):
        drawn(source)


# Errors

NO_BATCHES = "fit: data has no batches in epoch 0, expected one at least"
BAD = {
    "no batches": (lambda: Loader([]), ValueError, NO_BATCHES),
    "no batches made": (lambda: lambda: [], ValueError, NO_BATCHES),
    "used up": (lambda: iter([]), ValueError, "is a list_iterator that has no batches left"),
    "empty": (
        lambda: Loader([(X[:0], Y[:0])]),
        ValueError,
        "fit: data, batch 0 of epoch 0, is empty, expected one example",
    ),
    "nothing": (lambda: Loader([None]), ValueError, "batch 0 of epoch 0, is empty"),
    "list of numbers": (
        lambda: Loader([(X, [1, 2])]),
        TypeError,
        "fit: data, batch 0 of epoch 0, has a int at '1/0', expected an array of numbers",
    ),
    "text": (lambda: Loader(["text"]), TypeError, "has a str, expected an array"),
    "objects": (
        lambda: Loader([{"x": np.array(["a"])}]),
        TypeError,
        "has the dtype <U1 at 'x', expected an array of numbers",
    ),
    "iterator": (
        lambda: Loader([(X, zip(X, Y, strict=True))]),
        TypeError,
        "has a zip at '1', expected an array",
    ),
    "dates": (lambda: Loader([np.zeros(3, "M8[s]")]), TypeError, "has the dtype datetime64"),
    "long": (lambda: Loader([np.zeros(3, np.longdouble)]), TypeError, "has the dtype"),
    "two arguments": (
        lambda: lambda epoch, size: [],
        TypeError,
        "data is a function that needs epoch, size, expected one of the number of the epoch",
    ),
    "no iterable": (
        lambda: lambda: 3,
        TypeError,
        "data is a function that returned a int, expected an iterable of batches",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_streams(case):
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        source_of(make())


def test_what_is_wrong_with_a_later_batch_is_said_when_it_comes():
    source = source_of(Loader([X, X, X[:0]]))
    got = []
    message = "batch 2 of epoch 0, is empty"
    with pytest.raises(ValueError, match=message), source.batches(0) as batches:
        got.extend(batches)
    assert len(got) == 2
    source = source_of(lambda epoch: counting(3 - epoch)(epoch))
    with pytest.raises(ValueError, match="no batches in epoch 3"):
        drawn(source, 3)
    with pytest.raises(ValueError, match="data has 2 batches in epoch 1, expected at least 3"):
        drawn(source, 1, skip=3)


def test_bad_mapped_files(mapped, monkeypatch, key):
    x = mapped(X)
    for data, error, message in (
        ((x, Y[:5]), ValueError, r"fit: data has arrays of different lengths \(0: 23, 1: 5\)"),
        ((x, 3.0), TypeError, "fit: data has a float at '1', expected an array of numbers"),
        ((x, np.array(["a"] * 23)), TypeError, "fit: data has the dtype <U1 at '1'"),
        ((x, np.float32(1)), ValueError, "fit: data has a scalar"),
    ):
        with pytest.raises(error, match=message):
            source_of(data, 5)
    with pytest.raises(ValueError, match="fit: batch_size is 0"):
        source_of(x, 0)
    monkeypatch.setattr(sources, "MOST_SHUFFLED", 22)
    with pytest.raises(ValueError, match="data has 23 examples, expected at most 22 to shuffle"):
        source_of(x, 5, key)
    assert source_of(x, 5).steps == 5
