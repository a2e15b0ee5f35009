"""Everything on the devices that the loop needs: programs and arrays."""

import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ckd_jax import methods
from ckd_jax.data import Dataset, Judge, Split, shown, take
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs, TopK
from ckd_jax.run.answers import Collected
from ckd_jax.run.feed import Feed, make_feed, student_inputs
from ckd_jax.run.phase import Phase
from ckd_jax.run.plan import Plan
from ckd_jax.run.programs import Programs, longest_launch, make_phases
from ckd_jax.step import (
  Examples,
  Placed,
  Recipe,
  State,
  forward,
  gather,
  pad,
  place,
  replicated,
  streams,
)
from ckd_jax.system import hosts


class RunContext(NamedTuple):
  """The constants of the loop.

  Attributes:
    plan: everything settled before the teacher was asked.
    programs: compiled functions.
    scale: learning rate of the plan over that of the programs.
    longest: steps per launch, at most.
    feed: (key, state of the method, step) -> the Examples of each step from
      there on, where inputs do not lie on the devices; else None.
    stages: training before the main part, in order.
    begin: () -> the state before the first step, made anew: a launch takes over
      the arrays of the one that it is given.
    examples: the table on the devices.
    key: the run's random key, the same for every step.
    state: before the first step.
    inputs: on the devices, by split, "train", "validation", "test", and
      "documents" where the student reads them; splits without rows are left
      out.
    splits: the same rows on the host, with labels.
    judge: measures answers about a split.
    target: float32[classes], the mean logits that a fitted offset aims at; None
      where the loss fixes the offset.
    origin: sha256 of the data and of the answers.
    images_per_step: student images per step.
    mesh: devices, with axes `students` and `data`.
    sharding: of the state on the mesh.
  """

  plan: Plan
  programs: Programs
  scale: float
  longest: int
  feed: Feed | None
  stages: tuple[Phase, ...]
  begin: Callable[[], State]
  examples: Examples
  key: jax.Array
  state: State
  inputs: dict[str, Placed]
  splits: dict[str, Split]
  judge: Judge
  target: np.ndarray | None
  origin: dict[str, str]
  images_per_step: int
  mesh: Mesh
  sharding: NamedSharding

  @property
  def launch(self):
    """(times) -> a jitted Step of so many steps."""
    return self.programs.launch

  @property
  def num_classes(self) -> int:
    return self.plan.recipe.task.num_classes

  def encoded(self, params, state):
    """The state of the student, whose documents it reads if it can."""
    documents = self.inputs.get("documents")
    if documents is None:
      return state
    return self.programs.encode(params, state, documents)

  def predict(self, params, state, split: str) -> np.ndarray:
    """The student's logits of a split's rows, float32[n, classes]."""
    state = self.encoded(params, state)
    return self.programs.predict(params, state, self.inputs[split])

  def reordered(self, rollbacks: int) -> "RunContext":
    """The context with another order of rows after each way back."""
    if not rollbacks:
      return self
    return self._replace(key=jax.random.fold_in(self.key, rollbacks))

  @property
  def devices(self) -> str:
    """Number and kind of the devices."""
    device = self.mesh.devices.flat[0]
    return f"{self.mesh.size} x {device.device_kind} ({device.platform})"

  @property
  def one_at_a_time(self) -> bool:
    """Whether a step must end before the next one is launched.

    CPU devices share one thread pool: with several steps in flight, all of its
    threads can end up waiting in all-reduces of different steps.
    """
    return self.mesh.size > 1 and self.mesh.devices.flat[0].platform == "cpu"


def assemble(
  plan: Plan,
  dataset: Dataset,
  answers: Collected,
  programs: Programs,
  mesh: Mesh,
  *,
  like: RunContext | None = None,
) -> RunContext:
  """Puts the budgeted inputs and answers on the devices.

  Args:
    plan: gives recipe, rows, inputs and seed.
    dataset: its inputs and labels.
    answers: the teacher's, about the training rows.
    programs: of this run, or of one that differs in seed, budget or rate alone.
    mesh: devices, with axes `students` and `data`.
    like: that other run, whose test inputs are used again.

  Raises:
    UserError: the method cannot work with these answers.
  """
  task = plan.recipe.task
  streamed = streams(plan.placement, plan.inputs)
  examples = _examples(plan, dataset, answers, mesh, streamed)
  keys = jax.random.split(jax.random.key(plan.about.seed))
  init_key, key = hosts.put_global(tuple(keys), replicated(mesh))
  state, index, images_per_step = _begin(plan, programs, init_key, examples)
  check_finite(plan, state, examples, index.shape)
  stages, state = make_phases(plan, mesh, answers.live, state, examples, key)
  scale = plan.learning_rate / programs.learning_rate

  def scaled(state):
    state = state._replace(level=np.float32(scale))
    return hosts.put_global(state, replicated(mesh))

  def begin():
    state = programs.begin(init_key, examples)
    return state if stages else scaled(state)

  target = None
  if answers.live is None and task.labels.ndim == 1:
    target = methods.mean_target(plan.method, task.labels, answers.teachers)
  splits = _splits(plan, dataset)
  documents = dataset.documents
  feed = None
  if streamed:
    feed = make_feed(plan, dataset, answers, examples, mesh)
  return RunContext(
    plan=plan,
    programs=programs,
    scale=scale,
    longest=longest_launch(plan, streamed, mesh),
    feed=feed,
    stages=stages,
    begin=begin,
    examples=examples,
    key=key,
    state=scaled(state),
    inputs=_placed(plan, splits, mesh, streamed, like),
    splits=splits,
    judge=dataset.judge,
    target=target,
    origin={
      "images": dataset.train.fingerprint,
      "answers": fingerprint(answers),
      **({"documents": documents.fingerprint} if documents else {}),
    },
    images_per_step=images_per_step,
    mesh=mesh,
    sharding=replicated(mesh),
  )


