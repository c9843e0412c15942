"""Checkpoints of `fit`: all that a run needs to go on, and the best so far."""

import base64
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._core.paths import leaf_paths
from jaxnn._core.processes import Group, PeerError
from jaxnn._core.types import PyTree
from jaxnn._files.drafts import draft
from jaxnn._files.leaves import Form, is_key, sharding_of
from jaxnn._files.saved import reading
from jaxnn._files.saving import save, saved_metadata
from jaxnn._files.spread import Piece, Spread, is_spread, releasing_parts
from jaxnn._training.best import Best
from jaxnn._training.host.feeds import At, Feed
from jaxnn._training.host.identity import Told
from jaxnn._training.host.options import SECONDS_BETWEEN, CheckpointOptions
from jaxnn._training.host.owner import Place
from jaxnn._training.host.warning import warn
from jaxnn._training.host.writer import Writer
from jaxnn._training.loop import Position
from jaxnn._training.run import Carry, Run
from jaxnn._training.stop import rows_that_count
from jaxnn.callbacks import Callback

_OLDER = re.compile(r"checkpoint-(\d+)\.safetensors")
_GIVEN = "carry/hyperparams"  # are those of the arguments, which are compared
_KEPT = re.compile(r"carry/kept/(\w+)")


class Saved(NamedTuple):
    """What a checkpoint has besides the arrays of the run."""

    number: int
    step: int
    seconds: float
    seen: tuple[int, int]
    best_epoch: Any
    told: dict[str, Any]
    versions: dict[str, str]
    callbacks: dict[str, Any]
    data: Any


def versions() -> dict[str, str]:
    """What the bits of a run depend on besides its arguments."""
    return {"jaxnn": sys.modules["jaxnn"].__version__, "jax": jax.__version__}


