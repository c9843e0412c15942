"""A table of the optimizers with their variants, each with what it must agree with.

A row names the same optimizer in jaxnn, in the NumPy reference, in optax and in torch; two
problems, ill-conditioned and non-convex, give them their gradients.
"""

import pytest

from tests.optimizer_cases import adaptive, basic, by_leaf, by_sign
from tests.optimizer_cases.case import Case, kernels
from tests.optimizer_cases.problems import (
    initial_weights,
    trajectories_in_jax,
    trajectory_in_numpy,
    trajectory_in_torch,
    usual_promotion,
)

CASES = [*basic.CASES, *adaptive.CASES, *by_sign.CASES, *by_leaf.CASES]

# How a case's rate becomes its learning rate, given the module of the schedules.
RATES = {
    "constant": lambda schedules, rate: rate,
    "cosine": lambda schedules, rate: schedules.cosine_decay_schedule(rate, 150, 0.1),
}


def as_parameters(cases):
    """Cases as parameters of a test; those that are slow only run by `make test-all`."""
    marks = {True: pytest.mark.slow, False: ()}
    return [pytest.param(case, id=case.name, marks=marks[case.slow]) for case in cases]


every_case = pytest.mark.parametrize("case", as_parameters(CASES))

# Those that differ in more than numbers and masks, for what takes a compilation each.
_ALIKE = ("mask", "numbers", "no-rate", "outside", "scale_by")
DISTINCT_CASES = [case for case in CASES if not any(word in case.name for word in _ALIKE)]
every_distinct_case = pytest.mark.parametrize("case", as_parameters(DISTINCT_CASES))

# For what hardly depends on the update: these in the quick suite, the others in `make test-all`.
_QUICK = ("sgd-momentum", "adamw", "radam", "rprop", "sophia", "adafactor", "muon", "prodigy")
few_cases = pytest.mark.parametrize(
    "case", as_parameters([case._replace(slow=case.name not in _QUICK) for case in DISTINCT_CASES])
)

__all__ = [
    "CASES",
    "RATES",
    "Case",
    "as_parameters",
    "every_case",
    "every_distinct_case",
    "few_cases",
    "initial_weights",
    "kernels",
    "trajectories_in_jax",
    "trajectory_in_numpy",
    "trajectory_in_torch",
    "usual_promotion",
]
