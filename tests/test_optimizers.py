"""Each optimizer walks the same path as the NumPy reference, optax and torch, in float64."""

import functools
import inspect

import numpy as np
import pytest

import jaxnn as nn
from tests.optimizer_cases import (
    CASES,
    RATES,
    every_case,
    initial_weights,
    trajectory_in_jax,
    trajectory_in_numpy,
    trajectory_in_torch,
    usual_promotion,
)

pytestmark = pytest.mark.usefixtures("x64")

every_rate = pytest.mark.parametrize("rate", RATES)
BY_NAME = {case.name: case for case in CASES}
NOT_UPDATING = {"Optimizer", "apply_updates", "global_norm"}


@functools.cache
def our_trajectory(name, rate):
    return trajectory_in_jax(BY_NAME[name].make(nn.optimizers, RATES[rate](nn.schedules)))


def assert_same_path(ours, theirs, tolerance):
    for path, w in theirs.items():
        assert ours[path].dtype == np.float64
        np.testing.assert_allclose(ours[path], w, rtol=tolerance, atol=tolerance, err_msg=path)
        assert np.abs(w[-1] - initial_weights()[path]).max() > 0.01, "it went nowhere"


@every_case
@every_rate
def test_numpy(case, rate):
    assert_same_path(our_trajectory(case.name, rate), trajectory_in_numpy(case, rate), 1e-10)


@every_case
@every_rate
def test_optax(case, rate):
    optax = pytest.importorskip("optax")
    with usual_promotion():
        theirs = trajectory_in_jax((case.optax or case.make)(optax, RATES[rate](optax)))
    assert_same_path(our_trajectory(case.name, rate), theirs, 1e-10)


@pytest.mark.parametrize("case", [c for c in CASES if c.torch], ids=lambda case: case.name)
@every_rate
def test_torch(case, rate):
    torch = pytest.importorskip("torch")
    if rate != "constant" and not case.torch_schedules:
        return
    assert_same_path(our_trajectory(case.name, rate), trajectory_in_torch(case, rate, torch), 1e-9)


def test_the_table_has_every_optimizer():
    updating = set(nn.optimizers.__all__) - NOT_UPDATING
    in_table = " ".join(inspect.getsource(inspect.getmodule(type(CASES[0]))).split())
    assert {name for name in updating if f".{name}(" not in in_table} <= {"sgd", "rmsprop", "adam"}