class Checkpoints:
    """The files of one run in a directory.

    `told` is what a run and its continuation are compared by; of the callbacks, those with a
    `save` are remembered by name. `begun` is what the run begins with. `step` is that of the last
    checkpoint.
    """

    def __init__(
        self,
        options: CheckpointOptions,
        place: Place,
        told: Mapping[str, Told],
        callbacks: Sequence[Callback],
        begun: Carry,
        group: Group,
    ) -> None:
        self._options, self._told, self._group = options, dict(told), group
        self._mark = group.mark() if group.has_others else ""
        self._pending: _Pending | None = None
        directory, self._hold = place
        self._directory = directory
        self._last, self._best = directory / "last.safetensors", directory / "best.safetensors"
        self._callbacks = dict(_named(callbacks))
        self._writer = Writer(f"fit: checkpoint {directory}")
        self._number = self._resumed = 0
        self._best_epoch = np.asarray(-1)
        self.step = self._epoch = 0
        self._asked = 0, 0, time.monotonic()  # step, epoch and time when a save was due last
        self.found = self._agreed(self._newest_first())
        # Whoever begins with NaN in params wants it there.
        self._begun_sound = is_sound(begun, group)
        self._has_told_of_nan = False
        self._values: dict[str, Any] = {}  # of the callbacks
        self._callback_values()  # what cannot be saved is told before the first step

    def _newest_first(self) -> list[Path]:
        """The checkpoints in the directory."""
        older = [(int(m[1]), path) for path, m in self._older()]
        return [self._last] * self._last.exists() + [path for _, path in sorted(older)[::-1]]

    def _agreed(self, paths: list[Path]) -> list[Path]:
        """The paths that the first process sees."""
        if not self._group.has_others:
            return paths
        names = self._group.texts("/".join(path.name for path in paths))[0]
        return [self._directory / name for name in names.split("/") if name]

    def _older(self) -> Iterator[tuple[Path, re.Match[str]]]:
        for path in self._directory.iterdir():
            if match := _OLDER.fullmatch(path.name):
                yield path, match

    # Writing

    def most_steps(self, at: At) -> int | None:
        """After how many steps a checkpoint is due at the latest, where that is a number."""
        every = self._options.every_steps
        return None if every is None else every - at.step % every

    @property
    def wants_epochs(self) -> bool:
        """Whether a chunk must not go beyond an epoch."""
        return self._options.every_epochs is not None

    def is_due(self, at: At) -> bool:
        """Whether the last time is long enough ago."""
        options, epoch = self._options, int(at.position.epoch)
        last_step, last_epoch, last_time = self._asked
        is_due = False
        if options.every_steps is not None:
            is_due |= at.step // options.every_steps > last_step // options.every_steps
        if options.every_epochs is not None:
            is_due |= epoch // options.every_epochs > last_epoch // options.every_epochs
        pause = options.every_seconds
        if pause is None and options.every_steps is None and options.every_epochs is None:
            pause = SECONDS_BETWEEN
        if pause is not None:
            is_due |= time.monotonic() - last_time >= pause
        return is_due

    def save(self, at: At, seconds: float) -> None:
        """Take a copy of where the run stands, and let a thread write it.

        A run that is lost in NaN takes the place of nothing.
        """
        if self._begun_sound and not is_sound(at.position.carry, self._group):
            self._tell_of_nan(at.step)
            return
        epoch = int(at.position.epoch)
        if self._has_concluded_within(self._options.time_limit):
            try:
                with self._group.vote("fit: checkpoint"):
                    piece = self._piece(at, seconds)
                self._writer.write(piece)
            except Exception as error:  # a callback's value, or no memory for the copy
                self._pending = None
                self._writer.warn(error)
            self.step, self._epoch = at.step, epoch
        self._asked = at.step, epoch, time.monotonic()

    def save_at_end(self, at: At, seconds: float) -> None:
        """Save, unless that was just done, and wait until it is written."""
        limit = self._options.time_limit
        if not self._has_concluded_within(limit):  # what comes behind it would take as long
            return
        is_saved = self._number > 0 and not self._writer.failed
        is_saved &= (at.step, int(at.position.epoch)) == (self.step, self._epoch)
        if not self._group.gathered(np.int32(is_saved)).all():
            self.save(at, seconds)
            self._has_concluded_within(limit)

    def _has_concluded_within(self, seconds: float | None) -> bool:
        """Wait, for so many seconds at most, until what is under way is in its place."""
        self._writer.wait(seconds)
        if self._group.gathered(np.int32(self._writer.is_busy)).any():
            return False
        self.conclude()
        return True

    @property
    def has_written(self) -> bool:
        """Whether this process has written what it has of the checkpoint under way."""
        return self._writer.has_written

    def conclude(self) -> None:
        """Put the files in their places that all processes have written, if any wait for that."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self._writer.wait()
        try:
            written, placed = (self._group.vote("fit: checkpoint") for _ in range(2))
            with placed, pending.files, written:
                if self._writer.failed:
                    raise _UnwrittenError
            self._number = pending.number
            self._best_epoch = pending.best_epoch
            if self._group.is_first:
                self._remove_older()
        except _UnwrittenError:  # which was told
            return
        except Exception as error:
            self._writer.warn(error)

    def save_at_failure(self, feed: Feed, seconds: float) -> None:
        """Save what was trained since, unless a step was cut off, and wait until it is written."""
        is_whole = feed.is_whole
        lacks = is_whole and (feed.at.step > self.step or self._writer.failed)
        are_whole, lack = self._group.gathered(np.array([is_whole, lacks])).T
        if are_whole.all() and lack.any():
            self.save_at_end(feed.at, seconds)
        else:
            self._has_concluded_within(self._options.time_limit)

    def _tell_of_nan(self, step: int) -> None:
        if not self._has_told_of_nan:
            self._has_told_of_nan = True
            warn(
                f"fit: params are NaN after step {step} and are not saved: checkpoint "
                f"{self._directory} stays as it was after step {self.step}; on_nonfinite tells "
                "what to do about such steps, and resume goes on from before them"
            )

    def _piece(self, at: At, seconds: float) -> Callable[[], None]:
        best: Best = at.position.carry.kept["best"]
        epoch = np.array(best.epoch)
        is_new = not np.array_equal(epoch, self._best_epoch)
        is_new |= not self._group.of_first(np.int32(self._best.exists()))
        is_new &= bool(np.all(epoch >= 0))
        of_best = _copied({"params": best.params, "state": best.state}) if is_new else None
        position = _copied(at.position)
        number = self._number + 1
        content = {
            "number": number,
            "step": at.step,
            "seconds": seconds,
            "seen": at.seen,
            "told": self._told,
            "versions": versions(),
            "callbacks": self._callback_values(),
            "data": self._state_of_data(at.data),
        }
        if self._group.has_others:
            best_epoch = epoch if is_new else self._best_epoch
            text = json.dumps(content | {"best_epoch": best_epoch.tolist()})
            self._pending = pending = _Pending(ExitStack(), number, best_epoch)
            marks = [_mark(f"{self._mark} {number} {name}") for name in ("last", "best")]

            def write_own() -> None:
                """The part of this process; what is entered first is put in its place last."""
                self._hold()
                files, last = pending.files, (str(self._last), position, {"fit": text})
                files.enter_context(draft(*last, marks[0]))
                if self._group.is_first:
                    files.push(lambda kind, *_: None if kind else self._set_aside())
                if of_best is not None:
                    files.enter_context(draft(str(self._best), of_best, {}, marks[1]))

            return write_own

        def write() -> None:
            self._hold()
            problem: Exception | None = None
            if of_best is not None:
                try:
                    save(self._best, of_best)
                    self._best_epoch = epoch
                except OSError as error:  # which must not cost the run
                    problem = error
            text = json.dumps(content | {"best_epoch": self._best_epoch.tolist()})
            self._set_aside()
            save(self._last, position, metadata={"fit": text})
            self._number = number
            self._remove_older()
            if problem is not None:
                raise problem

        return write

    def _set_aside(self) -> None:
        """Give the last one its other name; it stays where it is until the next takes its place."""
        if not (self._last.exists() and self._number and self._keeps_older()):
            return
        older = self._directory / f"checkpoint-{self._number}.safetensors"
        if self._number == self._resumed and older.exists():
            return  # a life was killed here, or the run goes on from it
        try:
            if self._last.is_symlink():  # what it points to is what the next would replace
                raise OSError
            os.link(self._last, older)
        except OSError:  # the file system has no links, or another future of the run was here
            os.replace(self._last, older)

    def _keeps_older(self) -> bool:
        return self._options.keep > 1 or self._options.keep_every is not None

    def _remove_older(self) -> None:
        keep, every = self._options.keep, self._options.keep_every
        for path, match in self._older():
            number = int(match[1])
            if number <= self._number - keep and (every is None or number % every):
                with releasing_parts(path):
                    path.unlink(missing_ok=True)

    def _state_of_data(self, state: Any) -> Any:
        """The state of the iterator in JSON, of several processes that of each."""
        text = _as_text(state)
        if not self._group.has_others:
            return text
        return {"processes": [json.loads(each) for each in self._group.texts(json.dumps(text))]}

    def _state_here(self, text: Any) -> Any:
        """The state of the iterator of this process; None if there were others than now."""
        own, count = 0, 1
        if self._group.has_others:
            own, count = jax.process_index(), jax.process_count()
        of_each = text["processes"] if text is not None and "processes" in text else [text]
        return _from_text(of_each[own]) if len(of_each) == count else None

    def _callback_values(self) -> dict[str, Any]:
        for name, callback in self._callbacks.items():
            assert callback.save is not None
            try:
                self._values[name] = _held(name, callback.save())
            except Exception as error:
                if name not in self._values:
                    raise
                warn(
                    f"fit: callbacks has {name}, whose save failed: {type(error).__name__}: "
                    f"{error}; checkpoints have what it gave before"
                )
        return dict(self._values)

    # Reading

    def restore(self, run: Run, feed: Feed, accepts_changes: bool) -> float:
        """Set the feed, and the callbacks, to where the saved run stands; its seconds."""
        path, saved, arrays = self._newest_whole(feed.at.position)
        self._compare(path, saved, accepts_changes)
        position, fresh = _assembled(path, feed.at.position, arrays, accepts_changes)
        if saved.told.get("the best epoch") != json.loads(json.dumps(self._told))["the best epoch"]:
            fresh |= {"best", "stop"} & position.carry.kept.keys()
            old = feed.at.position.carry.kept
            position = position._replace(
                carry=position.carry.keep(**{name: old[name] for name in fresh if name in old})
            )
        finished, seen = int(position.epoch), saved.seen
        if feed.steps_per_epoch is not None and int(position.step) >= feed.steps_per_epoch:
            # The epochs have become shorter: this one begins anew.
            sums = feed.at.position.carry.sums
            position = position._replace(
                carry=position.carry._replace(sums=sums), step=feed.at.position.step
            )
            seen = seen[0] - seen[1], 0
        rows = position.history
        if "epochs" in position.carry.kept and "epochs" not in fresh:
            rows = rows_that_count(position.carry, rows)  # of members that go on after a pause
        carry = run.resume(position.carry, position.epoch, frozenset(fresh))
        history = {
            name: _with_rows(rows[name], empty, finished)
            for name, empty in feed.at.position.history.items()
        }
        state = self._state_here(saved.data)
        feed.at = At(position._replace(carry=carry, history=history), saved.step, seen, state)
        self._number = self._resumed = saved.number
        self._best_epoch = np.asarray(saved.best_epoch)
        self.step, self._epoch = saved.step, finished
        self._asked = self.step, self._epoch, time.monotonic()
        for name, callback in self._callbacks.items():
            if callback.restore is not None and name in saved.callbacks:
                callback.restore(saved.callbacks[name])
        return saved.seconds

    def _newest_whole(self, beginning: Position) -> tuple[Path, Saved, dict[str, Any]]:
        """The newest checkpoint that is not damaged."""
        errors: list[Exception] = []
        for path in self.found:
            try:
                with self._group.vote(f"fit: checkpoint {path}"):
                    saved, arrays = _read(path), _arrays(path, beginning)
            except (OSError, ValueError, PeerError) as error:
                errors.append(error)
                continue
            for damage in errors:
                warn(f"{damage}; training goes on from {path.name}, which is older")
            return path, saved, arrays
        raise errors[0]

    def _compare(self, path: Path, saved: Saved, accepts_changes: bool) -> None:
        for name, ours in versions().items():
            if saved.versions.get(name) != ours:
                warn(
                    f"fit: checkpoint {path} was written with {name} {saved.versions.get(name)}, "
                    f"and this is {ours}: the run may go on with other bits"
                )
        for name, told in self._told.items():
            theirs = saved.told.get(name)
            if theirs == list(told) or name == "the best epoch":
                continue
            text, mine = str(_text_of(theirs)), told.text
            if text == mine:
                text, mine = f"another {text}, by what is in it", "the same"
            difference = (
                f"fit: checkpoint {path} is of a run with {name} {text[:300]}, expected "
                f"{mine[:300]}, as of this one"
            )
            if not accepts_changes:
                raise ValueError(f"{difference}; or resume='changed'")
            warn(difference)


def _text_of(told: Any) -> Any:
    return told[0] if isinstance(told, list) and told else told


def _named(callbacks: Sequence[Callback]) -> Iterator[tuple[str, Callback]]:
    """The callbacks that remember something, by the names of their functions."""
    counts: dict[str, int] = {}
    for callback in callbacks:
        if callback.save is None:
            continue
        function: Any = getattr(callback.save, "func", callback.save)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        name = name.removesuffix(".<lambda>").removesuffix(".<locals>")
        counts[name] = counts.get(name, 0) + 1
        yield (name if counts[name] == 1 else f"{name} {counts[name]}"), callback


def _held(name: str, value: Any) -> Any:
    """A copy of what a callback saves, as JSON holds it."""
    try:
        text = json.dumps(value, default=_as_json)
        _check_keys(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"fit: callbacks has {name}, whose save returned what JSON cannot hold: {error}"
        ) from None
    return json.loads(text)


def _check_keys(value: Any) -> None:
    """Raise for keys of which JSON makes strings."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is a {type(key).__name__}")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_keys(item)


