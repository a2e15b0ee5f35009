"""Groups of images: a list drawn once, and the mean of a loss over groups."""

import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Init, Sample


class Compare(Protocol):
  """Compares the student with a target over the groups of one step."""

  def __call__(
    self,
    key: jax.Array,
    student: jax.Array,
    target: jax.Array,
    mix: str | float | jax.Array,
    counted: jax.Array | None,
  ) -> jax.Array:
    """Returns a float32 scalar, the mean over groups.

    Args:
      key: draws the groups, where they are not given.
      student: [batch, group, classes], logits.
      target: [batch, group, classes], logits or one-hot labels.
      mix: how the sides of a group are mixed, as in `ckd`.
      counted: bool[batch], what is compared; None is all of it.
    """
    ...


def compare_rows(
  one_group: Callable[..., jax.Array], positives: int
) -> Compare:
  """Takes every row of a batch as a group.

  Args:
    one_group: `ckd` of one group, called with both sides and mix.
    positives: images on the first side; the rest of a row is the second.
  """

  def compare(key, student, target, mix, counted):
    del key, counted
    sides = [
      side
      for x in (student, target)
      for side in (x[:, :positives], x[:, positives:])
    ]
    return jnp.mean(jax.vmap(functools.partial(one_group, mix=mix))(*sides))

  return compare


def compare_drawn(
  one_group: Callable[..., jax.Array], sides: tuple[int, int], count: int
) -> Compare:
  """Draws groups inside a batch of distinct images, [batch, 1].

  Args:
    one_group: `ckd` of one group, called with both sides and mix.
    sides: (positives, negatives), how many images a side has.
    count: groups to draw per step.
  """
  positives, _ = sides

  def compare(key, student, target, mix, counted):
    del counted
    student, target = student[:, 0], target[:, 0]
    index = sampling.distinct(key, count, sum(sides), len(student))

    def compare_one(index):
      members = student[index], target[index]
      parts = [side for x in members for side in (x[:positives], x[positives:])]
      return one_group(*parts, mix=mix)

    return jnp.mean(jax.vmap(compare_one)(index))

  return compare


def fixed_groups(
  positives: int, negatives: int, max_groups: int
) -> tuple[Sample, Init]:
  """Samples from a list of distinct groups that lies in the method's state.

  Args:
    positives: images on the first side of a group.
    negatives: images on its second side.
    max_groups: length of the list; fewer where the images form fewer groups.

  Returns:
    `Method.sample`, which gives int32[batch, positives + negatives], and
    `Method.init`, which draws the list.
  """

  def init(key, task, student, teacher):
    del student, teacher
    rows, num_rows = sampling.distinct_groups(
      key,
      task.num_examples,
      task.labels.shape[0],
      positives,
      negatives,
      max_groups,
    )
    return {}, {"groups": rows.reshape(-1), "num_groups": num_rows}

  def sample(key, step, task, state):
    return sampling.from_list(
      key,
      step,
      task.batch_size,
      state["groups"],
      state["num_groups"],
      positives + negatives,
    )

  return sample, init


def with_mix(
  compare: Compare, mix: str, beta: float
) -> Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]:
  """Fills in mix; for "lam", one number per batch from Beta(beta, beta).

  Returns:
    (key, labels, student, target) -> the mean over groups; arrays of a batch,
    whose examples are compared.
  """

  def mixed(key, labels, student, target):
    (student, target), counted = examples_of(labels, student, target)
    mix_key, group_key = jax.random.split(key)
    how = sampling.beta(mix_key, beta) if mix == "lam" else mix
    return compare(group_key, student, target, how, counted)

  return mixed


def examples_of(
  labels: jax.Array, *arrays: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
  """The examples of a batch: its rows, or all positions of its rows.

  Args:
    labels: int32[batch, group], or int32[batch, 1, length].
    *arrays: [batch, group, classes], or [batch, 1, length, classes].

  Returns:
    The arrays as [examples, group, classes], and which examples count,
    bool[examples]; None is all of them.
  """
  if labels.ndim < 3:
    return arrays, None
  flat = tuple(array.reshape(-1, 1, array.shape[-1]) for array in arrays)
  return flat, labels.reshape(-1) >= 0
