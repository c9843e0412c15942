"""What a training run is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._core.types import PyTree
from jaxnn._training.step import Step, TrainState

Row = dict[str, jax.Array]  # of the history: the values of one epoch by name


class Carry(NamedTuple):
    """What a run carries from step to step.

    Attributes:
        train: parameters, state, the optimizer's state, key and number of the step.
        sums: the accumulators of the current epoch's loss and metrics, by name.
        stopped: whether the run has come to its end: then no step changes anything.
        kept: what each wrapper of the run remembers, by the name of the wrapper.
        hyperparams: what the run was made with, if that is not a part of the program.
    """

    train: TrainState
    sums: dict[str, PyTree]
    stopped: jax.Array
    kept: dict[str, PyTree]
    hyperparams: PyTree = None

    def keep(self, **entries: PyTree) -> "Carry":
        """The carry with what some wrappers remember now, by their names."""
        return self._replace(kept=self.kept | entries)


class Run(NamedTuple):
    """A training run: pure functions over one carry, as a layer is two over its parameters.

    `init(key, example, rows, params, state, hyperparams) -> carry` makes the parameters, unless
    they are given; `example` has the shapes of a batch of one example, `rows` is the number of
    examples in an epoch, None if that is not known, and the carry keeps `hyperparams`.
    `step(carry, batch, first) -> (carry, step)`: one update on a batch whose examples go from
    `first` on in the epoch; with it come the loss and the gradients.
    `measure(carry, validation) -> sums`: the accumulators over (a part of) the validation set.
    `finish(carry, sums) -> (carry, row)`: the end of an epoch, with the accumulators over the
    whole validation set, `{}` for none.
    `last(carry) -> (params, state)`: where the run stands, as it is validated.
    `result(carry) -> (params, state)`: what the run returns.
    `resume(carry, epoch, fresh) -> carry`: the carry of a run that is to go on after so many epochs
    and perhaps with other arguments, which decide anew whether it is stopped; `fresh` are the
    wrappers that remember nothing yet, since they were not there before.
    `may_stop` says whether `stopped` may ever be true.

    Whatever a run can do besides training is a function from a `Run` to a `Run`, in a file of its
    own; `run_of` puts them around one another.
    """

    init: Callable[[jax.Array, PyTree, int | None, PyTree, PyTree, PyTree], Carry]
    step: Callable[[Carry, PyTree, Any], tuple[Carry, Step]]
    measure: Callable[[Carry, PyTree], dict[str, PyTree]]
    finish: Callable[[Carry, dict[str, PyTree]], tuple[Carry, Row]]
    last: Callable[[Carry], tuple[PyTree, PyTree]]
    result: Callable[[Carry], tuple[PyTree, PyTree]]
    resume: Callable[[Carry, jax.Array, frozenset[str]], Carry]
    may_stop: bool = False


def choose(condition: jax.Array, ours: PyTree, theirs: PyTree) -> PyTree:
    """`ours` where the condition holds, else `theirs`; what is the same in both is not touched."""
    return jax.tree.map(
        lambda mine, other: mine if mine is other else jnp.where(condition, mine, other),
        ours,
        theirs,
    )
