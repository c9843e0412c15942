"""The corrections of `nn.lora` as adapters that PEFT loads."""

import contextlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnn._core.arguments import checked
from jaxnn._core.types import Arrays, PyTree
from jaxnn._files.adapters import (
    CONFIG,
    ENDINGS,
    FILE,
    PREFIX,
    RESTRICTIONS,
    Adapter,
    check_config,
    module_of,
    sources_of,
    unfit,
)
from jaxnn._files.atomic import replacing
from jaxnn._files.layouts import Conversions, check_conversions, conversion, to_torch
from jaxnn._files.leaves import check_has_values, form_of, leaves_by_name, on_host
from jaxnn._files.names import TORCH, Entry, Names, entries
from jaxnn._files.safetensors import CODES, header, placed


@checked
def export_lora(
    path: str | os.PathLike[str],
    params: Arrays,
    names: Names,
    *,
    scale: float = 1.0,
    config: Mapping[str, Any] = {},
    dtype: DTypeLike | None = None,
    convert: Conversions = {},  # noqa: B006
    prefix: str = PREFIX,
) -> None:
    """Write the corrections of `nn.lora` as an adapter that PEFT loads.

    The inverse of `nn.import_lora`; the corrections may be those of `nn.lora` around the model, or
    around any of its layers, as around each dense layer of attention. Where one module of theirs
    stands for several of our kernels, whose corrections differ, its rank is the sum of theirs.

    Args:
        path: a directory, which is made if there is none, for `adapter_config.json` and
            `adapter_model.safetensors`.
        params: the params of a model with `nn.lora` in it.
        names: the table of the model without, as for `nn.export_params`.
        scale: the `scale` that those layers were made with.
        config: further entries of the configuration, as `{"base_model_name_or_path":
            "openai-community/gpt2", "task_type": "CAUSAL_LM"}`, or the one that was imported; what
            the params tell is made new.
        dtype: a floating dtype for all tensors; None for their own.
        convert: conversions of the table.
        prefix: what the names in the adapter begin with, before those in the table.

    Returns:
        None.

    Raises:
        OSError: a file cannot be written; those that were there are as they were.
        TypeError: an argument is of another type.
        ValueError: there is no correction; `names` has not the kernel of one, or can say no adapter
            of it; `scale` is not positive; `config` has what `nn.lora` lacks.

    Example:
        >>> import json, pathlib, tempfile, jax.numpy as jnp, jaxnn as nn
        >>> params = {"layer": {"kernel": jnp.ones((3, 4))},
        ...           "down": {"kernel": jnp.ones((3, 2))}, "up": {"kernel": jnp.ones((2, 4))}}
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.export_lora(directory, params, {"": "linear"}, scale=0.5)
        ...     tensors = nn.load(f"{directory}/adapter_model.safetensors")
        ...     config = json.loads((pathlib.Path(directory) / "adapter_config.json").read_text())
        >>> {name: x.shape for name, x in tensors.items()}  # doctest: +NORMALIZE_WHITESPACE
        {'base_model.model.linear.lora_A.weight': (2, 3),
         'base_model.model.linear.lora_B.weight': (4, 2)}
        >>> config["r"], config["lora_alpha"], config["target_modules"]
        (2, 1, ['linear'])
    """
    check_conversions("export_lora", convert)
    if not 0 < scale < math.inf:
        raise ValueError(f"export_lora: scale is {scale!r}, expected a positive number")
    check_config("export_lora: config", config)
    kernels, corrections = _taken_apart(params)
    found, _ = entries("export_lora", kernels, names, TORCH, ".")
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in found:
        targets = tuple(target for target, _ in entry.targets)
        if corrections.keys() & {*targets}:
            groups.setdefault(targets, []).append(entry)
    named = {target for targets in groups for target in targets}
    if not corrections or corrections.keys() - named:
        told = min(corrections.keys() - named, default=None)
        raise ValueError(
            "export_lora: params has no correction of nn.lora, expected one"
            if told is None
            else f"export_lora: names has no module for {told!r}, expected one"
        )
    adapters: dict[str, Adapter] = {}
    is_transposed = False
    for group in groups.values():
        for entry in group:
            for source in entry.sources:
                problem = unfit(entry, source.name, convert)
                if problem is not None:
                    raise ValueError(f"export_lora: {problem}")
                is_transposed |= conversion(source.name, convert) is not None
        adapters |= _adapters(group, kernels, corrections)
    all_modules = {
        module_of(source.name)
        for entry in found
        for source in entry.sources
        if entry.leaf == "kernel"
    }
    written = dict(config) | _derived(adapters, all_modules, scale, config, is_transposed)
    tensors = {}
    for module, (down, up) in adapters.items():
        for ending, array in zip(ENDINGS.values(), (down, up), strict=True):
            tensors[prefix + module + ending] = _with_dtype(to_torch("kernel", array), dtype)
    _write(Path(os.fsdecode(path)), tensors, written)


