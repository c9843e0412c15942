"""What wraps a run, in which order, and which orders agree."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._training.best import keeping_best
from jaxnn._training.data.arrays import example_of
from jaxnn._training.data.epochs import Epoch
from jaxnn._training.guard import guarded
from jaxnn._training.loop import scanned
from jaxnn._training.members import side_by_side
from jaxnn._training.network import network
from jaxnn._training.objective import of_model
from jaxnn._training.stop import staying_stopped, stopping_early
from tests.compiling import fast_jit
from tests.parameters import quick_first
from tests.training_cases import KEY, LABELS, LINEAR, VALIDATION, X, assert_equal

pytestmark = pytest.mark.usefixtures("keys_are_used_once")

EPOCHS = 6
EARLY = nn.early_stopping("val_loss", patience=1, min_delta=0.2)


def wrappers(on_nonfinite):
    return {
        "guard": lambda run: guarded(run, on_nonfinite),
        "best": lambda run: keeping_best(run, EARLY),
        "early": lambda run: stopping_early(run, EARLY, EARLY.patience),
        "stopped": staying_stopped,
    }


def plain(rate):
    objective = of_model(LINEAR, nn.losses.softmax_cross_entropy, (), 8)
    return network(LINEAR, objective, nn.optimizers.sgd(rate), (), ())


@functools.cache
def program(order, on_nonfinite):
    """From the rate and the examples to what `result_of` gives."""

    @fast_jit
    def train(rate, x, keys):
        run, by_name = plain(rate), wrappers(on_nonfinite)
        for name in order:
            run = by_name[name](run)
        run, data = side_by_side(run, 2), (x, jnp.asarray(LABELS))
        carry = run.init(KEY, example_of(data), 22, None, None, None)
        carry, history = scanned(run, Epoch(22, 11, False), EPOCHS, keys, data, VALIDATION, carry)
        return run.result(carry), history, carry.kept["best"].epoch, carry.stopped

    return train


def result_of(order, on_nonfinite, x, rate):
    """Params, history, the best epoch and whether it was stopped, of each of two members."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, np.arange(2))
    return program(order, on_nonfinite)(np.float32(rate), x, keys)


BAD = np.where(np.arange(22)[:, None] == 5, np.nan, X)
CASES = {  # what becomes of a bad step, the examples, and the rate
    "they stop early": ("skip", X, 0.3),
    "they leave out steps": ("skip", BAD, 2.0),
    "they stop at a bad step": ("stop", BAD, 0.3),
}
# The last one freezes what the others remember, so it is outside of them. Those three touch
# nothing but their own entry and the sign that the run is stopped: their order is free.
ORDERS = [(*inner, "stopped") for inner in itertools.permutations(["guard", "best", "early"])]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param, result_of(ORDERS[0], *CASES[request.param])


# The last order turns around each pair of the first.
REVERSED = ORDERS[-1]
OTHERS = [pytest.param(order, marks=pytest.mark.slow) for order in ORDERS[1:-1]]


@quick_first(2)
@pytest.mark.parametrize("order", [*OTHERS, REVERSED], ids=" ".join)
def test_all_orders_agree_that_may(case, order):
    name, expected = case
    assert_equal(result_of(order, *CASES[name]), expected)


def test_the_cases_are_what_they_say(case):
    name, (_, history, best, stopped) = case
    rows = history["epochs"]
    if name == "they stop early":
        assert stopped.all()
        assert (rows < EPOCHS).all()
        assert (best >= 0).all()
    elif name == "they leave out steps":
        assert (history["skipped"] == 1).all()
    else:
        assert stopped.all()
        assert (rows == 0).all()
        assert (best == -1).all()


def test_why_what_freezes_a_run_is_outside(case):
    """Else an epoch that a run stopped in would count for the best."""
    name, (_, _, best, _) = case
    if name == "they stop at a bad step":
        order = ("guard", "stopped", "early", "best")
        wrong = result_of(order, *CASES[name])
        assert best.tolist() == [-1, -1]
        assert wrong[2].tolist() == [0, 0]
