"""The order of the examples: a bijection, uniform, and cheap to take a piece of."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn._training.data.shuffle import epoch_seeds, shuffled_indices
from tests.parameters import quick_first


def orders(n, count, seed=0):
    """`count` random orders of n, one row each."""
    seeds = jax.vmap(lambda epoch: epoch_seeds(jax.random.key(seed), epoch))(jnp.arange(count))
    order = jax.jit(jax.vmap(lambda s: shuffled_indices(s, n, jnp.arange(n))))
    return np.asarray(order(seeds))


@quick_first(7)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 9, 64, 97, 128, 1000, 60_000])
def test_every_example_comes_once(n):
    rows = orders(n, 3)
    assert (np.sort(rows, axis=1) == np.arange(n)).all()


@quick_first(1)
@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_all_orders_of_few_examples_are_equally_likely(n):
    count = 200 * math.factorial(n)
    codes = orders(n, count) @ (n ** np.arange(n))
    _, seen = np.unique(codes, return_counts=True)
    assert len(seen) == math.factorial(n)
    expected = count / math.factorial(n)
    freedom = math.factorial(n) - 1
    chi_square = ((seen - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


@quick_first(1)
@pytest.mark.parametrize("n", [9, 25, 31])
def test_each_example_is_as_likely_at_each_position(n):
    count = 4000
    rows = orders(n, count)
    table = np.stack([np.bincount(rows[:, i], minlength=n) for i in range(n)])
    chi_square = ((table - count / n) ** 2 / (count / n)).sum()
    freedom = (n - 1) ** 2
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [4, 9, 25])
def test_odd_and_even_permutations_both_occur(n):
    signs = [np.linalg.det(np.eye(n)[row]) for row in orders(n, 200)]
    assert 60 < sum(sign > 0 for sign in signs) < 140


def test_neighbours_are_uncorrelated():
    (row,) = orders(10_000, 1)
    assert abs(np.corrcoef(row, np.arange(10_000))[0, 1]) < 0.05
    assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 0.05


def test_a_batch_computes_its_own_part_of_the_order(key):
    seeds = epoch_seeds(key, 5)
    whole = shuffled_indices(seeds, 100, jnp.arange(100))
    part = shuffled_indices(seeds, 100, 30 + jnp.arange(10))
    assert (part == whole[30:40]).all()


def test_epochs_and_keys_have_different_orders():
    first, second = orders(50, 2)
    (other,) = orders(50, 1, seed=1)
    assert (first != second).any()
    assert (first != other).any()
