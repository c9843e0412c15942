"""The corrections of `nn.lora` from adapters that PEFT saved."""

import difflib
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn._core.arguments import checked
from jaxnn._core.paths import is_match
from jaxnn._core.types import Arrays, PyTree
from jaxnn._files.adapters import (
    CONFIG,
    ENDINGS,
    FILE,
    PREFIX,
    Adapter,
    Index,
    check_config,
    module_of,
    sources_of,
    targets_of,
    unfit,
)
from jaxnn._files.layouts import Conversions, check_conversions, from_torch
from jaxnn._files.leaves import leaves_by_name
from jaxnn._files.names import TORCH, Entry, Names, entries
from jaxnn._files.safetensors import opened, read_json
from jaxnn._files.tensors import Tensors

_MOST_TOLD = 8  # of what is wrong with a file


@checked
def import_lora(
    path: str | os.PathLike[str],
    params: Arrays,
    names: Names,
    *,
    dtype: DTypeLike | None = None,
    convert: Conversions = {},  # noqa: B006
    ignore: Sequence[str] = (),
    prefix: str = PREFIX,
) -> tuple[PyTree, float, dict[str, Any]]:
    """The params of a model with `nn.lora` around it, from an adapter that PEFT saved.

    The table is that of the model, as for `nn.import_params`. The params are for
    `nn.lora(model, rank, scale=scale, where=list(params["down"]))`, and
    `nn.merge_lora(params, scale=scale)` adds the adapter to the kernels of `model`.

    Where one of our kernels stands for several modules that have an adapter each, their ranks add
    up. Layers of a stack that have no adapter get zeros, which training leaves as they are.

    Args:
        path: a directory with `adapter_config.json` and `adapter_model.safetensors`.
        params: the params of the model, as `nn.import_params` made them.
        names: its table.
        dtype: a floating dtype for the adapter; None for that of the file.
        convert: conversions of the table; a kernel with functions there can have no adapter.
        ignore: globs on the names of the adapter's tensors that are not needed.
        prefix: what the names in the adapter begin with, before those in the table.

    Returns:
        `(params, scale, config)`: the params `{"layer": params, "down": {path: (in, rank)}, "up":
        {path: (rank, out)}}`, in a stack with the leading axes of its kernels; the scale, `alpha /
        rank`, or `alpha / sqrt(rank)` where it is rank-stabilised; and what the configuration says.

    Raises:
        FileNotFoundError: a file is missing.
        TypeError: an argument is of another type.
        ValueError: a file is damaged; the adapter is of a kind that `nn.lora` is not, as DoRA; its
            modules differ in scale; a tensor has no counterpart in `names`, or another shape.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp, jaxnn as nn
        >>> x, names = jnp.ones((1, 3)), {"hidden": "fc", "out": "proj"}
        >>> model = nn.serial(hidden=nn.dense(4), out=nn.dense(2))
        >>> adapted = nn.lora(model, 2, scale=4.0, where="hidden/kernel")
        >>> trained, _ = adapted.init(jax.random.key(0), x)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.export_lora(directory, trained, names, scale=4.0)
        ...     params, scale, config = nn.import_lora(directory, trained["layer"], names)
        >>> scale, config["r"], config["target_modules"], list(params["down"])
        (4.0, 2, ['fc'], ['hidden/kernel'])
        >>> bool((params["down"]["hidden/kernel"] == trained["down"]["hidden/kernel"]).all())
        True
    """
    check_conversions("import_lora", convert)
    directory = Path(os.fsdecode(path))
    config = _read_config(directory / CONFIG)
    tensors = Tensors("import_lora", directory / FILE)
    shapes = {name: np.shape(leaf) for name, leaf in leaves_by_name("import_lora", params).items()}
    found, _ = entries("import_lora", shapes, names, TORCH, ".")
    adapters, problems = _adapters(tensors, prefix, tuple(ignore))
    pieces, more = _pieces(found, adapters, shapes, convert)
    scales = {
        module: _scale(config, module, down.shape[-1]) for module, (down, _) in adapters.items()
    }
    problems += [*more, *_differing(scales)]
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"import_lora: dtype is {dtype!r}, expected a floating dtype")
    if not adapters:
        problems.append("it has no adapter")
    if problems:
        raise ValueError(f"import_lora: {directory}: {'; '.join(problems[:_MOST_TOLD])}")
    made = {target: _corrections(shapes[target], of_target) for target, of_target in pieces.items()}
    down, up = (
        {target: jnp.asarray(sides[side], dtype) for target, sides in made.items()}
        for side in (0, 1)
    )
    return {"layer": params, "down": down, "up": up}, next(iter(scales.values())), config


