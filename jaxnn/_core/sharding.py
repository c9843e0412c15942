"""Which device has which part of an array: a mesh of devices, and rules by path."""

import fnmatch
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_count
from jaxnn._core.paths import first_matches, leaf_paths, path_text
from jaxnn._core.processes import ALL, ALONE, Group
from jaxnn._core.types import PyTree

Axes: TypeAlias = tuple[str, ...]  # of a mesh


class FSDP(NamedTuple):
    """What `fsdp` returns."""

    axis: str
    min_size: int


Placement: TypeAlias = PartitionSpec | FSDP | tuple[PartitionSpec, FSDP]


@checked
def fsdp(axis: str = "data", *, min_size: int = 1024) -> FSDP:
    """Fully sharded data parallelism: every device of an axis has a part of each parameter.

    Along the largest axis of a parameter that the number of devices divides, the last of several.
    Its gradient and the optimizer's moments are spread alike.

    Paper: Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
    https://arxiv.org/abs/1910.02054

    Args:
        axis: the axis of the mesh, as a rule the one that the examples are split over.
        min_size: parameters of fewer elements are whole on every device, and so are those without
            an axis that the number of devices divides.

    Returns:
        A rule for the `params` of `nn.sharding`.

    Raises:
        TypeError: `min_size` is not an integer.
        ValueError: `min_size` is less than 1.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> spread = nn.sharding(params=nn.fsdp("data", min_size=1))
        >>> kernel = jnp.ones((3, 8 * spread.mesh.size))
        >>> spread.of_params({"kernel": kernel})["kernel"].spec
        P(None, 'data')
    """
    return FSDP(axis, check_count("fsdp", "min_size", min_size))


class _Rule(NamedTuple):
    """How the parameters of a glob lie: the entries of a `PartitionSpec`, then FSDP."""

    glob: str
    spec: tuple[Axes, ...]
    fsdp: FSDP | None


