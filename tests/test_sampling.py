"""Orders and groups, against enumeration and expected frequencies."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ckd_jax import sampling
from ckd_jax.methods import Task

SLOW = pytest.mark.slow


def task(num_examples, batch_size):
  return Task(num_examples, 3, batch_size, 1, np.zeros(64, np.int32))


def test_shuffle_is_a_permutation():
  order_of = jax.jit(
    lambda key, size: sampling.permute_index(key, jnp.arange(1600), size)
  )
  for size in (1, 2, 3, 64, 1000, 1600):
    order = order_of(jax.random.key(size), size)[:size]
    assert sorted(order.tolist()) == list(range(size))


def test_shuffle_by_hand_at_the_largest_size():
  """In Python's integers, which have no end: nothing may wrap around."""
  key, size = jax.random.key(0), 2**30 - 1
  positions = [0, 1, size - 2, size - 1]
  order = jax.jit(lambda x: sampling.permute_index(key, x, size))(
    np.array(positions)
  )
  assert order.tolist() == [by_hand(key, x, size) for x in positions]


def by_hand(key, element, size):
  point_key, bit_key = jax.random.split(key)
  points = jax.random.randint(point_key, (24,), 0, size).tolist()
  salts = jax.random.bits(bit_key, (24,), np.uint32).tolist()
  for point, salt in zip(points, salts, strict=True):
    mirror = (point - element) % size
    word = max(element, mirror) ^ salt
    for factor in (0x85EBCA6B, 0xC2B2AE35):
      word = (word ^ (word >> 16)) * factor % 2**32
    if (word ^ (word >> 16)) & 1:
      element = mirror
  return element


def test_every_order_of_four_is_about_as_likely_as_any():
  keys = jax.random.split(jax.random.key(0), 24_000)
  shuffle = jax.vmap(lambda k: sampling.permute_index(k, jnp.arange(4), 4))
  orders = jax.jit(shuffle)(keys)
  _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
  assert len(counts) == math.factorial(4)
  # chi-square with 23 degrees of freedom: 49.7 is its 99.9 % quantile
  assert np.sum((counts - 1000) ** 2 / 1000) < 49.7


def test_neighbours_are_not_kept_together():
  keys = jax.random.split(jax.random.key(1), 4000)
  shuffle = jax.vmap(
    lambda k: sampling.permute_index(k, jnp.array([10, 11]), 1600)
  )
  first, second = jax.jit(shuffle)(keys).T
  correlation = np.corrcoef(np.asarray(first), np.asarray(second))[0, 1]
  assert abs(correlation) < 0.06  # 4 standard errors of independence


def test_a_pass_shows_every_image_once_and_passes_differ():
  run, key = task(24, 8), jax.random.key(2)
  sample = jax.jit(lambda step: sampling.batches(key, step, run)[:, 0])
  steps = [sample(step) for step in range(6)]
  first, second = np.concatenate(steps[:3]), np.concatenate(steps[3:])
  assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
  assert first.tolist() != second.tolist()


def test_a_batch_is_distinct_when_it_does_not_divide_the_table():
  run = task(20, 16)
  sample = jax.jit(
    lambda n, step: sampling.batches(
      jax.random.key(0), step, run._replace(num_examples=n)
    )
  )
  for step in range(5):
    index = sample(20, step)
    assert index.shape == (16, 1) and index.dtype == jnp.int32
    assert len(set(index[:, 0].tolist())) == 16
    assert index.max() < 20 and index.min() >= 0


def test_a_batch_larger_than_the_table_is_refused():
  with pytest.raises(ValueError, match="batch_size 30 is more than the 20"):
    sampling.batches(jax.random.key(0), 0, task(20, 30))


def test_distinct_members_are_uniform():
  draw = jax.jit(lambda key: sampling.distinct(key, 60_000, 3, 5))
  rows = np.asarray(draw(jax.random.key(0)))
  triples, counts = np.unique(rows, axis=0, return_counts=True)
  wanted = sorted(itertools.permutations(range(5), 3))
  assert sorted(map(tuple, triples.tolist())) == wanted
  # chi-square with 59 degrees of freedom: 98.3 is its 99.9 % quantile
  assert np.sum((counts - 1000) ** 2 / 1000) < 98.3


