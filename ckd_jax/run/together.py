"""Trains several students in one program: vmap over states, tables and keys.

They may differ in seed, budget and learning rate. Each has its own record,
checkpoints and plateau; all make the same step at the same time, and a finished
one is ignored from then on.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint, saved, selection
from ckd_jax.run.bad_numbers import rollbacks_after
from ckd_jax.run.context import RunContext
from ckd_jax.run.logger import Diverged
from ckd_jax.run.loop import Lanes, train
from ckd_jax.run.standing import Standing, start_or_resume
from ckd_jax.run.stopping import Stop, stoppable
from ckd_jax.run.train import Run, conclude, make_context, prepare
from ckd_jax.run.workdir import check_workdir
from ckd_jax.step import (
  State,
  make_mesh,
  repeat,
  replace,
  shard_vmap,
  stack,
  take,
)
from ckd_jax.system import console, files

_BATCH = 500  # images of each student in one evaluation

Results = tuple[epath.Path, dict[str, Any] | None]  # None where it diverged
InTurn = Callable[[dict], Iterator[Results]]  # trains {folder: config} in turn


def prepare_all(configs: Mapping) -> list[list[Run]]:
  """Prepares runs, grouped by what one program can hold.

  Args:
    configs: {folder: config}, equal except for seed, budget and rate.

  Returns:
    Groups of runs whose padded tables have the same size.
  """
  groups: dict[int, list[Run]] = {}
  like = None
  for folder, config in configs.items():
    students = len(configs)
    mesh = like.context.mesh if like else make_mesh(config.batch_size, students)
    check_workdir(folder, config, "--workdir")
    run = prepare(config, folder, mesh=mesh, like=like)
    like = like or run
    groups.setdefault(len(run.context.examples.labels), []).append(run)
  return list(groups.values())


def train_together(runs: Sequence[Run]) -> Iterator[Results]:
  """Trains all students in one vmapped program.

  Args:
    runs: ready, with padded tables of the same size.

  Yields:
    (folder, what summary.json holds) of each run as it ends; None in its place
    where the loss was not a number any more.

  Raises:
    UserError: their images are streamed.
  """
  if any(run.context.feed for run in runs):
    kind = runs[0].plan.recipe.view.kind
    raise UserError(
      f"{kind} that are streamed cannot be shared by many students: set "
      "--how=in_turn, or dataset.placement=device"
    )
  with contextlib.ExitStack() as held:
    for run in runs:
      held.enter_context(files.lock(run.workdir, wait=False))
    todo: list[tuple[Run, int | None]] = [(run, None) for run in runs]
    try:
      with stoppable() as stop:
        while todo:
          yield from _trained(todo, stop)
    except KeyboardInterrupt as stopped:
      where = saved.where_it_stands(runs[0].workdir)
      name = runs[0].workdir.name
      raise KeyboardInterrupt(f"{name}, for one: {where}") from stopped


def _trained(
  todo: list[tuple[Run, int | None]], stop: Stop
) -> Iterator[Results]:
  """Trains runs from where they stand.

  Args:
    todo: (run, how often it has gone back); afterwards those that go back now.
    stop: ends training with checkpoints.
  """
  # Where a kill left no checkpoint that all of them have, some go on apart.
  anew = all(rollbacks is None for _, rollbacks in todo)
  common = _common_step([run for run, _ in todo]) if anew else None
  by_step: dict[int, list[tuple[Run, Standing]]] = {}
  for run, rollbacks in todo:
    standing = start_or_resume(run, stop, rollbacks, common)
    by_step.setdefault(standing.step, []).append((run, standing))
  todo.clear()
  for step in sorted(by_step):
    group, standings = zip(*by_step[step], strict=True)
    for run, ended in train(group, standings, stop, vmapped):
      if not isinstance(ended, Diverged):
        # Not stopped on the way: the others would lose their last steps.
        yield run.workdir, conclude(run, ended, Stop([]))
        continue
      try:
        todo.append((run, rollbacks_after(run, ended)))
      except Diverged as error:
        console.say(f"{run.workdir.name}: {error}")
        yield run.workdir, None


def _common_step(runs: Sequence[Run]) -> int | None:
  """The newest step from which all runs can go on in one program.

  A kill between their saves leaves some of them one checkpoint ahead of the
  others. These go back, since fewer students in a program round differently.

  Returns:
    The step, 0 for the beginning; None where a run is further behind.
  """
  steps_of = [checkpoint.finished(run.workdir / "checkpoints") for run in runs]
  step = min(max(steps, default=0) for steps in steps_of)
  if all(step in steps or (not step and len(steps) < 2) for steps in steps_of):
    return step
  return None


def train_faster(configs: Mapping, in_turn: InTurn) -> Iterator[Results]:
  """Measures a few steps both ways, and trains in the faster one.

  Args:
    configs: {folder: config}, equal except for seed, budget and rate.
    in_turn: trains such configs one after the other.
  """
  for runs in prepare_all(configs):
    streamed = bool(runs[0].context.feed)
    own = {run.workdir: configs[run.workdir] for run in runs}
    best = "in turn" if streamed else _faster(runs)
    if best == "together":
      yield from train_together(runs)
    else:
      runs.clear()  # frees the tables of this group
      yield from in_turn(own)


def _faster(runs: Sequence[Run]) -> str:
  """Prints and returns "together" or "in turn"."""
  first, alone = runs[0], runs[0].context
  mesh = make_mesh(alone.plan.recipe.task.batch_size)
  if mesh.shape != alone.mesh.shape:  # a single run may use more devices
    alone = make_context(first.plan, first.dataset, first.answers, mesh)
  contexts = [run.context for run in runs]
  lanes = vmapped(contexts, [context.state for context in contexts])
  seconds = {
    "together": _seconds(lanes.launched, lanes.state) / len(runs),
    "in turn": _seconds(alone, alone.state),
  }
  best = min(seconds, key=seconds.__getitem__)
  times = (f"{1e3 * each:.2f} ms {how}" for how, each in seconds.items())
  console.say(f"{best}: a student's launch takes {', '.join(times)}")
  return best


def _seconds(launched, state: State, repeats: int = 5) -> float:
  """Seconds of one launch, compilation excluded."""
  state = jax.tree.map(jnp.copy, state)
  launch = launched.launch(launched.longest)
  begun = 0.0
  for turn in range(repeats + 1):
    if turn == 1:
      jax.block_until_ready(state)
      begun = time.perf_counter()
    state, _ = launch(state, launched.examples, launched.key)
    if launched.one_at_a_time:
      jax.block_until_ready(state)
  jax.block_until_ready(state)
  return (time.perf_counter() - begun) / repeats


def vmapped(contexts: list[RunContext], states: list[State]) -> Lanes:
  """The lanes of several students: their states stacked, their steps vmapped.

  They hold until half of the students have ended.

  Args:
    contexts: one for each student, with tables of the same size.
    states: one for each student, at the same step.
  """
  mesh = contexts[0].mesh
  filled = fill(contexts, mesh)
  stacked = _stacked_context(filled)
  return Lanes(
    launched=stacked,
    state=stack(fill(states, mesh), stacked.sharding),
    predict=_Predictor(filled),
    metrics_of=lambda metrics, place: {
      name: value[place] for name, value in metrics.items()
    },
    take=take,
    put=replace,
    holds=lambda left: left > 0 and 2 * _places(left, mesh) > len(filled),
  )


def _places(count: int, mesh: Mesh) -> int:
  """`count`, rounded up to what the devices divide evenly."""
  rows = mesh.shape["students"]
  return -(-count // rows) * rows


def fill(items: list, mesh: Mesh) -> list:
  """Repeats the first item until the devices divide their number."""
  return items + items[:1] * (_places(len(items), mesh) - len(items))


def _stacked_context(contexts: Sequence[RunContext]) -> RunContext:
  """The first context, with the tables, keys and launches of all."""
  first = contexts[0]
  students = NamedSharding(first.mesh, PartitionSpec("students"))
  in_launch = NamedSharding(first.mesh, PartitionSpec(None, "students"))

  @functools.cache
  def launch(times: int):
    many = shard_vmap(repeat(first.programs.step, times), first.mesh, (0, 1))
    return jax.jit(many, donate_argnums=0, out_shardings=(students, in_launch))

  return first._replace(
    programs=first.programs._replace(launch=launch),
    examples=stack([context.examples for context in contexts], students),
    key=stack([context.key for context in contexts], students),
    sharding=students,
  )


def _joined(batches: Iterable[Any]) -> Any:
  """Batches on devices as one tree of NumPy arrays [rows, ...]."""
  host = [jax.tree.map(np.asarray, batch) for batch in batches]
  return jax.tree.map(lambda *parts: np.concatenate(parts), *host)


def _resized(inputs: Any, rows: int) -> Any:
  return jax.tree.map(lambda x: np.resize(x, (rows, *x.shape[1:])), inputs)


def _stacked(inputs: Sequence[Any], rows: slice) -> Any:
  """These rows of every student's inputs: [students, rows, ...]."""
  return jax.tree.map(lambda *x: np.stack([one[rows] for one in x]), *inputs)