class Sharding(NamedTuple):
    """What `sharding` returns."""

    mesh: Mesh
    batch: Axes
    rules: tuple[_Rule, ...]

    @property
    def whole(self) -> NamedSharding:
        """The same array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def of_batch(self) -> NamedSharding:
        """Examples along axis 0, split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(self.batch or None))

    def of_params(self, params: PyTree, copies: int | None = None) -> PyTree:
        """The `NamedSharding` of each parameter, given arrays or their shapes.

        With `copies`, each leaf has a leading axis for them, which no rule knows of.
        """
        leaves, structure = jax.tree.flatten(params)
        rules = {rule.glob: rule for rule in self.rules}
        chosen = first_matches(params, list(rules) if leaves else [], "sharding: params")

        def one(path: str, leaf: Any, glob: str | None) -> NamedSharding:
            shape = tuple(leaf.shape)
            if glob is None:
                return self.whole
            if copies is None:
                return self._named(self._spec(rules[glob], path, shape))
            return self._named(((), *self._spec(rules[glob], path, shape[1:])))

        placed = [one(*each) for each in zip(leaf_paths(params), leaves, chosen, strict=True)]
        return jax.tree.unflatten(structure, placed)

    def of(self, tree: PyTree, params: PyTree, copies: int | None = None) -> PyTree:
        """The same for a tree that has copies of the parameters in it: moments, the best epoch.

        What ends in the path of a parameter and has its shape lies as it does, all else is whole.
        """
        known: dict[str, tuple[Any, NamedSharding]] = {
            path: (leaf.shape, placed)
            for path, leaf, placed in zip(
                leaf_paths(params),
                jax.tree.leaves(params),
                jax.tree.leaves(self.of_params(params, copies)),
                strict=True,
            )
        }

        def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
            for first in range(len(path) + 1):
                found = known.get(path_text(path[first:]))
                if found is not None and found[0] == leaf.shape:
                    return found[1]
            return self.whole

        return jax.tree_util.tree_map_with_path(one, tree)

    def _spec(self, rule: _Rule, path: str, shape: tuple[int, ...]) -> tuple[Axes, ...]:
        """The axes of the mesh that each axis of a parameter is split over."""
        if len(rule.spec) > len(shape):
            raise ValueError(
                f"sharding: params[{rule.glob!r}] is {_partition(rule.spec)} for {path!r} of shape "
                f"{shape}, expected at most {len(shape)} entries"
            )
        spec = [*rule.spec, *[()] * (len(shape) - len(rule.spec))]
        for axis, (size, over) in enumerate(zip(shape, spec, strict=True)):
            devices = self._devices(over)
            if size % devices:
                near = [size - size % devices, size - size % devices + devices]
                raise ValueError(
                    f"sharding: params[{rule.glob!r}] is {_partition(rule.spec)} for {path!r} of "
                    f"shape {shape}: axis {axis} has {size} elements for {devices} devices, "
                    f"expected a multiple such as {' or '.join(str(n) for n in near if n)}"
                )
        if rule.fsdp is not None and math.prod(shape) >= rule.fsdp.min_size:
            devices = self.mesh.shape[rule.fsdp.axis]
            free = [i for i, size in enumerate(shape) if not spec[i] and size % devices == 0]
            if free:
                spec[max(free, key=lambda i: (shape[i], i))] = (rule.fsdp.axis,)
        return tuple(spec)

    def _devices(self, axes: Axes) -> int:
        return math.prod(self.mesh.shape[axis] for axis in axes)

    def _named(self, spec: tuple[Axes, ...]) -> NamedSharding:
        return NamedSharding(self.mesh, _partition(spec))

    # On the host

    @property
    def group(self) -> Group:
        """The processes whose devices these are: this one alone, or all.

        Raises:
            ValueError: they are those of some, who could not wait for each other.
        """
        processes = {device.process_index for device in self.mesh.devices.flat}
        if processes == {jax.process_index()}:
            return ALONE
        if len(processes) < jax.process_count():
            raise ValueError(
                f"sharding: mesh has devices of the processes {sorted(processes)}, expected those "
                f"of one process, {jax.process_index()} here, or of all {jax.process_count()}"
            )
        return ALL

    def put(self, tree: PyTree) -> PyTree:
        """`tree`, the same in each process, whole on every device."""
        return jax.tree.map(lambda leaf: _put(leaf, self.whole), tree)

    def put_params(self, params: PyTree, copies: int | None = None) -> PyTree:
        """Parameters, the same in each process, where they belong."""
        return jax.tree.map(_put, params, self.of_params(params, copies))

    def put_data(self, data: PyTree) -> PyTree:
        """A data set whole on every device, but for what is spread over them already."""
        devices = set(self.mesh.devices.flat)

        def one(leaf: Any) -> Any:
            there = leaf.sharding
            is_spread = isinstance(there, NamedSharding) and not there.is_fully_replicated
            if is_spread and there.device_set == devices:
                return jax.device_put(leaf, NamedSharding(_automatic(there.mesh), there.spec))
            return self.put(leaf)

        return jax.tree.map(one, data)

    def own_rows(self, size: int) -> np.ndarray:
        """Which of so many examples of a batch the devices of this process have."""
        indices = self._of_size(size).addressable_devices_indices_map((size,)).values()
        of_each = [np.arange(size)[index] for index in indices]
        return np.unique(np.concatenate(of_each))

    def put_batch(self, batch: PyTree, size: int | None = None) -> PyTree:
        """A batch with its examples split over the devices, or whole if they are too few for it.

        Of several processes, each gives its own rows of `size`, or as many as each other one.
        """
        if self.group is ALONE:
            devices = self._devices(self.batch)

            def put(leaf: Any) -> Any:
                is_even = jnp.ndim(leaf) > 0 and len(leaf) % devices == 0
                return jax.device_put(leaf, self.of_batch if is_even else self.whole)

            return jax.tree.map(put, batch)
        return jax.tree.map(lambda leaf: self._joined(leaf, size), batch)

    def _of_size(self, size: int) -> NamedSharding:
        return self.whole if size % self._devices(self.batch) else self.of_batch

    def _joined(self, leaf: Any, size: int | None) -> Any:
        """An array of the rows that each process has."""
        if not jnp.ndim(leaf):
            return _put(leaf, self.whole)
        if size is None:
            devices = self._devices(self.batch)
            own = len(self.own_rows(devices))
            if len(leaf) % own:
                raise ValueError(
                    f"sharding: a batch has {len(leaf)} examples in process {jax.process_index()}, "
                    f"expected a multiple of {own}, over whose devices they are split"
                )
            size = len(leaf) // own * devices
        rows, shape = self.own_rows(size), (size, *leaf.shape[1:])
        place = self._of_size(size)

        def part(index: Any) -> Any:
            first, last, _ = index[0].indices(size)
            start = int(np.searchsorted(rows, first))
            return leaf[start : start + last - first]

        parts = [
            jax.device_put(part(index), device)
            for device, index in place.addressable_devices_indices_map(shape).items()
        ]
        return jax.make_array_from_single_device_arrays(shape, place, parts)

    # Inside of programs

    def hold(self, tree: PyTree, params: PyTree, copies: int | None = None) -> PyTree:
        """`tree` with each leaf where it belongs, see `of`."""
        return jax.tree.map(lax.with_sharding_constraint, tree, self.of(tree, params, copies))

    def copied(self, tree: PyTree) -> PyTree:
        """`tree` whole on every device."""
        return jax.tree.map(lambda leaf: lax.with_sharding_constraint(leaf, self.whole), tree)

    def split(self, batch: PyTree, rest: Any = None) -> PyTree:
        """A batch with its examples split over the devices; `rest` is for all other axes."""

        def one(leaf: Any) -> Any:
            if not jnp.ndim(leaf):
                return leaf
            spec = PartitionSpec(self.batch or None, *[rest] * (leaf.ndim - 1))
            return lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))

        return jax.tree.map(one, batch)

    def gathered(self, params: PyTree, path: str, depths: tuple[int, ...]) -> PyTree:
        """The parameters of a layer at `path` whole along the axes that FSDP spreads them over.

        Their gradients come back spread. `depths` are the leading axes that the layer does not see.
        """

        def one(end: tuple[Any, ...], leaf: Any) -> Any:
            name = f"{path}{path_text(end)}".removesuffix("/")
            rules = (rule for rule in self.rules if fnmatch.fnmatchcase(name, rule.glob))
            rule = next(rules, None)
            if rule is None or rule.fsdp is None:
                return leaf
            shape = (*depths, *leaf.shape)
            for part in (rule, rule._replace(fsdp=None)):
                spec = self._named(self._spec(part, name, shape)[len(depths) :])
                leaf = lax.with_sharding_constraint(leaf, spec)
            return leaf

        return jax.tree_util.tree_map_with_path(one, params)