def _as_json(value: Any) -> Any:
    """What JSON cannot hold itself: scalars and arrays."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None and kind in "biufUV":
        return value.tolist()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _as_text(state: Any) -> Any:
    """The state of an iterator in JSON; None for one that comes back from it as another."""
    if isinstance(state, bytes):
        return {"bytes": base64.b64encode(state).decode()}
    try:
        value = json.loads(json.dumps(state))
        return None if state is None or value != state else {"value": value}
    except (TypeError, ValueError):
        return None


def _from_text(text: Any) -> Any:
    """The inverse of `_as_text`."""
    if text is None:
        return None
    return base64.b64decode(text["bytes"]) if "bytes" in text else text["value"]


def _is_state(text: Any) -> bool:
    if isinstance(text, dict) and text.keys() == {"processes"}:
        return isinstance(text["processes"], list) and all(map(_is_state, text["processes"]))
    if isinstance(text, dict) and text.keys() == {"bytes"}:
        return isinstance(text["bytes"], str)
    return text is None or (isinstance(text, dict) and text.keys() == {"value"})


def is_sound(carry: Carry, group: Group) -> bool:
    """Whether no params are NaN, those of one member at least if there are several."""
    members = carry.stopped.shape
    sound = np.ones(members, bool)
    for leaf in jax.tree.leaves(carry.train.params):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            own = Spread(leaf).pieces if is_spread(leaf) else [Piece((), leaf)]
            for piece in own:
                values = np.asarray(piece.values).reshape(*members, -1)
                sound &= ~np.isnan(values).any(axis=-1)
    return bool(np.any(group.gathered(sound).all(axis=0)))


def _copied(tree: PyTree) -> PyTree:
    """A copy on the host, whatever becomes of the arrays' memory; of keys where they are."""

    def copy(leaf: jax.Array) -> Any:
        if is_key(leaf):
            return jnp.copy(leaf)
        return Spread(leaf, copy=True) if is_spread(leaf) else np.array(leaf)

    return jax.tree.map(copy, tree)


