"""Programs of several processes on this machine."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys


@contextlib.contextmanager
def started(count, check, directory):
    """The processes of a check of `tests.sharded_processes`, none of which outlives the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    program = [sys.executable, "-m", "tests.sharded_processes", check, port]
    programs = [
        subprocess.Popen([*program, str(i), str(count), str(directory)], cwd=root, env=environment)
        for i in range(count)
    ]
    try:
        yield programs
    finally:
        for started in programs:
            started.kill()
            started.wait()


def run(count, check, directory):
    """Run a check in several processes, all of which must succeed."""
    with started(count, check, directory) as programs:
        assert [program.wait() for program in programs] == [0] * count
