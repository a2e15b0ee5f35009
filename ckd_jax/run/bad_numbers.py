"""Numbers that are not finite: where they came from, and how a run goes on.

A run notices them where it looks at its numbers anyway: when it writes a
metric, validates or saves. Which step was the first is found afterwards, by
making the steps since the last checkpoint again; the state before that step is
kept in the run's folder, in `bad_step`, and `replay` makes it once more.
"""

import math
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from etils import epath

from ckd_jax.data import Dataset
from ckd_jax.run import checkpoint
from ckd_jax.run.answers import Collected
from ckd_jax.run.context import RunContext
from ckd_jax.run.logger import Diverged
from ckd_jax.run.programs import placed_recipe
from ckd_jax.run.record import Record
from ckd_jax.run.stages import in_stage, resume_stage, run_stages
from ckd_jax.run.standing import start_or_resume
from ckd_jax.run.stopping import Stop
from ckd_jax.step import (
  KEEP_GRADIENT,
  SKIPPED,
  Examples,
  State,
  guarded,
  is_finite,
  make_batch_sharder,
  make_step,
  runtime_task,
  staged,
  take_rows,
)
from ckd_jax.system import console

FOLDER = "bad_step"
_MOST = 3  # ways back of one run
_SHOWN = 5  # names in a line


class Diverging(Protocol):
  """A run that trained, as `train.Run` is."""

  @property
  def workdir(self) -> epath.Path: ...

  @property
  def context(self) -> RunContext: ...

  @property
  def answers(self) -> Collected: ...

  @property
  def dataset(self) -> Dataset: ...


class Found(NamedTuple):
  """One step whose numbers are not finite.

  Attributes:
    step: its number, 1 is the first.
    metrics: of the step, by name.
    gradients: parameters whose gradient is not finite.
    ids: of the step's images, in the order of its rows.
    answers: of these, images about which the teacher's answers are not finite.
    stage: index of the method's stage that it is in; None is the main part.
  """

  step: int
  metrics: dict[str, float]
  gradients: list[str]
  ids: list[str]
  answers: list[str]
  stage: int | None = None

  def __str__(self) -> str:
    loss = self.metrics["loss"]
    where = f"the loss is {loss:.6g} at step {self.step}"
    if self.stage is not None:
      where = f"stage {self.stage + 1}: {where}"
    parts = [
      f"{name} is {value}"
      for name, value in self.metrics.items()
      if name != "loss" and not math.isfinite(value)
    ]
    if self.gradients:
      parts.append(f"the gradient of {_few(self.gradients)} is not finite")
    if math.isfinite(loss) and not parts:
      parts.append("its update is too large for float32")
    if self.answers:
      parts.append(f"the answers about {_few(self.answers)} are not finite")
    return f"{where}, of the images {_few(self.ids)}: {'; '.join(parts)}"


def _few(names: list[str]) -> str:
  more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
  return ", ".join(names[:_SHOWN]) + more


def rollbacks_after(run: Diverging, error: Diverged) -> int:
  """How often the run will have gone back, if it now does.

  Args:
    run: that diverged.
    error: where that was seen.

  Raises:
    Diverged: it may not, or not any more; with what was found out.
  """
  if run.context.plan.bad_numbers != "rollback" or error.rollbacks >= _MOST:
    raise explained(run, error)
  console.note(
    f"{run.workdir.name}: {error}: going back to the last checkpoint, and on "
    f"with another order of rows ({error.rollbacks + 1} of at most {_MOST})"
  )
  return error.rollbacks + 1


def explained(run: Diverging, error: Diverged) -> Diverged:
  """The error with the step that was the first, which is kept.

  Args:
    run: that diverged.
    error: where that was seen.
  """
  tried = f" after {error.rollbacks} ways back" * bool(error.rollbacks)
  found, rate = _first(run, error), _rate(run, error)
  if found is None:
    return Diverged(f"{error}{tried}: lower {rate}", error.step)
  skipped = f"{error}: " * (run.context.plan.bad_numbers == "skip")
  return Diverged(
    f"{skipped}{found}{tried}; lower {rate}, or see "
    f"bad_numbers in the config; {run.workdir / FOLDER} holds the state before "
    "it, and the same command with --replay makes that step again",
    found.step,
  )


def _rate(run: Diverging, error: Diverged) -> str:
  """The key of the learning rate that is too high."""
  key = "stage_learning_rate"
  is_its_own = error.stage is not None and key in run.context.plan.about.hyper
  return f"hyper.{key}" if is_its_own else "optimizer.learning_rate"


