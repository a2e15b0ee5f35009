"""A run with random answers, on random images: what speed is measured on."""

import sys

import numpy as np
import study


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
  """A config and its `Fit`, ready for the loop.

  Args:
    student: the network.
    rows: images that the teacher was asked about.
    classes: length of an answer.
    size: height and width of an image.
    method: and its defaults, but for `hyper`.
    dataset: real images in place of `rows` random ones.
    seed: of the run.
    mesh: the devices; None is all of them.
    like: a Fit whose programs serve.
    options: config keys, {"batch_size": 64}.
    hyper: hyper-parameters that are not the published ones.
  """
  from ckd_jax import data, methods
  from ckd_jax.data import budget
  from ckd_jax.run import assemble, plan
  from ckd_jax.run.answers import Answers
  from ckd_jax.step import sharding

  sys.path.insert(0, str(study.HERE.parent / "configs"))
  import cifar100

  config = cifar100.get_config(f"method={method}")
  config.update_from_flattened_dict(
    {
      "student": student,
      "seed": seed,
      "schedule": "constant",
      "budget": rows,
      "val_fraction": 0.0,
      "log_every": 10,
      **(options or {}),
    }
  )
  config.hyper.update(hyper or {})
  random = np.random.default_rng(0)

  def split(count):
    shape = (count, size, size, 3)
    pixels = random.integers(0, 256, shape, np.uint8)
    labels = random.permutation(np.arange(count) % classes)
    return data.make_split(pixels, labels, list(map(str, range(count))))

  if dataset is None:
    names = tuple(map(str, range(classes)))
    dataset = data.Dataset("noise", split(rows), split(500), names)
  chosen = budget.select(
    len(dataset.train.labels),
    budget=rows,
    val_fraction=config.val_fraction,
    seed=0,
  )
  classes = len(dataset.class_names)
  logits = random.normal(size=(len(chosen.train), classes)).astype(np.float16)
  made = methods.make(method, **config.hyper)
  embedding = None
  if "embedding" in made.needs:
    embedding = random.normal(size=(len(chosen.train), 64)).astype(np.float16)
  said = (methods.Outputs(logits, embedding),) if made.needs else ()
  mesh = mesh or sharding.make_mesh(config.batch_size)
  settled = plan.plan(config, dataset, chosen, made)
  answers = Answers(said, teacher="noise")
  fit = assemble.assemble(
    config, dataset, chosen, settled, answers, mesh, like=like
  )
  return config, fit
