"""Trees of arrays in files, in the safetensors format."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from os import PathLike

import jax

from jaxnn._core.arguments import checked
from jaxnn._core.processes import ALL
from jaxnn._core.sharding import Sharding, check_sharding
from jaxnn._core.types import PyTree
from jaxnn._files.drafts import draft
from jaxnn._files.leaves import Form, check_text, form_of, leaves_by_name
from jaxnn._files.saved import reading
from jaxnn._files.sealed import RESERVED
from jaxnn._files.spread import is_spread


@checked
def save(
    path: str | bytes | PathLike[str], tree: PyTree, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Save a tree of arrays as one file in the safetensors format.

    Each leaf is a tensor of the file, named by its path in the tree, "encoder/0/kernel"; other
    programs that know the format read it. A file that is already there is replaced when the new
    one is complete and on disk: whoever reads, and whoever comes after a crash, finds the one or
    the other, whole. The file has a SHA-256 digest of each leaf and of what describes them, which
    `load` checks.

    Leaves go through the host's memory one after the other. The same tree gives the same bytes.

    Arrays that are spread over several processes are saved by all of these, who must all call
    `save`, with a path in a directory that they share. What a process other than the first has is
    in a file beside that at the path, `part-MARK-PROCESS.safetensors`, which goes with it and is
    removed when that is replaced. Any number of processes and devices can load them.

    Args:
        path: the file. Its directory must exist; a symbolic link stays, and what it points to is
            replaced. A process that is killed leaves a part, `.NAME.RANDOM.tmp`, in the directory,
            which a `save` to the same path removes when it is an hour old.
        tree: a pytree whose leaves are arrays of JAX or NumPy, of any shape and any dtype of JAX,
            numbers of Python or NumPy, or arrays of typed PRNG keys. Dtypes that the format lacks
            (complex128, int4 and others) are stored as bytes.
        metadata: strings by name, to be read by `saved_metadata`. Names that begin with "jaxnn."
            are reserved.

    Returns:
        None.

    Raises:
        FileNotFoundError: there is no directory for the file.
        OSError: the file cannot be written; the one that was there is as it was. In the processes
            that could write theirs, it is a `RuntimeError`.
        TypeError: a leaf is something else, or the metadata are not strings.
        ValueError: two leaves have the same path, an integer of Python takes more than 64 bits,
            an array was donated, or a name is reserved.

    Example:
        >>> import tempfile, jax.numpy as jnp, jaxnn as nn
        >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.save(f"{directory}/params.safetensors", params, metadata={"epoch": "7"})
        ...     print(nn.load(f"{directory}/params.safetensors", params)["bias"])
        ...     print(nn.saved_metadata(f"{directory}/params.safetensors"))
        [0. 0.]
        {'epoch': '7'}
    """
    path, checked = os.fsdecode(path), _checked_metadata(metadata)
    if not any(map(is_spread, jax.tree.leaves(tree))):
        with draft(path, tree, checked):
            pass
        return
    mark = ALL.mark()
    with ALL.vote("save"), ExitStack() as stack, ALL.vote("save"):
        stack.enter_context(draft(path, tree, checked, mark))


@checked
def load(
    path: str | bytes | PathLike[str], like: PyTree = None, *, sharding: Sharding | None = None
) -> PyTree:
    """Load a tree of arrays from a file in the safetensors format.

    Names, shapes and dtypes must be those of `like`; nothing is converted. Of a file that `save`
    wrote, any damage is found by its digests. Files of other programs have no digests; of them the
    header is checked, and that the data are complete.

    Args:
        path: the file.
        like: a tree that says what to expect: arrays, `jax.ShapeDtypeStruct`s, as from
            `jax.eval_shape(layer.init, key, x)`, or numbers. None for whatever the file has, as
            a dict of NumPy arrays (and of PRNG keys) by name.
        sharding: `nn.sharding(...)`: all leaves become JAX arrays that lie where its rules for
            parameters say.

    Returns:
        A tree with the structure of `like`. A leaf is a NumPy array or a number where that of
        `like` is one, and else a JAX array, with the sharding of that of `like` if it is committed
        to one. Of what is spread over devices, each region is read by itself.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: a leaf of `like` is something else, or `sharding` is.
        ValueError: the file is not in the format, or is damaged; it lacks a leaf of `like`, or has
            others; a leaf has another shape or dtype; or JAX is not set to have 64 bits, and a
            leaf is to be a JAX array of them; or a rule of `sharding` does not fit.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp, jaxnn as nn
        >>> model, x = nn.serial(nn.dense(4), nn.relu, nn.dense(1)), jnp.ones((1, 3))
        >>> like, _ = jax.eval_shape(model.init, jax.random.key(0), x)  # computes nothing
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.save(f"{directory}/params.safetensors", model.init(jax.random.key(0), x)[0])
        ...     params = nn.load(f"{directory}/params.safetensors", like)
        ...     print(sorted(nn.load(f"{directory}/params.safetensors")))
        ['0/bias', '0/kernel', '2/bias', '2/kernel']
        >>> nn.stateless(model)(params, x).shape
        (1, 1)
    """
    check_sharding("load", sharding)
    with reading("load", path) as saved:
        wanted = dict.fromkeys(saved.forms) if like is None else leaves_by_name("load", like)
        lacks = [f"it lacks {name!r}" for name in wanted if name not in saved.forms]
        others = [
            f"it has {name!r}, which is not in like" for name in saved.forms if name not in wanted
        ]
        saved.raise_for(lacks + others)
        if sharding is not None:
            wanted = _spread(
                {
                    name: saved.forms[name] if like is None else form_of("load", name, leaf)
                    for name, leaf in wanted.items()
                },
                sharding,
            )
        values = saved.leaves(wanted, {name: name for name in wanted})
    return values if like is None else jax.tree.unflatten(jax.tree.structure(like), values.values())


@checked
def saved_metadata(path: str | bytes | PathLike[str]) -> dict[str, str]:
    """The metadata of a file in the safetensors format, without its arrays.

    Args:
        path: the file.

    Returns:
        What was given to `save` as `metadata`, or what another program put there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not in the format, or its header is damaged.

    Example:
        >>> import tempfile, jax.numpy as jnp, jaxnn as nn
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     nn.save(f"{directory}/a.safetensors", jnp.ones(3), metadata={"model": "small"})
        ...     nn.saved_metadata(f"{directory}/a.safetensors")
        {'model': 'small'}
    """
    with reading("saved_metadata", path) as saved:
        metadata = saved.header.metadata
    return {name: text for name, text in metadata.items() if not name.startswith(RESERVED)}


def _spread(forms: Mapping[str, Form], sharding: Sharding) -> dict[str, jax.ShapeDtypeStruct]:
    """Leaves of these forms, each where the rules of a sharding say."""
    abstract = {name: jax.ShapeDtypeStruct(*form) for name, form in forms.items()}
    places = sharding.of_params(abstract)
    return {name: leaf.update(sharding=places[name]) for name, leaf in abstract.items()}


def _checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    checked = dict(metadata or {})
    for name, value in checked.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"save: metadata has {name!r}: {value!r}, expected strings")
        if name.startswith(RESERVED):
            raise ValueError(f"save: metadata has {name!r}, expected no name in {RESERVED!r}")
        for text in (name, value):
            check_text(f"save: {text!r} in metadata", text)
    return checked