def groups_of(key, examples, capacity, p, n, limit):
  rows, used = jax.jit(
    lambda key, examples: sampling.distinct_groups(
      key, examples, capacity, p, n, limit
    )
  )(key, examples)
  return np.asarray(rows)[: int(used)]


@pytest.mark.parametrize(
  ("p", "n"),
  [(2, 1), *(pytest.param(*pn, marks=SLOW) for pn in ((1, 1), (2, 2), (1, 2)))],
)
def test_few_groups_are_all_listed(p, n):
  """Against itertools: every group of 7 images, each once."""
  wanted = {
    (*first, *second)
    for first in itertools.combinations(range(7), p)
    for second in itertools.combinations(sorted({*range(7)} - {*first}), n)
  }
  listed = groups_of(jax.random.key(0), 7, 12, p, n, 400)
  assert len(listed) == len(wanted)
  assert {tuple(row) for row in listed.tolist()} == wanted


def test_a_random_part_of_few_groups():
  listed = groups_of(jax.random.key(3), 30, 30, 1, 1, 400)
  other = groups_of(jax.random.key(4), 30, 30, 1, 1, 400)
  assert len({tuple(row) for row in listed.tolist()}) == 400
  assert set(map(tuple, listed.tolist())) != set(map(tuple, other.tolist()))
  assert (listed[:, 0] != listed[:, 1]).all() and listed.max() == 29


@pytest.mark.parametrize(
  ("p", "n"),
  [(2, 1), *(pytest.param(*pn, marks=SLOW) for pn in ((1, 1), (3, 2)))],
)
def test_many_groups_are_drawn_without_repetition(p, n):
  listed = groups_of(jax.random.key(5), 1600, 1600, p, n, 20_000)
  assert listed.shape == (20_000, p + n)
  assert len(np.unique(listed, axis=0)) == 20_000
  for row in listed[:500]:
    assert len(set(row.tolist())) == p + n
  assert (np.diff(listed[:, :p]) > 0).all()
  assert (np.diff(listed[:, p:]) > 0).all()
  share = np.bincount(listed.ravel(), minlength=1600) / listed.size
  assert share.min() > 0.3 / 1600 and share.max() < 2 / 1600


def test_a_list_is_gone_through_once_per_pass():
  rows, used = np.arange(40)[:, None] * 10 + np.arange(3), jnp.int32(12)
  key, members = jax.random.key(0), jnp.asarray(rows.reshape(-1))
  take = jax.jit(
    lambda step: sampling.from_list(key, step, 8, members, used, 3)
  )
  taken = np.concatenate([take(step) for step in range(3)])
  np.testing.assert_array_equal(taken, rows[taken[:, 0] // 10])
  first, second = np.split(taken[:, 0], 2)
  assert sorted(first.tolist()) == [10 * i for i in range(12)]
  assert sorted(second.tolist()) == [10 * i for i in range(12)]
  assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
  "parameter", [0.05, 0.2, 0.4, 1.0, 1.5, 2.0, 8.0, 300.0]
)
def test_beta_is_distributed_as_scipy_says(parameter):
  draw = jax.jit(jax.vmap(lambda key: sampling.beta(key, parameter)))
  drawn = np.asarray(draw(jax.random.split(jax.random.key(7), 20_000)))
  assert drawn.dtype == np.float32 and (drawn >= 0).all() and (drawn <= 1).all()
  # The lower half, for near 1 float32 is coarse; it mirrors the upper one.
  low = drawn < 0.5
  assert abs(low.mean() - 0.5) < 4 * 0.5 / np.sqrt(20_000)
  for half in (drawn[low], 1 - drawn[~low]):
    half = half[half > 1e-6]
    least = scipy.stats.beta.cdf(1e-6, parameter, parameter)
    result = scipy.stats.kstest(
      half,
      lambda x, least=least: (
        (scipy.stats.beta.cdf(x, parameter, parameter) - least) / (0.5 - least)
      ),
    )
    assert result.pvalue > 1e-3


def test_beta_has_no_loop():
  program = jax.make_jaxpr(lambda key: sampling.beta(key, 0.2))(
    jax.random.key(0)
  )
  assert "while" not in str(program)
