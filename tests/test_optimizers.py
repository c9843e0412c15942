"""Each optimizer walks the same path as the NumPy reference, optax and torch, in float64."""

import inspect

import jax
import numpy as np
import pytest

import jaxnn as nn
from tests import optimizer_wrapper_cases
from tests.numpy_reference import schedules as reference_schedules
from tests.optimizer_cases import (
    CASES,
    RATES,
    as_parameters,
    initial_weights,
    trajectories_in_jax,
    trajectory_in_numpy,
    trajectory_in_torch,
    usual_promotion,
)

NOT_UPDATING = {
    "apply_updates",
    "global_norm",
    "hutchinson_estimator_diag_hessian",
}


@pytest.fixture(scope="module", params=as_parameters(CASES))
def case(request):
    """A row of the table; the tests of one row run together."""
    return request.param


def rates_of(case):
    return RATES if case.schedules else {"constant": RATES["constant"]}


def trajectories(case, make, library, schedules, names=RATES):
    rates = {name: rate for name, rate in rates_of(case).items() if name in names}
    with jax.enable_x64(True):
        return trajectories_in_jax(
            {name: make(library, rate(schedules, case.rate)) for name, rate in rates.items()}
        )


@pytest.fixture(scope="module")
def ours(case):
    """The paths of jaxnn's optimizer, one for each of the `RATES`."""
    return trajectories(case, case.make, nn.optimizers, nn.schedules)


def with_rates():
    """Each case with each of its rates, of which by turns one is quick."""
    for place, case in enumerate(CASES):
        for i, name in enumerate(rates_of(case)):
            is_slow = case.slow or i != place % len(rates_of(case))
            yield pytest.param(
                case, name, id=f"{case.name}-{name}", marks=[pytest.mark.slow] * is_slow
            )


def assert_same_path(ours, theirs, tolerance):
    for name, start in initial_weights().items():
        assert ours[name].dtype == np.float64
        np.testing.assert_allclose(ours[name], theirs[name], rtol=tolerance, atol=tolerance)
        moved = np.abs(ours[name][:, -1] - start)
        assert moved.max(axis=tuple(range(1, moved.ndim))).min() > 0.01, "it went nowhere"


@pytest.mark.parametrize(("row", "name"), list(with_rates()))
def test_numpy(row, name):
    rate = rates_of(row)[name]
    ours = trajectories(row, row.make, nn.optimizers, nn.schedules, [name])
    theirs = trajectory_in_numpy(row, rate(reference_schedules, row.rate))
    assert_same_path(ours[name], theirs, 1e-10)


@pytest.mark.slow  # the references of NumPy are those of optax
@pytest.mark.parametrize(
    "case", as_parameters([c for c in CASES if c.in_optax]), indirect=True, scope="module"
)
def test_optax(case, ours):
    optax = pytest.importorskip("optax")
    with usual_promotion():
        theirs = trajectories(case, case.optax or case.make, optax, optax)
    for name in rates_of(case):
        assert_same_path(ours[name], theirs[name], 1e-10)


@pytest.mark.parametrize(
    "case", as_parameters([c for c in CASES if c.torch]), indirect=True, scope="module"
)
def test_torch(case, ours):
    torch = pytest.importorskip("torch")
    for name in rates_of(case) if case.torch_schedules else ["constant"]:
        rate = RATES[name](reference_schedules, case.rate)
        assert_same_path(ours[name], trajectory_in_torch(case, rate, torch), 1e-9)


def test_the_table_has_every_optimizer():
    used = set()

    class Recorder:
        def __getattr__(self, name):
            used.add(name)
            return getattr(nn.optimizers, name)

    for case in CASES:
        case.make(Recorder(), case.rate)
        if case.schedules:
            case.make(Recorder(), nn.schedules.constant_schedule(case.rate))
    for wrapper in optimizer_wrapper_cases.CASES:
        wrapper.make(Recorder(), wrapper.rate)
    without_row = NOT_UPDATING | optimizer_wrapper_cases.NAMES_WITHOUT_ROW
    functions = {n for n in nn.optimizers.__all__ if not inspect.isclass(getattr(nn.optimizers, n))}
    assert used == functions - without_row
