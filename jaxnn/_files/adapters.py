"""What is common to adapters of PEFT that are read and written.

They are two files: `adapter_config.json`, and tensors `PREFIX + module + ENDINGS[side]`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnn._files.importing import spans
from jaxnn._files.layouts import Conversions, conversion
from jaxnn._files.names import Entry, Source, widths

Index = tuple[int, ...]
Adapter = tuple[np.ndarray, np.ndarray]

CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
ENDINGS = {"down": ".lora_A.weight", "up": ".lora_B.weight"}
_DERIVED = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
RESTRICTIONS = ("exclude_modules", "layers_to_transform", "layers_pattern")
# What does not change the function that the tensors describe, or is told by them.
_KNOWN = {
    *(*_DERIVED, *RESTRICTIONS, "peft_type", "peft_version", "task_type", "auto_mapping"),
    *("base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "fan_in_fan_out"),
    *("use_rslora", "init_lora_weights", "megatron_config", "megatron_core", "runtime_config"),
    *("eva_config", "corda_config", "loftq_config", "lora_ga_config", "qalora_group_size"),
    "ensure_weight_tying",
}
_FIRST_WEIGHTS = (True, False, None, "gaussian", "orthogonal", "eva")  # others change the kernels


def check_config(where: str, config: Mapping[str, Any]) -> None:
    """Raise for what an adapter may be besides what `nn.lora` is."""
    for name, value in config.items():
        if name not in _KNOWN and value and value != "none":
            raise ValueError(f"{where} has {name}={value!r:.99}, which nn.lora lacks")
    first = config.get("init_lora_weights", True)
    if first not in _FIRST_WEIGHTS:
        raise ValueError(
            f"{where} has init_lora_weights={first!r:.99}, which changed the kernels of the model "
            "too, expected an adapter that PEFT converted to plain LoRA"
        )
    for name in ("r", "lora_alpha"):
        value = config.get(name, 8)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{where} has {name}={value!r:.99}, expected a positive number")
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(name) or {}
        numbers = list(pattern.values()) if isinstance(pattern, Mapping) else [0]
        if not all(type(number) in (int, float) and number > 0 for number in numbers):
            raise ValueError(f"{where} has {name}={pattern!r:.99}, expected positive numbers")


def module_of(name: str) -> str:
    """The module of a tensor's name in a table."""
    return name.rpartition(".")[0]


def sources_of(
    entry: Entry, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Source, int, int]]:
    """The tensors of an entry, each with the first and last of its outputs in the whole."""
    total = max((last for _, _, _, last in targets_of(entry, shapes)), default=0)
    sizes = widths(entry.sources, total) or []
    ends = itertools.accumulate(
        0 if source.is_added else size for source, size in zip(entry.sources, sizes, strict=False)
    )
    for source, size, end in zip(entry.sources, sizes, ends, strict=False):
        yield source, end - size, end


def targets_of(
    entry: Entry, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Index, int, int]]:
    """The leaves of an entry, each with the first and last of its outputs in the whole."""
    sizes = [(shapes[path] or (1,))[-1] for path, _ in entry.targets]
    for (path, index), first, last in spans(entry.targets, sizes):
        yield path, index, first, last


def unfit(entry: Entry, name: str, convert: Conversions) -> str | None:
    """Why a tensor can have no adapter; None if it can."""
    own = conversion(name, convert)
    if entry.leaf != "kernel":
        return f"{module_of(name)!r} is {entry.targets[0][0]!r}, expected adapters of kernels alone"
    if own is not None and own[0] is not np.asarray:
        return f"{name!r} is converted on the way, expected no adapter of it"
    if any(source.is_added for source in entry.sources):
        return f"{name!r} is one of a sum, expected no adapter of it"
    return None
