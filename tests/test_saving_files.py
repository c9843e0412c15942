"""A file is there as a whole or not at all, and a damaged one is never taken for a good one."""

import os
import random
import re
import resource
import stat
import subprocess
import sys
import textwrap
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

OLD = {"w": np.arange(6.0).reshape(2, 3), "step": 1}
TREE = {"kernel": jnp.ones((2, 3)), "bias": [np.arange(3, dtype=np.int8), np.zeros(0)], "n": 5}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tree.safetensors"


@pytest.fixture
def saved(path):
    """A path where OLD is saved."""
    nn.save(path, OLD)
    return path


def assert_old_is_intact(path):
    got = nn.load(path, OLD)
    np.testing.assert_array_equal(got["w"], OLD["w"])
    assert got["step"] == 1
    assert os.listdir(path.parent) == [path.name]


# Damage


def assert_refused(path, content, *reads):
    """Write damaged content; it must not be loaded, nor read otherwise."""
    path.write_bytes(content)
    for read in (lambda path: nn.load(path, TREE), nn.load, *reads):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(path)


def flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def written(path):
    nn.save(path, TREE, metadata={"epoch": "12"})
    content = path.read_bytes()
    return content, 8 + int.from_bytes(content[:8], "little")


def test_no_bit_flip_passes(path):
    content, start = written(path)
    draw = random.Random(0)
    for bit in draw.sample(range(8 * len(content)), 200):
        reads = [nn.saved_metadata] if bit < 8 * start else []
        assert_refused(path, flipped(content, bit), *reads)


@pytest.mark.slow
def test_no_bit_flip_passes_wherever_it_is(path):
    content, start = written(path)
    for bit in range(8 * len(content)):
        reads = [nn.saved_metadata] if bit < 8 * start else []
        assert_refused(path, flipped(content, bit), *reads)


def test_no_truncation_passes(path):
    content, _ = written(path)
    for length in range(len(content)):
        assert_refused(path, content[:length])
    assert_refused(path, content + b"\0")
    assert_refused(path, content + content)


def test_no_page_of_zeros_passes(path):
    content, _ = written(path)
    for begin in range(0, len(content), 64):
        assert_refused(path, content[:begin] + bytes(64) + content[begin + 64 :])


def test_leaves_that_changed_places_are_refused(path):
    nn.save(path, {"a": np.arange(2.0), "b": np.arange(2.0) + 5})
    content = path.read_bytes()
    path.write_bytes(content[:-32] + content[-16:] + content[-32:-16])
    with pytest.raises(ValueError, match=r"load: .* is damaged: leaf 'a' does not have its digest"):
        nn.load(path)


# Writers that are killed

WRITERS = """
    import os, random, signal, sys, time
    import numpy as np
    from jaxnn import load, save

    path, kills, draw = sys.argv[1], int(sys.argv[2]), random.Random(0)

    def tree(i):
        return {"a": np.full(1 << 18, i), "b": [np.full(1 << 17, float(i)), i]}

    save(path, tree(0))
    started = time.perf_counter()
    save(path, tree(0))
    duration = time.perf_counter() - started
    for _ in range(kills):
        writer = os.fork()  # nothing of JAX has run in this process
        if writer == 0:
            i = int(load(path)["b/1"])
            while True:
                i += 1
                save(path, tree(i))
        time.sleep(draw.uniform(0.5, 5) * duration)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        found = load(path)
        number = int(found["b/1"])
        assert found.keys() == {"a", "b/0", "b/1"}
        assert np.all(found["a"] == number) and np.all(found["b/0"] == number)
    print(number, len(os.listdir(os.path.dirname(path))) - 1)
"""


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_file_whole(path, kills):
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(WRITERS), str(path), str(kills)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    written, left = map(int, out.stdout.split())
    assert written > 0  # files were replaced
    assert left > kills / 4  # and writers were killed in the middle


def test_what_killed_writers_left_is_removed_when_it_is_old(saved):
    of_ours = f".{saved.name}.{'0123456789abcdef'}.tmp"
    young, others = of_ours.replace("0", "1"), [".other.safetensors.0123456789abcdef.tmp", "x.tmp"]
    for name in (of_ours, young, *others):
        saved.with_name(name).write_bytes(b"half")
        age = 60 if name == young else 7200
        os.utime(saved.with_name(name), (saved.stat().st_mtime - age,) * 2)
    nn.save(saved, OLD)
    assert sorted(os.listdir(saved.parent)) == sorted([saved.name, young, *others])


