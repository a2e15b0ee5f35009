"""Settles a run, before a teacher is asked.

After `make_plan` nothing reads the config: what later parts need is a field of
the plan.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from ckd_jax import config as configuration
from ckd_jax import methods, models
from ckd_jax import offset as offsets
from ckd_jax.data import Dataset, Selection, View, select, subset
from ckd_jax.errors import UserError
from ckd_jax.methods import Method, Model, Task
from ckd_jax.offset import OffsetPlan
from ckd_jax.run.asking import asking
from ckd_jax.run.given import NOTHING, Given
from ckd_jax.run.intervals import Intervals, Plateau
from ckd_jax.run.teacher_training import TeacherTraining, teacher_training
from ckd_jax.run.views import student_view
from ckd_jax.step import Recipe, capacity, optimizer
from ckd_jax.teacher import Asking


class About(NamedTuple):
  """The description of a run in its header and its summary.

  Attributes:
    dataset: name of the data set.
    spoiled: what was done to its training split; "" for nothing.
    student: name of the network.
    peers: names of those that are trained together with it.
    method: name of the method.
    label: tells variants of a method apart in a report.
    hyper: hyper-parameters of the method, by name.
    schedule: name of the learning-rate schedule.
    seed: of initial weights, sampling and augmentation.
    budget: labelled images that the run may see, validation included.
    budget_seed: of the order of images whose prefix the budget is.
    dtype: in which the student computes, "float32" or "bfloat16".
    pruned: share of weights that a second teacher lacks (r2kd), or 0.
  """

  dataset: str
  spoiled: str
  student: str
  peers: tuple[str, ...]
  method: str
  label: str
  hyper: dict[str, Any]
  schedule: str
  seed: int
  budget: int
  budget_seed: int
  dtype: str
  pruned: float


class Plan(NamedTuple):
  """Everything that is settled before the teacher is asked.

  Attributes:
    about: names and numbers for the header and the summary.
    recipe: the parts of a training step.
    answer_width: length of a teacher's answer.
    members: the student and its peers, which the recipe's network joins.
    rows: of the training set, to learn from and to validate with.
    inputs: a tree of [train, ...], to learn from, in memory or in files.
    table_rows: of the table on the devices, with padding, and with documents
      that the student reads.
    asking: settings of the teacher.
    teacher_training: the run that trains the teacher first; None where there is
      nothing to train.
    intervals: when the run is evaluated, saved and logged.
    plateau: when the learning rate falls; None for other schedules.
    offset: how the class offset is treated.
    learning_rate: the highest rate of the schedule.
    student_view: "fresh", images augmented in the step, or "table", the view
      that the teacher saw.
    placement: of the inputs, "auto", "device" or "stream".
    batch_norm: whose images its statistics are of, "global", those of the whole
      batch, or "device", those of each device.
    steps_per_launch: steps in one program; 0 chooses by the kind of device.
    bad_numbers: what a loss or a gradient that is not finite does: "raise",
      "rollback" or "skip".
    config: plain values, for config.json.
  """

  about: About
  recipe: Recipe
  answer_width: int
  members: tuple[Model, ...]
  rows: Selection
  inputs: Any
  table_rows: int
  asking: Asking
  teacher_training: TeacherTraining | None
  intervals: Intervals
  plateau: Plateau | None
  offset: OffsetPlan
  learning_rate: float
  student_view: str
  placement: str
  batch_norm: str
  steps_per_launch: int
  bad_numbers: str
  config: dict[str, Any]

  @property
  def method(self) -> Method:
    return self.recipe.method

  def exported(self, tree: Any) -> Any:
    """Of parameters or batch statistics those of the student's file."""
    return models.member(tree, 0) if len(self.members) > 1 else tree


def make_plan(config, dataset: Dataset, given: Given = NOTHING) -> Plan:
  """Settles the run.

  Args:
    config: a ConfigDict, complete and checked.
    dataset: the set that it names.
    given: objects of a Python program, in place of names in the config.

  Raises:
    UserError: the budget, the student or the images cannot be used.
  """
  view = student_view(config, dataset)
  rows = select(
    len(dataset.train.labels),
    budget=config.budget,
    val_fraction=config.val_fraction,
    seed=config.budget_seed,
    kind=view.kind,
  )
  _check_counted(dataset, rows)
  members = _members(config, dataset, view, given.model)
  recipe = _recipe(config, dataset, rows, view, members)
  read = dataset.documents
  documents = 0 if read is None else len(read.labels)
  return Plan(
    about=_about(config, dataset),
    recipe=recipe,
    answer_width=dataset.answer_width,
    members=members,
    rows=rows,
    inputs=subset(dataset.train.inputs, rows.train),
    table_rows=capacity(len(rows.train) + documents),
    asking=asking(config)._replace(given=given.answers),
    teacher_training=_teacher_training(config, dataset, recipe.method),
    intervals=_intervals(config, recipe.task),
    plateau=_plateau(config),
    offset=OffsetPlan(mode=config.hyper.get("offset", offsets.NONE)),
    learning_rate=config.optimizer.learning_rate,
    student_view=config.get("student_view", "fresh"),
    # Documents are rows of the table.
    placement="device" if documents else config.dataset.placement,
    batch_norm=config.get("batch_norm", "global"),
    steps_per_launch=config.steps_per_launch,
    bad_numbers=config.get("bad_numbers", "raise"),
    config=configuration.to_json(config),
  )


