"""Programs of several processes on this machine."""

import os
import pathlib
import socket
import subprocess
import sys


def started(count, check, directory):
    """The processes of a check of `tests.sharded_processes`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    program = [sys.executable, "-m", "tests.sharded_processes", check, port]
    return [
        subprocess.Popen([*program, str(i), str(count), str(directory)], cwd=root, env=environment)
        for i in range(count)
    ]


def run(count, check, directory):
    """Run a check in several processes, all of which must succeed."""
    programs = started(count, check, directory)
    try:
        assert [program.wait() for program in programs] == [0] * count
    finally:
        for program in programs:
            program.kill()
            program.wait()