def _examples(
  plan: Plan, dataset: Dataset, answers: Collected, mesh: Mesh, streamed: bool
) -> Examples:
  """The table; streamed inputs are one row, for the shape."""
  inputs = take(plan.inputs, slice(1) if streamed else slice(None))
  if not streamed:
    ids = dataset.train.ids[plan.rows.train]
    inputs = student_inputs(plan, inputs, ids, answers)
  examples = Examples(
    inputs,
    plan.recipe.task.labels,
    answers.teachers,
    () if answers.live is None else answers.live.weights,
  )
  examples = pad(examples, plan.table_rows, _documents(dataset, answers))
  return hosts.put_global(examples, replicated(mesh))


def _documents(dataset: Dataset, answers: Collected) -> Examples | None:
  """Rows of the documents that a student reads, and the teacher's vectors.

  A cross encoder says nothing about a document alone.
  """
  documents, index = dataset.documents, dataset.index
  if documents is None or index is None:
    return None
  count = len(documents.labels)

  def told(one: Outputs) -> Outputs:
    if not index.pairs:
      return Outputs(index.anchors.astype(one.logits.dtype))
    return jax.tree.map(lambda x: np.zeros((count, *x.shape[1:]), x.dtype), one)

  teachers = tuple(map(told, answers.teachers))
  return Examples(documents.inputs, documents.labels, teachers)


def _begin(plan: Plan, programs: Programs, key, examples: Examples):
  """(first state, shape of an index, student images per step)."""
  method = plan.method
  try:
    state = programs.begin(key, examples)
    index = jax.eval_shape(
      lambda key: method.sample(key, 0, plan.recipe.task, state.method), key
    )
  except ValueError as error:
    raise UserError(f"method {plan.about.method}: {error}") from error
  seen = jax.eval_shape(
    lambda *x: method.prepare(key, gather(*x)), examples, index
  ).inputs
  return state, index, math.prod(jax.tree.leaves(seen)[0].shape[:2])


def _splits(plan: Plan, dataset: Dataset) -> dict[str, Split]:
  """The rows that are evaluated, by name."""
  train = dataset.train.part(plan.rows.train)
  return {
    "train": train._replace(inputs=plan.inputs),
    "validation": dataset.train.part(plan.rows.validation),
    "test": dataset.test,
    **({"documents": dataset.documents} if dataset.documents else {}),
  }


def _placed(
  plan: Plan, splits: dict[str, Split], mesh: Mesh, streamed: bool, like
) -> dict[str, Placed]:
  """The inputs of every split that has any, on the devices."""
  names = ("test", "documents") if like else ()
  shared = {x: like.inputs[x] for x in names if x in like.inputs}
  placed = {
    name: place(
      split.inputs,
      mesh,
      stream=streamed or streams(plan.placement, split.inputs),
    )
    for name, split in splits.items()
    if len(split.labels) and name not in shared
  }
  return placed | shared


def fingerprint(answers: Collected) -> str:
  """sha256 of a teacher's answers, so that a resumed run has the same ones.

  Args:
    answers: the teacher's name and Outputs [rows, ...].
  """
  digest = hashlib.sha256(answers.teacher.encode())
  for leaf in jax.tree.leaves(answers.teachers):
    digest.update(np.ascontiguousarray(leaf))
  return digest.hexdigest()


def check_finite(
  plan: Plan, state: State, examples: Examples, shape: tuple[int, ...]
) -> None:
  """Refuses answers of -inf (a class ruled out) if the loss is not finite.

  Args:
    plan: of the run, whose method has the loss.
    state: before the first step.
    examples: the table, whose answers may hold -inf.
    shape: (batch, group) of a step's index.
  """
  if not examples.teachers:
    return
  finite = _finite_rows(examples.teachers[0].logits, plan, examples)
  if finite.all():
    return
  rows = np.resize(np.flatnonzero(~finite), shape)
  # On this host, and indexed as on the devices where images are streamed.
  state, examples = jax.tree.map(jnp.asarray, jax.device_get((state, examples)))
  loss = jax.jit(lambda *x: _first_loss(plan.recipe, *x, rows))
  if not np.isfinite(loss(state, examples)):
    raise UserError(
      f"{(~finite).sum()} answers rule classes out (-inf), which "
      f"{plan.about.method!r} cannot match: kd takes them, its loss is defined "
      "by probabilities"
    )


def _finite_rows(logits, plan: Plan, examples: Examples) -> np.ndarray:
  """bool[rows]: whether no class is ruled out."""
  count = len(examples.labels)
  if not isinstance(logits, TopK):
    finite = np.isfinite(np.asarray(logits[np.arange(count)]))
    return finite.all(tuple(range(1, finite.ndim)))
  if plan.recipe.task.labels.ndim > 1 or examples.count is None:
    return np.ones(count, bool)  # what is not named has a probability, too
  return np.arange(count) >= int(examples.count)  # documents are ruled out


def _first_loss(recipe: Recipe, state: State, examples: Examples, rows):
  """The loss of these rows, int[batch, group], shown nothing."""
  key, method = jax.random.key(0), recipe.method
  batch = gather(examples, rows)
  nothing = jax.tree.map(
    lambda x: jnp.zeros((*rows.shape, *x.shape[1:]), x.dtype),
    shown(recipe.view),
  )
  batch = batch._replace(inputs=nothing)
  batch = method.prepare(key, batch)
  params = state.params
  student, _ = forward(
    recipe.model, params["student"], state.model, batch.inputs, method.passes
  )
  return method.loss(params["method"], state.method, student, batch, key, 0)[0]
