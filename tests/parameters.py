"""Which of the cases of a parametrized test are quick; the others run in `make test-all`."""

import itertools

import numpy as np
import pytest


def each_value_once(test):
    """Of all combinations of parameters, as few are quick as have every value."""

    def chosen(axes):
        turns = range(max(map(len, axes)))
        return [tuple(axis[turn % len(axis)] for axis in axes) for turn in turns]

    return _with_quick(test, chosen)


def quick_first(n):
    """The first n cases are quick."""
    return lambda test: _with_quick(test, lambda axes: [*itertools.product(*axes)][:n])


def _with_quick(test, choose):
    """The test with one `parametrize` for all, where only those chosen of the quick are quick."""
    marks = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    test.pytestmark = [mark for mark in test.pytestmark if mark not in marks]
    names = [name for mark in marks for name in _names(mark)]
    axes = [_params(mark) for mark in marks]
    quick = choose([[param for param in axis if not _is_slow(param)] for axis in axes])
    cases = [
        pytest.param(
            *(value for param in case for value in param.values),
            id="-".join(param.id for param in case),
            marks=[
                *(mark for param in case for mark in param.marks),
                *([] if any(map(_same, itertools.repeat(case), quick)) else [pytest.mark.slow]),
            ],
        )
        for case in itertools.product(*axes)
    ]
    return pytest.mark.parametrize(names, cases)(test)


def _names(mark):
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def _is_slow(param):
    return any(mark.name == "slow" for mark in param.marks)


def _same(case, other):
    return all(param is one for param, one in zip(case, other, strict=True))


def _params(mark):
    """The values of a mark, each as what `pytest.param` makes, with a name."""
    names, ids = _names(mark), mark.kwargs.get("ids")
    params = []
    for i, given in enumerate(mark.args[1]):
        if not (hasattr(given, "marks") and hasattr(given, "id")):
            given = pytest.param(*(given if len(names) > 1 else [given]))
        if given.id is None:
            values = zip(names, given.values, strict=True)
            name = "-".join(_id(ids, name, value, i) for name, value in values)
            listed = None if ids is None or callable(ids) else str([*ids][i])
            given = given._replace(id=listed or name)
        params.append(given)
    return params


def _id(ids, name, value, i):
    """The name of one value, as pytest gives it."""
    given = ids(value) if callable(ids) else None
    if given is None and (value is None or np.isscalar(value)):
        given = value
    return str(getattr(value, "__name__", f"{name}{i}") if given is None else given)