@checked
def sharding(
    mesh: Mesh | None = None,
    *,
    batch: str | tuple[str, ...] | None = "data",
    params: Placement | Mapping[str, Placement] | None = None,
) -> Sharding:
    """How training is spread over many devices: the argument `sharding` of whatever runs a model.

    The examples of a batch are split, each parameter lies where its rule says, and what is like a
    parameter (its gradient, moments, the best epoch's) lies as it does. The numbers are those of
    one device, to rounding.

    Args:
        mesh: the devices, a `jax.sharding.Mesh` with axes of type Auto or Explicit, which are made
            Auto; None for all devices along one axis, called as `batch` says.
        batch: the axis, or axes, of the mesh that examples are split over; None for none.
        params: where the parameters lie: `nn.fsdp(axis)`, a `jax.sharding.PartitionSpec`, or a
            pair of them, for what the first leaves whole; or a dict of these by glob on the path of
            the parameters, of which the first match counts. Others are whole on every device.

    Returns:
        A `Sharding`: `of_params(params)` is the `jax.sharding.NamedSharding` of each parameter, for
        `jax.jit(..., out_shardings=...)`, and `of_batch` that of a batch, for `jax.device_put`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: the mesh has no such axis; once the parameters are there, a glob matches none,
            or a `PartitionSpec` has too many entries or does not divide an axis.

    Example:
        >>> import jax, jaxnn as nn
        >>> from jax.sharding import PartitionSpec as P
        >>> mesh = jax.make_mesh((1, jax.device_count()), ("data", "model"))
        >>> spread = nn.sharding(mesh, params={"*/out/kernel": (P(None, "model"), nn.fsdp("data")),
        ...                                    "*": nn.fsdp("data")})
        >>> kernel = jax.ShapeDtypeStruct((64, 16 * jax.device_count()), "float32")
        >>> params = {"mlp": {"in": {"kernel": kernel}, "out": {"kernel": kernel}}}
        >>> spread.of_params(params)["mlp"]["out"]["kernel"].spec
        P('data', 'model')
    """
    if mesh is None:
        if not isinstance(batch, str):
            raise ValueError(f"sharding: mesh is None and batch is {batch!r}, expected one axis")
        mesh = jax.make_mesh((jax.device_count(),), (batch,), axis_types=(AxisType.Auto,))
    if not isinstance(mesh, Mesh):
        raise TypeError(f"sharding: mesh is {mesh!r}, expected a jax.sharding.Mesh")
    mesh = _automatic(mesh)
    by_glob = params if isinstance(params, Mapping) else {} if params is None else {"*": params}
    rules = tuple(_rule(mesh, glob, placement) for glob, placement in by_glob.items())
    axes = (batch,) if isinstance(batch, str) else batch or ()
    return Sharding(mesh, _axes_of(mesh, "batch", axes), rules)