class _Pending(NamedTuple):
    """A checkpoint that several processes write: files to be put in their places, and for what."""

    files: ExitStack
    number: int
    best_epoch: Any


class _UnwrittenError(Exception):
    """This process could not write what it has."""


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "number": lambda v: _is_count(v),
    "step": lambda v: _is_count(v),
    "seconds": lambda v: type(v) in (int, float) and v >= 0,
    "seen": lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_count, v)),
    "best_epoch": lambda v: all(type(n) is int and n >= -1 for n in _flat(v)),
    "told": lambda v: isinstance(v, dict),
    "versions": lambda v: isinstance(v, dict) and all(isinstance(n, str) for n in v.values()),
    "callbacks": lambda v: isinstance(v, dict),
    "data": lambda v: _is_state(v),
}


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read(path: Path) -> Saved:
    """What a checkpoint says of itself, checked field by field."""
    text = saved_metadata(path).get("fit")
    if text is None:
        raise ValueError(f"fit: checkpoint {path} is not of fit, expected one that is")
    try:
        content = json.loads(text)
        values = {name: content[name] for name in _FIELDS}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"fit: checkpoint {path} is damaged: {error!r}") from None
    for name, is_sound in _FIELDS.items():
        if not is_sound(values[name]):
            raise ValueError(f"fit: checkpoint {path} is damaged: {name} is {values[name]!r}")
    return Saved(**values | {"seen": tuple(values["seen"])})


