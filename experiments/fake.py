"""A run with random answers, on random images: what speed is measured on."""

import numpy as np


def prepare(
  student: str,
  *,
  rows: int = 2000,
  classes: int = 100,
  size: int = 32,
  method: str = "ckd",
  dataset=None,
  seed: int = 0,
  mesh=None,
  like=None,
  options=None,
  hyper=None,
):
  """A `RunContext`, ready for the loop.

  Args:
    student: the network.
    rows: images that the teacher was asked about.
    classes: length of an answer.
    size: height and width of an image.
    method: and its defaults, but for `hyper`.
    dataset: real images in place of `rows` random ones.
    seed: of the run.
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
    "seed": seed,
    "schedule": "constant",
    "budget": rows,
    "val_fraction": 0.0,
    "log_every": 10,
    **(options or {}),
    **{f"hyper.{key}": value for key, value in (hyper or {}).items()},
  }
  config = configuration.get_config("cifar100", method=method, **keys)
  dataset = dataset or noise(rows, classes, size)
  plan = make_plan(config, dataset)
  mesh = mesh or make_mesh(config.batch_size)
  answers = Collected(random_answers(plan), teacher="noise")
  step = make_step(plan.recipe, shard=make_batch_sharder(mesh))
  programs = like.programs if like else make_programs(plan, mesh, None, step)
  return assemble(plan, dataset, answers, programs, mesh, like=like)


def noise(rows: int, classes: int, size: int):
  """A data set of random images."""
  from ckd_jax import data

  random = np.random.default_rng(0)

  def split(count):
    shape = (count, size, size, 3)
    pixels = random.integers(0, 256, shape, np.uint8)
    labels = random.permutation(np.arange(count) % classes)
    return data.make_split(pixels, labels, list(map(str, range(count))))

  names = tuple(map(str, range(classes)))
  return data.Dataset("noise", split(rows), split(500), names)


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