def _with_dtype(array: np.ndarray, dtype: DTypeLike | None) -> np.ndarray:
    made = np.ascontiguousarray(array, None if dtype is None else np.dtype(dtype))
    if made.dtype not in CODES or not jnp.issubdtype(made.dtype, jnp.floating):
        raise ValueError(f"export_lora: dtype is {made.dtype}, expected a floating dtype")
    return made


def _taken_apart(params: PyTree) -> tuple[dict[str, tuple[int, ...]], dict[str, Adapter]]:
    """The shapes of the model's leaves, and the corrections of its kernels, by path."""
    shapes: dict[str, tuple[int, ...]] = {}
    corrections: dict[str, Adapter] = {}

    def take(tree: PyTree, at: str) -> None:
        if not (isinstance(tree, Mapping) and tree.keys() == {"layer", "down", "up"}):
            children = _children(tree)
            for name, child in children.items():
                take(child, f"{at}{name}/")
            if not children and jax.tree.leaves(tree):
                shapes[at.removesuffix("/")] = np.shape(tree)
            return
        take(tree["layer"], at)
        down, up = (leaves_by_name("export_lora", tree[side]) for side in ("down", "up"))
        if down.keys() != up.keys():
            raise ValueError(
                f"export_lora: params has 'down' for {sorted(down)} and 'up' for {sorted(up)}, "
                "expected both for each"
            )
        for path in down:
            corrections[at + path] = _on_host(at + path, down[path], up[path])

    take(params, "")
    for path, (down, up) in corrections.items():  # those of kernels that are in the state
        shapes.setdefault(path, (*down.shape[:-1], up.shape[-1]))
        copies = down.shape[:-2]
        own = shapes[path][len(copies) :]
        if (*copies, math.prod(own[:-1]), own[-1]) != (*down.shape[:-1], up.shape[-1]):
            raise ValueError(
                f"export_lora: {path!r} of shape {shapes[path]} has a correction of shapes "
                f"{down.shape} and {up.shape}, expected one with its last axis as outputs"
            )
    return shapes, corrections