def _assembled(
    path: Path, beginning: Position, arrays: Mapping[str, Any], accepts_changes: bool
) -> tuple[Position, set[str]]:
    """The position that is saved, and which of the wrappers' entries are those of the beginning.

    Where changes are accepted, the history may have other columns: NaN before they were there. So
    may that of skipped steps anyhow: what to do about bad steps is decided anew.
    """
    measured = ("history/", "carry/sums/") if accepts_changes else ("history/skipped",)
    leaves, names = jax.tree.leaves(beginning), leaf_paths(beginning)
    entries = {name: m[1] for name in (*names, *arrays) if (m := _KEPT.match(name))}
    fresh = {entry for name, entry in entries.items() if name in names and name not in arrays}
    problems, made = [], []
    for name, leaf in zip(names, leaves, strict=True):
        found = arrays.get(name)
        if entries.get(name) in fresh or name.startswith(_GIVEN):
            made.append(leaf)
        elif found is None and name.startswith(measured):
            is_history = name.startswith("history/") and jnp.issubdtype(leaf.dtype, jnp.inexact)
            made.append(jnp.full_like(leaf, jnp.nan) if is_history else leaf)
        elif found is None:
            problems.append(f"it lacks {name!r}")
        elif found.dtype != leaf.dtype or _shape(name, found) != _shape(name, leaf):
            problems.append(
                f"leaf {name!r} has shape {found.shape} and dtype {found.dtype}, expected "
                f"{leaf.shape} and {leaf.dtype}"
            )
        else:
            made.append(found)
    problems += [
        f"it has {name!r}, which this run has not"
        for name in arrays
        if name not in names and name not in entries and not name.startswith((*measured, _GIVEN))
    ]
    if problems and all("'carry/train/opt_state/" in problem for problem in problems):
        problems.append(
            "another optimizer begins a run of its own: another directory, and params=... and "
            "state=... from best.safetensors"
        )
        problems = problems[:4] + problems[-1:]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"fit: checkpoint {path} is of another run: {'; '.join(problems[:5])}{more}"
        )
    position: Position = jax.tree.unflatten(jax.tree.structure(beginning), made)
    epoch, step = int(position.epoch), int(position.step)
    if epoch < 0 or step < 0 or any(len(rows) < epoch for rows in position.history.values()):
        rows = {len(rows) for rows in position.history.values()}
        raise ValueError(
            f"fit: checkpoint {path} is damaged: it has {epoch} epochs, {step} steps and {rows} "
            "rows of the history"
        )
    return position, fresh


