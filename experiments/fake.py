"""A run with random answers about random images, to measure speed."""

from typing import NamedTuple

import numpy as np


class Noise(NamedTuple):
  """Random images, in place of a data set.

  Attributes:
    rows: images that the teacher was asked about.
    classes: length of an answer.
    size: height and width of an image, in pixels.
  """

  rows: int = 2000
  classes: int = 100
  size: int = 32


def prepare(
  student: str,
  noise: Noise = Noise(),  # noqa: B008 (immutable)
  *,
  method: str = "ckd",
  dataset=None,
  mesh=None,
  like=None,
  options=None,
  hyper=None,
):
  """A `RunContext`, ready for the loop.

  Args:
    student: the network.
    noise: the random images; all of them are the budget.
    method: and its defaults, but for `hyper`.
    dataset: real images in place of random ones.
    mesh: the devices; None is all of them.
    like: a RunContext whose programs serve.
    options: config keys, {"batch_size": 64}.
    hyper: hyper-parameters that are not the published ones.
  """
  from ckd_jax import config as configuration
  from ckd_jax.run.answers import Collected
  from ckd_jax.run.context import assemble
  from ckd_jax.run.plan import make_plan
  from ckd_jax.run.programs import make_programs
  from ckd_jax.step import make_batch_sharder, make_mesh, make_step

  keys = {
    "student": student,
    "seed": 0,
    "schedule": "constant",
    "budget": noise.rows,
    "val_fraction": 0.0,
    "log_every": 10,
    **(options or {}),
    **{f"hyper.{key}": value for key, value in (hyper or {}).items()},
  }
  config = configuration.get_config("cifar100", method=method, **keys)
  dataset = dataset or random_images(noise)
  plan = make_plan(config, dataset)
  mesh = mesh or make_mesh(config.batch_size)
  answers = Collected(random_answers(plan), teacher="noise")
  step = make_step(plan.recipe, shard=make_batch_sharder(mesh))
  programs = like.programs if like else make_programs(plan, mesh, None, step)
  return assemble(plan, dataset, answers, programs, mesh, like=like)


def random_images(noise: Noise):
  """A data set of them, and 500 for its test split."""
  from ckd_jax import data

  random = np.random.default_rng(0)

  def split(count):
    shape = (count, noise.size, noise.size, 3)
    pixels = random.integers(0, 256, shape, np.uint8)
    labels = random.permutation(np.arange(count) % noise.classes)
    return data.make_split(pixels, labels, list(map(str, range(count))))

  names = tuple(map(str, range(noise.classes)))
  return data.Dataset("noise", split(noise.rows), split(500), names)


def random_answers(plan) -> tuple:
  """What a teacher might have said about the images of a plan."""
  from ckd_jax.methods import Outputs

  if not plan.method.needs:
    return ()
  random, task = np.random.default_rng(1), plan.recipe.task

  def draw(width):
    return random.normal(size=(task.num_examples, width)).astype(np.float16)

  has_embedding = "embedding" in plan.method.needs
  return (Outputs(draw(task.num_classes), draw(64) if has_embedding else None),)