def check_sharding(function: str, value: Any) -> None:
    """Raise unless the argument `sharding` is one, or None."""
    if value is not None and not isinstance(value, Sharding):
        raise TypeError(f"{function}: sharding is {value!r}, expected nn.sharding(...)")


def _put(leaf: Any, place: NamedSharding) -> Any:
    """An array where it is to be; of several processes, each has it and puts what is its own."""
    is_own = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    if place.is_fully_addressable or not is_own:
        return jax.device_put(leaf, place)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), place)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, place, lambda index: host[index])


def _automatic(mesh: Mesh) -> Mesh:
    automatic = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=automatic)


def _rule(mesh: Mesh, glob: str, placement: Any) -> _Rule:
    name = f"params[{glob!r}]"
    spec: Any = placement
    spread: Any = None
    if isinstance(placement, FSDP):
        spec, spread = PartitionSpec(), placement
    elif not isinstance(placement, PartitionSpec) and isinstance(placement, tuple):
        spec, spread = placement if len(placement) == 2 else (None, None)
    is_rule = isinstance(spec, PartitionSpec) and isinstance(spread, FSDP | None)
    if not (is_rule and all(isinstance(entry, str | tuple | None) for entry in spec)):
        raise TypeError(
            f"sharding: {name} is {placement!r}, expected nn.fsdp(axis), a PartitionSpec of axes "
            "or a pair of them"
        )
    entries = tuple(
        _axes_of(mesh, name, (entry,) if isinstance(entry, str) else entry or ()) for entry in spec
    )
    used = [axis for entry in entries for axis in entry]
    _axes_of(mesh, name, (*used, *([] if spread is None else [spread.axis])))
    return _Rule(glob, entries, spread)


def _axes_of(mesh: Mesh, name: str, axes: Axes) -> Axes:
    """Some axes of a mesh, checked."""
    for axis in axes:
        if axis not in mesh.axis_names:
            raise ValueError(
                f"sharding: {name} has the axis {axis!r}, expected one of the mesh: "
                f"{', '.join(map(repr, mesh.axis_names))}"
            )
    if len(set(axes)) < len(axes):
        raise ValueError(f"sharding: {name} has an axis twice: {axes}, expected each once")
    return tuple(axes)


def _partition(spec: tuple[Axes, ...]) -> PartitionSpec:
    return PartitionSpec(*(axes[0] if len(axes) == 1 else axes or None for axes in spec))