def _check_counted(dataset: Dataset, rows: Selection) -> None:
  """Refuses parts of which every answer was cut off: they say nothing."""
  for name, part in rows._asdict().items():
    labels = dataset.train.labels[part]
    if labels.ndim > 1 and labels.size and labels.max() < 0:
      raise UserError(
        f"none of the {len(part)} answers for {name} fits into"
        " dataset.text.length: raise it, or the budget"
      )


def _teacher_training(
  config, dataset: Dataset, method: Method
) -> TeacherTraining | None:
  teacher = config.teacher
  if teacher.source != "train" or teacher.get("sources") or not method.needs:
    return None
  seen = dataset.train
  if dataset.whole and teacher.get("sees") == "clean":
    seen = dataset.whole
  return teacher_training(config, len(seen.labels))


def _members(
  config, dataset: Dataset, view: View, given: Model | None
) -> tuple[Model, ...]:
  """The student and its peers; the student may be an object."""

  def load(name: str) -> Model:
    dtype, options = jnp.dtype(config.dtype), view.options()
    return models.load(name, dataset.network_width, dtype=dtype, **options)

  peers = map(load, config.get("peers", ()))
  return (given or load(config.student), *peers)


def _recipe(
  config, dataset: Dataset, rows: Selection, view: View, members
) -> Recipe:
  labels = dataset.train.labels[rows.train]
  task = Task(
    num_examples=len(labels),
    num_classes=dataset.num_classes,
    batch_size=config.batch_size,
    steps_per_epoch=math.ceil(len(labels) / config.batch_size),
    labels=labels,
    kind=view.kind,
    steps=config.steps,
  )
  method = methods.make(config.method, **config.hyper)
  model = models.cohort(members) if len(members) > 1 else members[0]
  if dataset.index is not None:
    seen = methods.symmetric if dataset.documents else methods.anchored
    method = seen(method, dataset.index)
    model = models.tower(model, dataset.index)
  return Recipe(
    method=method,
    model=model,
    task=task,
    view=view,
    transform=optimizer.make(
      config.optimizer.get("name", "sgd"),
      config.optimizer.momentum,
      config.optimizer.weight_decay,
      config.optimizer.get("clip_norm", 0.0),
    ),
    schedule=optimizer.schedule(
      config.schedule,
      config.optimizer.learning_rate,
      config.steps,
      config.schedule_hyper,
    ),
  )


def _about(config, dataset: Dataset) -> About:
  return About(
    dataset=dataset.name,
    spoiled=_spoiled(dataset),
    student=config.student,
    peers=tuple(config.get("peers", ())),
    method=config.method,
    label=config.label,
    hyper=config.hyper.to_dict(),
    schedule=config.schedule,
    seed=config.seed,
    budget=config.budget,
    budget_seed=config.budget_seed,
    dtype=config.dtype,
    pruned=config.teacher.get("pruned") or 0.0,
  )


def _spoiled(dataset: Dataset) -> str:
  """How many rows are left, and how many of their labels are wrong."""
  train, whole = dataset.train, dataset.whole
  if whole is None:
    return ""
  true = dict(zip(whole.ids.tolist(), whole.labels.tolist(), strict=True))
  wrong = sum(
    true[name] != label
    for name, label in zip(
      train.ids.tolist(), train.labels.tolist(), strict=True
    )
  )
  return (
    f"{len(train.labels):,} of {len(whole.labels):,} rows, {wrong:,} of them"
    " with a wrong label"
  )


def _plateau(config) -> Plateau | None:
  if config.schedule != "plateau":
    return None
  numbers = config.schedule_hyper
  return Plateau(numbers.patience, numbers.levels, numbers.factor)


def _intervals(config, task: Task) -> Intervals:
  evaluate, steps = config.eval_every, config.steps
  if config.schedule == "plateau":
    # A simulated epoch: as many steps as one pass over the images takes.
    evaluate = task.steps_per_epoch
    steps = min(steps, config.schedule_hyper.max_epochs * evaluate)
  return Intervals(steps, evaluate, config.checkpoint_every, config.log_every)
