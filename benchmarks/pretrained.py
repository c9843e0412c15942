"""Weights of a Llama with 220 million parameters in and out: speed and peak memory.

python -m benchmarks.pretrained    needs torch, transformers and Linux

Each way has a process of its own. The file is in the page cache, so that no disk is measured;
memory is the most that the process held beyond what it had before, as a multiple of the file.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

import jaxnn as nn

ROUNDS = 3
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
}


def ours(directory: Path) -> Any:
    """The functions that read the directory, and write what was read."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "pretrained"))
    llama = importlib.import_module("llama")
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    like, _ = jax.eval_shape(llama.model(CONFIG).init, jax.random.key(0), token)
    table = llama.names(CONFIG)

    def read() -> Any:
        return jax.block_until_ready(nn.import_params(directory, like, **table))

    return read, lambda params: nn.export_params(directory / "out", params, **table)


def safetensors(directory: Path) -> Any:
    """Tensors of torch as they lie in the file."""
    torch = importlib.import_module("safetensors.torch")

    def write(tensors: Any) -> None:
        (directory / "out").mkdir(exist_ok=True)
        torch.save_file(tensors, directory / "out" / "model.safetensors")

    def read() -> Any:
        return touched(torch.load_file(directory / "model.safetensors"))

    return read, write


def transformers(directory: Path) -> Any:
    """A model of torch."""
    model = importlib.import_module("transformers").LlamaForCausalLM

    def read() -> Any:
        made = model.from_pretrained(directory)
        touched(made.state_dict())
        return made

    return read, lambda made: made.save_pretrained(directory / "out")


def touched(tensors: Any) -> Any:
    """Tensors that have been read: those of torch are mapped until they are used."""
    for tensor in tensors.values():
        tensor.max()
    return tensors


WAYS: dict[str, Callable[[Path], Any]] = {
    "import_params, export_params": ours,
    "safetensors.torch": safetensors,
    "transformers": transformers,
}


def memory(field: str) -> int:
    """A size in bytes that Linux keeps of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def measured(run: Callable[[], Any]) -> tuple[Any, float, int]:
    """What it gives, the seconds it takes, and how much more memory it holds at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size again
    before, begin = memory("VmRSS"), perf_counter()
    result = run()
    return result, perf_counter() - begin, memory("VmHWM") - before


def worker(name: str, directory: Path) -> None:
    """Print the best seconds and the memory of reading, and of writing."""
    warnings.simplefilter("ignore")
    read, write = WAYS[name](directory)
    found: list[list[float]] = [[], [], [], []]
    for _ in range(ROUNDS):
        result, *reading = measured(read)
        _, *writing = measured(lambda given=result: write(given))  # type: ignore[misc]
        del result
        for column, number in zip(found, reading + writing, strict=True):
            column.append(number)
    print(json.dumps([min(found[0]), found[1][0], min(found[2]), found[3][0]]))


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        worker(sys.argv[1], Path(sys.argv[2]))
        return
    print("| by | read, GB/s | peak memory | write, GB/s | peak memory |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        (directory / "config.json").write_text(json.dumps(CONFIG))
        transformers_ = importlib.import_module("transformers")
        model = transformers_.LlamaForCausalLM(transformers_.LlamaConfig(**CONFIG))
        model.save_pretrained(directory)
        del model
        size = (directory / "model.safetensors").stat().st_size
        for name in WAYS:
            command = [sys.executable, "-m", "benchmarks.pretrained", name, str(directory)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            read, reading, write, writing = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| `{name}` | {size / read / 1e9:.2f} | {reading / size:.2f} | "
                f"{size / write / 1e9:.2f} | {writing / size:.2f} |"
            )


if __name__ == "__main__":
    main()
