"""The references of the functions in the table against central differences of themselves."""

import functools

import pytest

from tests.numpy_reference import finite_difference
from tests.table import FUNCTIONS, in_turns, rng_for

TOLERANCE = 1e-6

each_function = pytest.mark.parametrize(
    ("row", "shape"),
    [
        pytest.param(row, shape, id=row.case(shape), marks=[] if quick else pytest.mark.slow)
        for row, shape, quick in in_turns(FUNCTIONS)
    ],
)


@each_function
def test_backward_is_the_derivative_of_forward(row, shape):
    arguments = row.draw(rng_for(row.case(shape)), shape)
    reference = functools.partial(row.reference, **row.options)
    assert finite_difference.check(reference, arguments, rng_for("check")) < TOLERANCE
