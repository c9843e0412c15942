"""Cross-validation: one run for each part of the data that is held out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_key, check_shape
from jaxnn._core.construction import refuse_constructor
from jaxnn._core.types import PyTree, TrainingRun
from jaxnn._training.data.arrays import count_examples
from jaxnn._training.data.splitting import stratified_order


@checked
def cross_validate(
    train: TrainingRun,
    key: jax.Array,
    data: PyTree,
    folds: int = 5,
    *,
    hyperparams: PyTree = None,
    shuffle: bool = True,
    stratify: ArrayLike | None = None,
) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
    """K-fold cross-validation as one run of all folds side by side.

    Run number `i` is trained with the key `jax.random.fold_in(key, i)` on all examples but those of
    part `i`, with which it is validated. Where `folds` does not divide the number of examples, the
    parts differ by one example, and examples of weight 0 make up for it. It is a pure function, to
    be jitted, or vmapped over `hyperparams`.

    Args:
        train: what `nn.training_run` returns.
        key: a typed PRNG key; the parts are drawn with it too.
        data: `(x, y)` or `(x, y, weights)`, with the examples along axis 0.
        folds: the number of parts, at least 2.
        hyperparams: those of `train`.
        shuffle: whether the parts are drawn at random; otherwise each is a range of the examples.
        stratify: labels, shape `(n,)`, of which each part gets as many of every class as the
            others, or one more or less.

    Returns:
        `(params, state, history)` as of `train`, each with a leading axis for the folds:
        `history["val_loss"][:, -1].mean()` is the cross-validated loss.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: `folds` is less than 2, or more than there are examples; `data` is no
            `(x, y)` or `(x, y, weights)`; `stratify` has another length, or is not shuffled.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> x = jnp.linspace(-1, 1, 30)[:, None]
        >>> train = nn.training_run(nn.dense(1), loss=nn.losses.squared_error,
        ...                         optimizer=nn.optimizers.adam(0.1), epochs=100)
        >>> _, _, history = jax.jit(lambda key: nn.cross_validate(train, key, (x, 3 * x)))(
        ...     jax.random.key(0))
        >>> history["val_loss"].shape, bool(history["val_loss"][:, -1].mean() < 0.01)
        ((5, 100), True)
    """
    refuse_constructor(train, "cross_validate: train", "what nn.training_run returns")
    if not callable(train):
        raise TypeError(
            f"cross_validate: train is {train!r}, expected what nn.training_run returns"
        )
    check_key("cross_validate", key)
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise ValueError("cross_validate: data is no (x, y) or (x, y, weights)")
    examples = count_examples("cross_validate", "data", data)
    if not 2 <= folds <= examples:
        raise ValueError(
            f"cross_validate: folds is {folds}, expected 2 to {examples}, the number of examples"
        )
    order = jnp.arange(examples)
    if stratify is not None:
        check_shape("cross_validate", "stratify", stratify, (examples,))
        if not shuffle:
            raise ValueError("cross_validate: shuffle is False, expected True with stratify")
    if shuffle:
        order = stratified_order(jax.random.fold_in(key, folds), stratify, examples)
    if stratify is not None:  # dealt out in turn
        order = order[np.concatenate([np.arange(i, examples, folds) for i in range(folds)])]
    size = -(-examples // folds)
    # The first parts have an example more than the others, in which it is filled up.
    longer = examples - (size - 1) * folds
    starts = jnp.arange(folds) * (size - 1) + jnp.minimum(jnp.arange(folds), longer)
    within = jnp.arange(size)[None]
    counts = (within < size - 1) | (jnp.arange(folds)[:, None] < longer)
    parts = order[jnp.minimum(starts[:, None] + within, examples - 1)]

    def rows(chosen: jax.Array, counted: jax.Array) -> tuple[Any, ...]:
        taken: tuple[Any, ...] = jax.tree.map(
            lambda leaf: jnp.take(leaf, chosen, axis=0), tuple(data)
        )
        if examples % folds == 0:
            return taken
        weights = counted.astype(jnp.result_type(float))
        if len(taken) == 3:
            given = jnp.asarray(taken[2])
            weights = given * weights.astype(given.dtype).reshape(-1, *[1] * (given.ndim - 1))
        return *taken[:2], weights

    def one(fold: jax.Array) -> tuple[PyTree, PyTree, dict[str, jax.Array]]:
        others = (fold + 1 + jnp.arange(folds - 1)) % folds
        return train(
            jax.random.fold_in(key, fold),
            rows(parts[others].reshape(-1), counts[others].reshape(-1)),
            hyperparams,
            rows(parts[fold], counts[fold]),
        )

    return jax.vmap(one)(jnp.arange(folds))
