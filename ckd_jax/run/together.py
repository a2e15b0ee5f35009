"""Students that are trained by one program: vmap over everything of a run.

They may differ in seed, budget and learning rate. Each keeps its own record,
checkpoints and plateau; all make the same step at the same time, and one that
is finished is left out of what follows.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ckd_jax.errors import UserError
from ckd_jax.run import logger, selection, train
from ckd_jax.run.assemble import Fit
from ckd_jax.run.loop import Launcher, Rhythm, Watch
from ckd_jax.run.train import Course, Run
from ckd_jax.step import State, repeat
from ckd_jax.step.sharding import make_mesh
from ckd_jax.system import files

_BATCH = 500  # images of each student in one evaluation


def prepare(configs: dict) -> list[list[Run]]:
  """Runs that are ready, grouped by what one program can hold.

  Args:
    configs: {folder: config}, alike but for seed, budget and rate.

  Returns:
    Runs whose padded tables are of the same size.
  """
  groups: dict[int, list[Run]] = {}
  like = None
  for folder, config in configs.items():
    mesh = like.fit.mesh if like else make_mesh(config.batch_size, len(configs))
    train.look_into(folder, config, "--workdir")
    run = train.prepare(config, folder, mesh=mesh, like=like)
    like = like or run
    groups.setdefault(len(run.fit.examples.labels), []).append(run)
  return list(groups.values())


def train_together(runs: Sequence[Run]) -> Iterator[tuple]:
  """Trains, and yields (folder, results) of each run as it ends.

  Results are None where the loss was not a number any more.

  Raises:
    UserError: their images are streamed.
  """
  if any(run.fit.feed for run in runs):
    raise UserError(
      "images that are streamed cannot be shared by many students: set "
      "--how=in_turn, or dataset.placement=device"
    )
  with contextlib.ExitStack() as held:
    for run in runs:
      held.enter_context(files.lock(run.workdir))
    courses = [train.course(run.config, run.fit, run.workdir) for run in runs]
    # A kill can leave them at different checkpoints.
    by_step: dict[int, list] = {}
    for run, course in zip(runs, courses, strict=True):
      by_step.setdefault(course.step, []).append((run, course))
    for step in sorted(by_step):
      for run, ended in _train(step, *zip(*by_step[step], strict=True)):
        yield run.workdir, ended and train.conclude(run, *ended)


def train_faster(configs: dict, in_turn: Callable) -> Iterator[tuple]:
  """Measures a few steps both ways, and trains as it is faster."""
  for runs in prepare(configs):
    best = "in turn" if runs[0].fit.feed else _faster(runs)
    if best == "together":
      yield from train_together(runs)
    else:
      own = {run.workdir: run.config for run in runs}
      runs.clear()  # this group's tables make room for one after the other
      yield from in_turn(own)


def _faster(runs: Sequence[Run]) -> str:
  """Prints and returns "together" or "in turn"."""
  alone = runs[0]
  mesh = make_mesh(alone.config.batch_size)
  if mesh.shape != alone.fit.mesh.shape:
    # Alone it would have more devices: prepared once more, for this alone.
    alone = train.prepare(alone.config, alone.workdir, mesh=mesh)
  seconds = {
    "together": _seconds(*_stacked(runs)) / len(runs),
    "in turn": _seconds(alone.fit, alone.fit.state),
  }
  best = min(seconds, key=seconds.get)
  times = (f"{1e3 * each:.2f} ms {how}" for how, each in seconds.items())
  print(f"{best}: a student's launch takes {', '.join(times)}", flush=True)
  return best


def _seconds(fit: Fit, state: State, repeats: int = 5) -> float:
  """Of one launch, compiled."""
  state = jax.tree.map(jnp.copy, state)
  launch = fit.launch(fit.longest)
  begun = 0.0
  for turn in range(repeats + 1):
    if turn == 1:
      jax.block_until_ready(state)
      begun = time.perf_counter()
    state, _ = launch(state, fit.examples, fit.key)
    if fit.one_at_a_time:
      jax.block_until_ready(state)
  jax.block_until_ready(state)
  return (time.perf_counter() - begun) / repeats


def _stacked(runs: Sequence[Run]) -> tuple[Fit, State]:
  fits = filled([run.fit for run in runs], runs[0].fit.mesh)
  fit = crew_fit(fits)
  return fit, stack([one.state for one in fits], fit.everywhere)


def filled(crew: list, mesh: Mesh) -> list:
  """With the first one again in the places left: devices divide it evenly."""
  rows = mesh.shape["students"]
  return crew + crew[:1] * (-len(crew) % rows)


def stack(trees: Sequence, sharding):
  """One tree whose leaves begin with the axis of students."""
  stacked = jax.jit(
    lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees),
    out_shardings=sharding,
  )
  return stacked(*trees)


@jax.jit
def take(tree, place):
  """The part of one student."""
  return jax.tree.map(lambda x: x[place], tree)


@functools.partial(jax.jit, donate_argnums=0)
def replace(tree, place, part):
  """The same tree with another part for one student."""
  return jax.tree.map(lambda x, y: x.at[place].set(y), tree, part)


def every(function: Callable, mesh: Mesh, out_axes=0) -> Callable:
  """`function` of every student at once, each device with its own students.

  Told apart by hand: where vmap makes a grouped 1 x 1 convolution of the
  students' and XLA divides its groups over devices, the numbers are wrong
  (jaxlib 0.10 and 0.12, on CPU at least).

  Args:
    function: of one student; what it shards over `data` stays so.
    mesh: of axes `students` and `data`.
    out_axes: where the axis of students is in what it returns; one int, or one
      for each thing returned.
  """

  def place(axis):
    return PartitionSpec(*[None] * axis, "students")

  return jax.shard_map(
    jax.vmap(function, out_axes=out_axes),
    mesh=mesh,
    in_specs=place(0),
    out_specs=jax.tree.map(place, out_axes),
    axis_names={"students"},
    check_vma=False,
  )


def crew_fit(fits: Sequence[Fit]) -> Fit:
  """The first of them, with the tables, keys and launches of all."""
  first = fits[0]
  students = NamedSharding(first.mesh, PartitionSpec("students"))
  in_launch = NamedSharding(first.mesh, PartitionSpec(None, "students"))

  @functools.cache
  def launch(times: int):
    many = every(repeat(first.programs.step, times), first.mesh, (0, 1))
    return jax.jit(many, donate_argnums=0, out_shardings=(students, in_launch))

  return first._replace(
    programs=first.programs._replace(launch=launch),
    examples=stack([fit.examples for fit in fits], students),
    key=stack([fit.key for fit in fits], students),
    everywhere=students,
  )


class _Looks:
  """Validates all students at once.

  Args:
    fits: of the students.
  """

  def __init__(self, fits: Sequence[Fit]):
    self._counts, self._batches = {}, {}
    first = fits[0]
    where = NamedSharding(first.mesh, PartitionSpec("students", "data"))
    share = first.mesh.shape["data"]
    for name in selection.watched(first):
      images = [
        np.concatenate([np.asarray(x) for x in fit.images[name].batches])
        for fit in fits
      ]
      counts = [fit.images[name].count for fit in fits]
      size = -(-min(_BATCH, max(counts)) // share) * share
      total = -(-max(counts) // size) * size
      padded = [np.resize(x, (total, *x.shape[1:])) for x in images]
      self._counts[name] = counts
      self._batches[name] = [
        jax.device_put(np.stack([x[i : i + size] for x in padded]), where)
        for i in range(0, total, size)
      ]
    self._forward = jax.jit(every(first.programs.forward, first.mesh))

  def __call__(self, state: State) -> list[dict[str, np.ndarray]]:
    """What `selection.look` gives, for each."""
    found = [{} for _ in next(iter(self._counts.values()), [])]
    for name, batches in self._batches.items():
      parts = [
        self._forward(state.params["student"], state.model, batch)
        for batch in batches
      ]
      logits = np.concatenate([np.asarray(part) for part in parts], axis=1)
      for student, count in enumerate(self._counts[name]):
        found[student][name] = logits[student, :count]
    return found


class _AnyOf(NamedTuple):
  """Steps are logged where any student's are."""

  rhythms: Sequence[Rhythm]

  def logged(self, step: int) -> bool:
    return any(rhythm.logged(step) for rhythm in self.rhythms)