def test_readers_and_writers_at_once_see_whole_files(path):
    nn.save(path, {"a": np.zeros(1 << 16), "b": 0})
    stop, failures = threading.Event(), []

    def write(i):
        while not stop.is_set():
            nn.save(path, {"a": np.full(1 << 16, float(i)), "b": i})

    def read():
        try:
            for _ in range(100):
                got = nn.load(path)
                assert np.all(got["a"] == got["b"])
        except Exception as error:
            failures.append(error)
        stop.set()

    threads = [threading.Thread(target=write, args=(i,)) for i in (1, 2)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(path.parent) == [path.name]


# Writes that fail


def test_a_full_disk_leaves_the_old_file(saved):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            nn.save(saved, {"x": np.zeros(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_old_is_intact(saved)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file(saved, monkeypatch, failing, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        nn.save(saved, {"x": np.zeros(3)})
    monkeypatch.undo()
    assert_old_is_intact(saved)


def test_the_data_are_on_disk_before_the_file_is_replaced_and_the_name_after(saved, monkeypatch):
    calls = []

    def fsync(descriptor):
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = os.fstat(descriptor).st_size
        calls.append("directory" if is_directory else size)

    def replace(source, target, original=os.replace):
        calls.append("replace")
        original(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    nn.save(saved, {"x": np.zeros(1000)})
    assert calls == [saved.stat().st_size, "replace", "directory"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_an_error(saved):
    saved.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            nn.save(saved, {"x": 1})
    finally:
        saved.parent.chmod(0o700)
    assert_old_is_intact(saved)


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"save: there is no directory .*'.*none/x'"):
        nn.save(tmp_path / "none" / "x", {"a": 1})


@pytest.mark.parametrize("read", [nn.load, nn.saved_metadata])
def test_a_missing_file_is_an_error(path, read):
    with pytest.raises(FileNotFoundError, match=str(path)):
        read(path)


def test_what_is_no_file_is_not_replaced(tmp_path):
    with pytest.raises(OSError, match=f"save: {tmp_path} is there and is no file"):
        nn.save(tmp_path, {"a": 1})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is there and is no file"):
        nn.save(pipe, {"a": 1})
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to(target)
    for i in (1, 2):
        nn.save(link, {"a": i})
        assert link.is_symlink()
        assert nn.load(target, {"a": 0}) == {"a": i}
    assert os.listdir(target.parent) == ["target"]


def test_modes_are_those_of_open(path):
    before = os.umask(0o027)
    try:
        nn.save(path, OLD)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        nn.save(path, OLD)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_path_without_a_directory_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nn.save("plain", {"a": 3})
    assert nn.load("plain", {"a": 0}) == {"a": 3}
    assert os.listdir() == ["plain"]


def test_names_of_almost_255_bytes(tmp_path):
    for name in ("x" * 240 + ".safetensors"[:12], "é" * 120):
        nn.save(tmp_path / name, OLD)
        nn.save(tmp_path / name, OLD)
        np.testing.assert_array_equal(nn.load(tmp_path / name)["w"], OLD["w"])
    assert len(os.listdir(tmp_path)) == 2


def test_paths_may_be_bytes(path):
    nn.save(os.fsencode(path), OLD, metadata={"a": "b"})
    assert nn.load(os.fsencode(path), OLD)["step"] == 1
    assert nn.saved_metadata(os.fsencode(path)) == {"a": "b"}


def test_who_owns_a_file_goes_on_owning_it(saved, monkeypatch):
    given = []
    monkeypatch.setattr(os, "chown", lambda path, *owner: given.append(owner), raising=False)
    nn.save(saved, OLD)
    assert given == [(saved.stat().st_uid, saved.stat().st_gid)]


@pytest.mark.parametrize("read", [nn.load, nn.saved_metadata])
def test_a_directory_names_what_reads_it(tmp_path, read):
    with pytest.raises(IsADirectoryError, match=r"nn\.import_params a directory"):
        read(tmp_path)
