"""The run that trains a teacher on all training labels, before it is asked."""

from typing import NamedTuple

import ml_collections

from ckd_jax import config as configuration
from ckd_jax.step import optimizer


class TeacherTraining(NamedTuple):
  """A run that trains a teacher.

  Attributes:
    student: name of the teacher's network, which is that run's student.
    config: a ConfigDict, read by that run alone.
  """

  student: str
  config: ml_collections.ConfigDict


def teacher_training(config, num_examples: int) -> TeacherTraining:
  """Settles the training of a teacher, equal for every student of it.

  Args:
    config: a ConfigDict whose `teacher` names the network and its training.
    num_examples: rows that it learns from: all of the training set, clean or as
      the students see it.
  """
  recipe = config.copy_and_resolve_references()
  recipe.unlock()
  recipe.method = "supervised"
  recipe.hyper = configuration.hyper("supervised")
  recipe.label = "teacher"
  recipe.student = config.teacher.name
  recipe.peers = ()
  recipe.seed = recipe.budget_seed = 0  # every seed shares one teacher
  recipe.budget = num_examples
  recipe.val_fraction = 0.0
  if config.teacher.get("sees") == "clean":
    for key in ("imbalance", "label_noise"):
      if key in recipe.dataset:
        del recipe.dataset[key]
  if "mean" in config.teacher:  # images
    recipe.student_view = "fresh"
    recipe.optimizer.name = "sgd"
    recipe.dataset.mean = config.teacher.mean
    recipe.dataset.std = config.teacher.std
  for key in ("batch_size", "schedule", "steps"):
    recipe[key] = config.teacher[key]
  recipe.eval_every = config.teacher.steps
  recipe.optimizer.learning_rate = config.teacher.learning_rate
  numbers = config.schedule_hyper.to_dict()
  used = optimizer.SCHEDULE_NUMBERS[config.teacher.schedule]
  recipe.schedule_hyper = ml_collections.ConfigDict(
    {key: numbers[key] for key in used}
  )
  recipe.dtype = "float32"
  # Reset keys that do not affect the teacher, so equal teachers have equal
  # configs.
  recipe.log_every, recipe.checkpoint_every = 50, 1000
  recipe.bad_numbers = "raise"
  recipe.teacher = ml_collections.ConfigDict({"source": "none"})
  recipe.table = ml_collections.ConfigDict()
  return TeacherTraining(config.teacher.name, recipe)
