"""One run in several processes, as on several machines: here, all of them are on this one.

Each process has two devices of the CPU and a part of the parameters. Interrupt the program, or kill
one of its processes, and start it again: the run goes on from its last checkpoint. On a cluster,
whose scheduler starts the processes, `train` is the whole program.
"""

import argparse
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np

import jaxnn as nn

DEVICES = 2  # of each process
MODEL = nn.serial(
    hidden=nn.dense(256), relu=nn.relu, more=nn.dense(256), relu_again=nn.relu, out=nn.dense(2)
)


def spiral(examples: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Points on two arms of a spiral, and which arm each is on; the same in all processes."""
    rng = np.random.default_rng(0)
    arms = rng.integers(0, 2, examples)
    radius = rng.uniform(0.1, 1.0, examples)
    angle = 3 * np.pi * radius + np.pi * arms
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    noisy = points + 0.02 * rng.standard_normal(points.shape)
    return noisy.astype(np.float32), arms.astype(np.int32)


def train(directory: pathlib.Path, epochs: int) -> None:
    """What each process runs: nothing but `sharding` tells that there are others."""
    result = nn.fit(
        MODEL,
        spiral(),
        loss=nn.losses.softmax_cross_entropy_with_integer_labels,
        optimizer=nn.optimizers.adam(3e-3),
        key=jax.random.key(0),
        epochs=epochs,
        batch_size=128,
        metrics={"accuracy": nn.metrics.accuracy()},
        sharding=nn.sharding(params=nn.fsdp("data")),
        checkpoint=nn.checkpoints(directory, every_seconds=5),
        resume=True,
        progress="lines",
    )
    nn.save(directory / "params.safetensors", result.params)  # each writes its part
    if jax.process_index() == 0:
        accuracy = result.history["accuracy"][-1]
        print(f"{jax.process_count()} processes, {jax.device_count()} devices: {accuracy:.3f}")


def start(processes: int, arguments: list[str]) -> int:
    """Start this program once for each process; the worst of their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    programs = [
        subprocess.Popen([sys.executable, __file__, *arguments, "--join", address, str(number)])
        for number in range(processes)
    ]
    try:
        return max(abs(program.wait()) for program in programs)
    except KeyboardInterrupt:  # which all of them got as well, and save
        return max(abs(program.wait()) for program in programs)


def main() -> None:
    """Start the processes, or be one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=pathlib.Path, help="of the checkpoints")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--join", nargs=2, metavar=("ADDRESS", "NUMBER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.join is None:
        sys.exit(start(options.processes, sys.argv[1:]))
    address, number = options.join
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.distributed.initialize(address, options.processes, int(number))
    train(options.directory, options.epochs)


if __name__ == "__main__":
    main()