def _children(tree: PyTree) -> dict[str, PyTree]:
    """The entries of a dict, tuple, list or named tuple."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return dict(zip(tree._fields, tree, strict=True))
    if isinstance(tree, tuple | list):
        return {str(i): child for i, child in enumerate(tree)}
    return dict(tree) if isinstance(tree, Mapping) else {}


def _on_host(path: str, down: Any, up: Any) -> Adapter:
    for leaf in (down, up):
        check_has_values("export_lora", path, leaf)
        form_of("export_lora", path, leaf)
    arrays = on_host(down, None), on_host(up, None)
    if arrays[0].ndim < 2 or arrays[1].shape != (
        *arrays[0].shape[:-2],
        arrays[0].shape[-1],
        *arrays[1].shape[-1:],
    ):
        raise ValueError(
            f"export_lora: the correction of {path!r} has shapes {arrays[0].shape} and "
            f"{arrays[1].shape}, expected (in, rank) and (rank, out)"
        )
    return arrays


def _adapters(
    group: Sequence[Entry],
    shapes: Mapping[str, tuple[int, ...]],
    corrections: Mapping[str, Adapter],
) -> dict[str, Adapter]:
    """The adapters of modules that hold the same kernels, in each layer of a stack."""
    targets = [path for path, _ in group[0].targets]
    down, up = _joined([corrections.get(path) for path in targets], shapes, targets)
    inputs = shapes[targets[0]][down.ndim - 2 : -1]
    made: dict[str, Adapter] = {}
    places = list(sources_of(group[0], shapes))
    for position in range(len(group[0].sources)):
        _, first, last = places[position]
        part = up[..., first:last]
        is_used = np.any(part != 0, axis=(*range(part.ndim - 2), -1))
        if not is_used.any():
            if np.any(up != 0):
                continue  # another module has all of it
            is_used[:] = True
        for entry in group:
            where: Any = (*entry.targets[0][1], ...)
            own_down, own_up = down[where][:, is_used], part[where][is_used]
            if not (own_down.any() or own_up.any()):
                continue  # a layer without one
            rank = own_down.shape[-1]
            made[module_of(entry.sources[position].name)] = (
                own_down.reshape(*inputs, rank),
                own_up.reshape(*(1,) * (len(inputs) - 1), rank, -1),
            )
    return made


def _joined(
    corrections: Sequence[Adapter | None],
    shapes: Mapping[str, tuple[int, ...]],
    targets: Sequence[str],
) -> Adapter:
    """Adapters side by side as one: of the same rank if all begin alike, else of their sum."""
    given = [one for one in corrections if one is not None]
    is_shared = all(np.array_equal(down, given[0][0]) for down, _ in given)
    rank = given[0][0].shape[-1] if is_shared else sum(down.shape[-1] for down, _ in given)
    copies = given[0][0].shape[:-2]
    up = np.zeros((*copies, rank, sum(shapes[path][-1] for path in targets)), given[0][1].dtype)
    low = first = 0
    for path, one in zip(targets, corrections, strict=True):
        last = first + shapes[path][-1]
        if one is not None:
            high = low + one[1].shape[-2]
            up[..., low:high, first:last] = one[1]
            low = low if is_shared else high
        first = last
    return (given[0][0] if is_shared else np.concatenate([down for down, _ in given], -1)), up


def _derived(
    adapters: Mapping[str, Adapter],
    all_modules: set[str],
    scale: float,
    config: Mapping[str, Any],
    is_transposed: bool,
) -> dict[str, Any]:
    """What the configuration says of the tensors."""
    ranks = {module: down.shape[-1] for module, (down, _) in adapters.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {module: own for module, own in ranks.items() if own != rank}

    def alpha(rank: int) -> float:
        exact = scale * (math.sqrt(rank) if config.get("use_rslora") else rank)
        return round(exact) if math.isclose(exact, round(exact), rel_tol=1e-12) else exact

    def last(module: str) -> str:
        return module.rpartition(".")[2]

    partly = {last(module) for module in all_modules - adapters.keys()}
    names = {module if last(module) in partly else last(module) for module in adapters}
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha(rank),
        "rank_pattern": others,
        "alpha_pattern": {module: alpha(own) for module, own in others.items()},
        "target_modules": sorted(names),
        "fan_in_fan_out": is_transposed,
        **{name: None for name in RESTRICTIONS if name in config},
    }


def _write(directory: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    places = placed({name: (array.dtype, array.shape) for name, array in tensors.items()})
    with contextlib.ExitStack() as stack:  # both take their places when both are written
        file = stack.enter_context(replacing("export_lora", directory / FILE))
        start = file.write(header(places, {"format": "pt"}))
        for name, place in places.items():
            file.seek(start + place.start)
            file.write(tensors[name].reshape(-1).view(np.uint8).data)
        file = stack.enter_context(replacing("export_lora", directory / CONFIG))
        file.write(json.dumps(config, indent=2, sort_keys=True).encode())