class _Predictor:
  """Predicts the watched splits of all students at once."""

  def __init__(self, contexts: Sequence[RunContext]):
    self._counts: dict[str, list[int]] = {}
    self._batches: dict[str, list[Any]] = {}
    self._students = len(contexts)
    first = contexts[0]
    where = NamedSharding(first.mesh, PartitionSpec("students", "data"))
    share = first.mesh.shape["data"]
    documents = ("documents",) if "documents" in first.inputs else ()
    for name in (*documents, *selection.watched(first)):
      splits = [context.inputs[name] for context in contexts]
      inputs = [_joined(split.batches) for split in splits]
      counts = [split.count for split in splits]
      size = -(-min(_BATCH, max(counts)) // share) * share
      total = -(-max(counts) // size) * size
      padded = [_resized(x, total) for x in inputs]
      self._counts[name] = counts
      self._batches[name] = [
        jax.device_put(_stacked(padded, slice(i, i + size)), where)
        for i in range(0, total, size)
      ]
    self._documents = self._batches.pop("documents", [])
    self._forward, self._vectors = (
      jax.jit(shard_vmap(function, first.mesh))
      for function in (first.programs.forward, first.programs.vectors)
    )

  def __call__(self, state: State) -> list[dict[str, np.ndarray]]:
    """`selection.predict_splits` of each student."""
    found: list[dict[str, np.ndarray]] = [{} for _ in range(self._students)]
    params, model = state.params["student"], self._encoded(state)
    for name, batches in self._batches.items():
      parts = [self._forward(params, model, batch) for batch in batches]
      logits = np.concatenate([np.asarray(part) for part in parts], axis=1)
      for student, count in enumerate(self._counts[name]):
        found[student][name] = logits[student, :count]
    return found

  def _encoded(self, state: State) -> Any:
    """`RunContext.encoded` of all students."""
    if not self._documents:
      return state.model
    params, count = state.params["student"], self._counts["documents"][0]
    parts = [self._vectors(params, state.model, x) for x in self._documents]
    vectors = jnp.concatenate(parts, axis=1)[:, :count]
    return {**state.model, "documents": vectors}