def _arrays(path: Path, beginning: Position) -> dict[str, Any]:
    """All arrays of a checkpoint, those like the beginning's where these are, others of NumPy."""
    leaves = dict(zip(leaf_paths(beginning), jax.tree.leaves(beginning), strict=True))

    def like(name: str, form: Form) -> Any:
        leaf = leaves.get(name)
        if leaf is None or form.dtype != leaf.dtype or _shape(name, form) != _shape(name, leaf):
            return None
        return jax.ShapeDtypeStruct(form.shape, form.dtype, sharding=sharding_of(leaf))

    with reading("load", path) as saved:
        wanted = {name: like(name, form) for name, form in saved.forms.items()}
        return saved.leaves(wanted, {name: name for name in wanted})


def _shape(name: str, array: Any) -> tuple[int, ...]:
    """The shape, of an array of the history that of a row."""
    shape: tuple[int, ...] = array.shape
    return shape[1:] if name.startswith("history/") else shape


def _with_rows(saved: jax.Array, empty: jax.Array, finished: int) -> jax.Array:
    """A history with room for as many rows as `empty`, but no less than are finished."""
    nothing = jnp.zeros((max(len(empty) - finished, 0), *empty.shape[1:]), empty.dtype)
    return jnp.concatenate([saved[:finished], nothing])
