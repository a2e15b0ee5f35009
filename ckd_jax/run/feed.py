"""Images that the host decodes for each coming step."""

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ckd_jax.data import Dataset
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
      key: of all steps.
      method_state: the method's memories; who is compared may follow from it.
      first: how many steps are done.
    """
    ...


def student_images(
  plan: Plan, images: np.ndarray, ids: np.ndarray, answers: Collected
) -> np.ndarray:
  """What the student's step begins with: the images, or the teacher's view.

  Args:
    plan: says which of them.
    images: uint8[n, h, w, c].
    ids: str[n].
    answers: say about which view the teacher was asked.
  """
  if plan.student_view == "fresh" or answers.view == "clean":
    return images
  return augmented(images, ids, seed=answers.view_seed, pad=answers.view_pad)


def make_feed(
  plan: Plan,
  dataset: Dataset,
  answers: Collected,
  examples: Examples,
  mesh: Mesh,
) -> Feed:
  """Makes the feed of a run whose images stay with the host.

  Args:
    plan: whose method says who is compared in a step.
    dataset: of the images.
    answers: of the teacher.
    examples: labels and answers of the whole table, on the devices.
    mesh: the devices.
  """
  ids = dataset.train.ids[plan.rows.train]

  def feed(key, method_state, first):
    copy = jax.device_get((jax.random.key_data(key), method_state))
    # By the processor: a device would draw after all steps that wait for it.
    key, memory = jax.device_put(copy, host_device())
    draw = jax.jit(
      lambda key, memory, step: plan.method.sample(
        jax.random.wrap_key_data(key), step, plan.recipe.task, memory
      )
    )

    def fetch(rows):
      return student_images(plan, plan.images[rows], ids[rows], answers)

    return stream_batches(
      examples,
      first,
      functools.partial(draw, key, memory),
      fetch,
      NamedSharding(mesh, PartitionSpec("data")),
      replicated(mesh),
    )

  return feed
