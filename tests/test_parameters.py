"""Which cases of a parametrized test are quick."""

import pytest

from tests.parameters import each_value_once, quick_first

SLOW = pytest.param("float64", marks=pytest.mark.slow)


def cases_of(choose):
    """All cases of a test with two parametrizations, and the values of those that are quick."""

    @choose
    @pytest.mark.parametrize("dtype", ["int8", "int16", "int32", SLOW])
    @pytest.mark.parametrize(("n", "size"), [(1, 2), (3, 4)], ids=["small", "large"])
    def some_test(n, size, dtype):
        pass

    (mark,) = some_test.pytestmark
    assert mark.args[0] == ["n", "size", "dtype"]
    return mark.args[1], [case.values for case in mark.args[1] if not case.marks]


def test_each_value_is_quick_and_no_combination_is_lost():
    cases, quick = cases_of(each_value_once)
    assert len({case.values for case in cases}) == 8
    assert quick == [(1, 2, "int8"), (1, 2, "int32"), (3, 4, "int16")]
    assert cases[0].id == "small-int8"


def test_the_first_of_the_quick_ones_are_quick():
    cases, quick = cases_of(quick_first(2))
    assert len(cases) == 8
    assert quick == [(1, 2, "int8"), (1, 2, "int16")]
