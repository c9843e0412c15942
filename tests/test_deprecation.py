"""Old names work on, and say what is there instead."""

import inspect
import sys
from types import ModuleType

import pytest

from jaxnn._core.deprecation import deprecated, renamed_arguments, renamed_names


@renamed_arguments("0.3", heads="num_heads", old="new")
def attention(num_heads, new=1):
    return num_heads, new


def test_an_old_argument_is_the_new_one_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"heads is now num_heads.* 0\.3") as seen:
        assert attention(heads=4) == (4, 1)
    assert seen[0].filename == __file__


def test_new_arguments_give_no_warning():
    assert attention(4, new=2) == (4, 2)
    assert attention(num_heads=4) == (4, 1)


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match="got heads and num_heads"):
        attention(heads=4, num_heads=4)


def test_the_signature_has_the_new_names_alone():
    assert list(inspect.signature(attention).parameters) == ["num_heads", "new"]


def test_a_name_that_the_function_does_not_have_is_a_mistake():
    with pytest.raises(AssertionError, match="has no arguments"):
        renamed_arguments("0.3", heads="num_head")(lambda num_heads: num_heads)


def test_a_function_that_goes_says_what_to_use():
    @deprecated("nn.fit(..., members=5)", "0.3")
    def fit_many(n):
        """Fit many."""
        return n

    with pytest.warns(DeprecationWarning, match=r"fit_many .* use nn\.fit.* version 0\.3"):
        assert fit_many(3) == 3
    assert fit_many.__doc__ == "Fit many."


@pytest.fixture
def losses(monkeypatch):
    """A module in which `huber` has become `huber_loss`."""
    module = ModuleType("losses_for_a_test")
    module.huber_loss = max
    module.__getattr__ = renamed_names(module.__name__, "0.3", huber="huber_loss")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_an_old_name_of_a_module_is_the_new_one_with_a_warning(losses):
    with pytest.warns(DeprecationWarning, match=r"\.huber is now .*\.huber_loss; .* 0\.3") as seen:
        assert losses.huber is losses.huber_loss
    assert seen[0].filename == __file__
    assert "huber" not in dir(losses)


def test_a_name_that_a_module_never_had_is_an_error(losses):
    with pytest.raises(AttributeError, match="has no attribute 'hubber'"):
        _ = losses.hubber
