"""Reads the inputs of coming steps on the host."""

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ckd_jax.data import Dataset, take
from ckd_jax.run.answers import Collected
from ckd_jax.run.plan import Plan
from ckd_jax.step import Examples, host_device, replicated, stream_batches
from ckd_jax.teacher import augmented


class Feed(Protocol):
  """The examples of each coming step, in order."""

  def __call__(
    self, key: jax.Array, method_state: Any, first: int
  ) -> Iterator[Examples]:
    """Begins at a step.

    Args:
      key: the run's random key, the same for every step.
      method_state: the method's memories, which its sampler may read.
      first: number of the steps done so far.
    """
    ...


def student_inputs(
  plan: Plan, inputs: Any, ids: np.ndarray, answers: Collected
) -> Any:
  """The student's inputs as stored, or the teacher's view of images.

  Args:
    plan: whose `student_view` chooses between the two.
    inputs: a tree of [n, ...].
    ids: str[n], the stable ids of the rows.
    answers: whose `view`, seed and border describe the teacher's view.

  Returns:
    A tree of [n, ...].
  """
  if plan.student_view == "fresh" or answers.view == "clean":
    return inputs
  return augmented(inputs, ids, seed=answers.view_seed, pad=answers.view_pad)


def make_feed(
  plan: Plan,
  dataset: Dataset,
  answers: Collected,
  examples: Examples,
  mesh: Mesh,
) -> Feed:
  """Makes the feed of a run whose inputs stay with the host.

  Args:
    plan: of the run; its method samples the rows of a step.
    dataset: whose training inputs are read.
    answers: whose view the student may see.
    examples: labels and answers of the whole table, on the devices.
    mesh: devices with an axis `data`, over which a batch is sharded.
  """
  ids = dataset.train.ids[plan.rows.train]

  def feed(key, method_state, first):
    copy = jax.device_get((jax.random.key_data(key), method_state))
    # On the CPU: a device would draw only after all steps in its queue.
    key, memory = jax.device_put(copy, host_device())
    draw = jax.jit(
      lambda key, memory, step: plan.method.sample(
        jax.random.wrap_key_data(key), step, plan.recipe.task, memory
      )
    )

    def fetch(rows):
      return student_inputs(plan, take(plan.inputs, rows), ids[rows], answers)

    return stream_batches(
      examples,
      first,
      functools.partial(draw, key, memory),
      fetch,
      NamedSharding(mesh, PartitionSpec("data")),
      replicated(mesh),
    )

  return feed