def _train(step: int, runs: Sequence[Run], courses: Sequence[Course]):
  """Yields (run, (state, best, record)) of each, or None if it diverged."""
  rhythms = [train.rhythm_of(run.config, run.fit) for run in runs]
  plateaus = [train.plateau_of(run.config) for run in runs]
  shows = [
    train.display(run.config, run.fit, run.workdir, step, bar=run is runs[0])
    for run in runs
  ]
  records = [course.record for course in courses]
  bests = [course.best for course in courses]
  states = {student: course.state for student, course in enumerate(courses)}
  diverged: list[int] = []
  watch = Watch(*records)

  def leave(student):
    """Its part of the program goes on, and is looked at no more."""
    states.pop(student)
    watch.records = [records[other] for other in states]

  mesh = runs[0].fit.mesh
  while states:
    crew = list(states)  # its order is that of the stacked axis
    places = filled(crew, mesh)
    fits = [runs[student].fit for student in places]
    fit = crew_fit(fits)
    state = stack([states[student] for student in places], fit.everywhere)
    looks = _Looks(fits)

    def show(step, metrics, crew=crew):
      for place, student in enumerate(crew):
        if student in states and rhythms[student].logged(step):
          own = {name: value[place] for name, value in metrics.items()}
          try:
            shows[student].training(step, own)
          except logger.Diverged as error:
            print(f"{runs[student].workdir.name}: {error}", flush=True)
            diverged.append(student)
            leave(student)

    launcher = Launcher(fit, fit.launch, _AnyOf(rhythms), show, watch)
    # Those that end are masked out, until half of the crew has ended.
    while states and 2 * len(filled(list(states), mesh)) > len(places):
      stop = min(rhythms[student].stop(step) for student in states)
      state = launcher.run(state, step, stop)
      step = stop
      for student in diverged:
        yield runs[student], None
      diverged.clear()
      logits = None
      for place, student in enumerate(crew):
        if student not in states:
          continue
        rhythm, plateau = rhythms[student], plateaus[student]
        own, record, best = fits[place], records[student], bests[student]
        if rhythm.judged(step):
          logits = logits or looks(state)

          def keep(offset, own=own, place=place, state=state):
            return selection.snapshot(own, take(state, place), offset)

          found = selection.validate(
            own, logits[place], step, record, best, keep
          )
          shows[student].accuracies(step, found)
          if train.falls(record, plateau):
            level = own.scale * plateau.factor ** record["level"]
            part = selection.reload(
              take(state, place), best[own.primary], level
            )
            state = replace(state, place, part)
        if rhythm.saved(step):
          run = runs[student]
          train.save(run.workdir, step, take(state, place), best, record)
        if step >= rhythm.steps or train.is_over(record, plateau):
          watch.evaluated()
          leave(student)
          record["steps"] = step
          yield runs[student], (take(state, place), best, record)
          watch.skip()
      watch.evaluated()
    for place, student in enumerate(crew):
      if student in states:
        states[student] = take(state, place)