def _read_config(path: Path) -> dict[str, Any]:
    with opened("import_lora", path) as file:
        try:
            config = read_json(file.read().decode())
        except ValueError as error:
            raise ValueError(f"import_lora: {path} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise ValueError(f"import_lora: {path} has peft_type {kind!r:.99}, expected 'LORA'")
    check_config(f"import_lora: {path}", config)
    return config


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor of a module's correction, by the first pattern that its name ends with."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if pattern == module or re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _differing(scales: Mapping[str, float]) -> Iterator[str]:
    if len(set(scales.values())) > 1:
        one, other = min(scales, key=scales.__getitem__), max(scales, key=scales.__getitem__)
        yield f"{one!r} has scale {scales[one]} and {other!r} {scales[other]}, expected one for all"


def _adapters(
    tensors: Tensors, prefix: str, ignore: Sequence[str]
) -> tuple[dict[str, Adapter], list[str]]:
    """By module down, (*window, in, rank), and up, (rank, out); and what is neither."""
    problems: list[str] = []
    halves: dict[str, dict[str, np.ndarray]] = {"down": {}, "up": {}}
    for name in tensors.shapes():
        if is_match(name, ignore):
            continue
        side = next((side for side, end in ENDINGS.items() if name.endswith(end)), None)
        if side is None or not name.startswith(prefix) or tensors[name].ndim < 2:
            problems.append(
                f"it has {name!r}, expected the prefix {prefix!r}, an ending '.lora_A.weight' or "
                "'.lora_B.weight', and two axes or more"
            )
            continue
        module = name.removeprefix(prefix).removesuffix(ENDINGS[side])
        halves[side][module] = from_torch("kernel", tensors[name])
    found: dict[str, Adapter] = {}
    for module in sorted(halves["down"].keys() | halves["up"].keys()):
        down, up = halves["down"].get(module), halves["up"].get(module)
        if down is None or up is None:
            problems.append(f"{module!r} has lora_{'A' if up is None else 'B'} alone")
        elif math.prod(up.shape[:-1]) != down.shape[-1]:
            problems.append(
                f"{module!r} has lora_A of rank {down.shape[-1]} and lora_B of rank "
                f"{math.prod(up.shape[:-1])}"
            )
        else:
            found[module] = down, up.reshape(down.shape[-1], -1)
    return found, problems


class _Piece(NamedTuple):
    """The adapter of a module, and where its outputs begin in the kernel of ours."""

    down: np.ndarray
    up: np.ndarray
    at: int


def _pieces(
    found: Sequence[Entry],
    adapters: Mapping[str, Adapter],
    shapes: Mapping[str, tuple[int, ...]],
    convert: Conversions,
) -> tuple[dict[str, dict[Index, list[_Piece]]], list[str]]:
    """The adapters of each kernel, in each layer of a stack; and what does not fit."""
    pieces: dict[str, dict[Index, list[_Piece]]] = {}
    problems: list[str] = []
    left = dict(adapters)
    for entry in found:
        for source, first, last in sources_of(entry, shapes):
            module = module_of(source.name)
            if module not in adapters or not source.name.endswith(".weight"):
                continue
            left.pop(module, None)
            down, up = adapters[module]
            problem = unfit(entry, source.name, convert) or _misshapen(
                module, adapters[module], shapes, entry, last - first
            )
            if problem:
                problems.append(problem)
                continue
            for target, index, low, high in targets_of(entry, shapes):
                at, end = max(first, low), min(last, high)
                if at < end:
                    piece = _Piece(down, up[:, at - first : end - first], at - low)
                    pieces.setdefault(target, {}).setdefault(index, []).append(piece)
    candidates = sorted({module_of(source.name) for entry in found for source in entry.sources})
    for module in sorted(left):
        near = difflib.get_close_matches(module, candidates, 1, cutoff=0)
        told = f"; the nearest is {near[0]!r}" if near else ""
        problems.append(f"it has an adapter of {module!r}, which names has not{told}")
    return pieces, problems


def _misshapen(
    module: str,
    adapter: Adapter,
    shapes: Mapping[str, tuple[int, ...]],
    entry: Entry,
    outputs: int,
) -> str | None:
    path, index = entry.targets[0]
    inputs = shapes[path][len(index) : -1]
    down, up = adapter
    if down.shape[:-1] == inputs and up.shape[-1] == outputs:
        return None
    return (
        f"{module!r} has an adapter from {down.shape[:-1]} to {up.shape[-1]} features, expected "
        f"one from {inputs} to {outputs} for {path!r}"
    )


def _corrections(
    shape: tuple[int, ...], pieces: Mapping[Index, Sequence[_Piece]]
) -> tuple[np.ndarray, np.ndarray]:
    """The matrices of a kernel, of those of the modules that it stands for."""
    axes = len(next(iter(pieces)))
    copies, (*inputs, outputs) = shape[:axes], shape[axes:]
    is_shared = all(
        np.array_equal(piece.down, of_element[0].down)
        for of_element in pieces.values()
        for piece in of_element
    )
    ranks: dict[int, int] = {}  # by where the outputs begin
    for piece in itertools.chain.from_iterable(pieces.values()):
        ranks[piece.at] = max(ranks.get(piece.at, 0), piece.down.shape[-1])
    starts: dict[int, int] = {}
    rank = 0
    for at in sorted(ranks):
        starts[at] = 0 if is_shared else rank
        rank = max(rank, starts[at] + ranks[at])
    dtype = next(iter(pieces.values()))[0].down.dtype
    down = np.zeros((*copies, math.prod(inputs), rank), dtype)
    up = np.zeros((*copies, rank, outputs), dtype)
    for index, of_element in pieces.items():
        for one_down, one_up, at in of_element:
            low = starts[at]
            high = low + one_down.shape[-1]
            into: Any = (*index, slice(None), slice(low, high))
            down[into] = one_down.reshape(-1, high - low)
            into = (*index, slice(low, high), slice(at, at + one_up.shape[-1]))
            up[into] = one_up
    return down, up