def _first(run: Diverging, error: Diverged) -> Found | None:
  """Finds the first step whose numbers are not finite, and keeps it."""
  console.note(
    f"{error}: making the steps since the last checkpoint again, to find the "
    "first such"
  )
  at, state, rollbacks = _standing(run, error)
  context = context_of(run.context, rollbacks, error.stage)
  step = jax.jit(
    guarded(_step(run, context, error.stage), advance=False),
    out_shardings=context.sharding,
  )
  feed = None
  if context.feed:
    feed = context.feed(context.key, state.method, at)
  for number in range(at, error.step):
    examples = next(feed) if feed else context.examples
    state, metrics = step(state, examples, context.key)
    if metrics[SKIPPED]:
      found = look(run, context, error.stage, state, examples)
      notes = {"rollbacks": rollbacks, "stage": error.stage}
      notes["found"] = repr(found)
      folder = run.workdir / FOLDER
      checkpoint.clear(folder)  # one of a later step would be taken for newer
      checkpoint.save(folder, number, {"state": state}, notes, keep=1)
      return found
  return None


def _standing(run: Diverging, error: Diverged) -> tuple[int, State, int]:
  """The last checkpoint before an error: step, state, ways back."""
  if error.stage is None:
    standing = start_or_resume(run, Stop([]), error.rollbacks)
    return standing.step, standing.state, standing.record.rollbacks
  record = Record({}, rollbacks=error.rollbacks)
  where = run.context, run.workdir
  state = run_stages(*where, record, Stop([]), error.stage)
  step, state = resume_stage(*where, error.stage, state, record)
  return step, state, record.rollbacks


def context_of(
  context: RunContext, rollbacks: int, stage: int | None
) -> RunContext:
  """The context of a step.

  Args:
    context: of the run.
    rollbacks: how often it had gone back.
    stage: index of the method's stage; None is the main part.
  """
  if stage is None:
    return context.reordered(rollbacks)
  return in_stage(context, stage, rollbacks)


def _step(run: Diverging, context: RunContext, stage: int | None, **changes):
  """The step of the main part or of a stage, for these devices."""
  recipe = placed_recipe(context.plan, context.mesh)
  trainable = None
  if stage is not None:
    phase = context.stages[stage]
    recipe, trainable = staged(recipe, phase.stage), phase.trainable
  return make_step(
    recipe._replace(**changes),
    live=run.answers.live,
    shard=make_batch_sharder(context.mesh),
    trainable=trainable,
  )


def look(
  run: Diverging,
  context: RunContext,
  stage: int | None,
  state: State,
  examples: Examples,
) -> Found:
  """Looks at the numbers of one step, without its update.

  Args:
    run: to which the step belongs.
    context: from `context_of`.
    stage: index of the method's stage; None is the main part.
    state: before it.
    examples: that it reads.
  """
  step = _step(run, context, stage, transform=KEEP_GRADIENT)
  after, metrics = jax.jit(step)(state, examples, context.key)
  gradients, _ = jax.tree_util.tree_flatten_with_path(after.optimizer)
  rows = np.asarray(_index(context, state, examples)).ravel()
  ids = run.dataset.train.ids[context.plan.rows.train]
  rows = rows[rows < len(ids)]  # a document comes with the query that names it
  answers, ids = take_rows(examples.teachers, rows), ids[rows]
  return Found(
    step=int(state.step) + 1,
    metrics={name: float(value) for name, value in metrics.items()},
    gradients=[
      jax.tree_util.keystr(path, simple=True, separator="/")
      for path, leaf in gradients
      if not is_finite(leaf)
    ],
    ids=[str(name) for name in ids],
    answers=[str(name) for name in ids[~_finite_rows(answers, len(rows))]],
    stage=stage,
  )


def _index(context: RunContext, state: State, examples: Examples):
  """Who is compared in this step, int32[batch, group]."""
  if examples.index is not None:
    return examples.index
  plan = context.plan

  def draw(key, state, examples):
    task = runtime_task(plan.recipe.task, examples)
    return plan.method.sample(key, state.step, task, state.method)

  return jax.jit(draw)(context.key, state, examples)


def _finite_rows(answers: Any, count: int) -> np.ndarray:
  """bool[rows]: whether no answer is NaN or infinite above."""
  fine = np.ones(count, bool)
  for leaf in jax.tree.leaves(answers):
    flat = np.asarray(leaf, np.float32).reshape(count, -1)
    fine &= (flat < np.inf).all(-1)  # -inf rules a class out
  return fine
