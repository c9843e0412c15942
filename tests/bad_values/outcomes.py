"""What a call with a bad value ends in."""

import re
import signal
import traceback
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp

import jaxnn as nn

PACKAGE = str(Path(nn.__file__).parent)


class Thing:
    """An object of a class that nobody knows."""

    def __repr__(self):
        return "Thing()"


VALUES = {
    "None": None,
    "'abc'": "abc",
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "nan": float("nan"),
    "True": True,
    "[]": [],
    "{}": {},
    "empty": jnp.zeros(0),
    "object": Thing(),
    "constructor": nn.dense,
    "10**30": 10**30,
}


class HangsError(BaseException):
    """A call that does not end."""


@contextmanager
def limit(seconds):
    """Raise `HangsError` after some seconds."""

    def stop(*_):
        raise HangsError

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def outcome(call, name, value, seconds=20):
    """How a call with `value` for the argument `name` ends, and the message."""
    parameter = next(p for p in call.parameters if p.name == name)
    if parameter.kind is parameter.VAR_POSITIONAL:
        changes = {name: (value, *call.arguments.get(name, ())[1:])}
    elif parameter.kind is parameter.VAR_KEYWORD:
        changes = {name: {"first": value}}
        call = call._replace(
            arguments={k: v for k, v in call.arguments.items() if k not in ("layers", "cells")}
        )
    else:
        changes = {name: value}
    try:
        with limit(seconds):
            call.run(**changes)
    except HangsError:
        return "hangs", ""
    except Exception as error:
        return classified(error, name), f"{type(error).__name__}: {error}"
    return "works", ""


def classified(error, name):
    """The class of an error: right, or what is wrong with it."""
    if name == "path" and (isinstance(error, OSError) or "abc:" in str(error)):
        return "refused"  # what is there is no such file
    if not isinstance(error, (TypeError, ValueError)):
        return "other kind"
    last = traceback.extract_tb(error.__traceback__)[-1]
    if not last.filename.startswith(PACKAGE):
        return "from deep inside"
    names = {"layers": "'0'", "cells": "'0'", "named": "'first'", "children": "'first'"}
    pattern = names.get(name) or rf"\b{name}\b"
    return "refused" if re.search(pattern, str(error)) else "names no parameter"
