"""Which weights a run reports: the first validation figure alone decides.

Where a loss leaves the class offset free, accuracies are kept in both modes of
`ckd_jax.offset`. The test set is not looked at before the end of the run.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import offset as offsets
from ckd_jax.run.context import RunContext
from ckd_jax.run.intervals import Plateau
from ckd_jax.run.record import Record, Score
from ckd_jax.step import State
from ckd_jax.system import hosts


class Snapshot(NamedTuple):
  """A copy of a student at its best.

  Attributes:
    params: its parameters.
    model: its batch statistics.
    offset: float32[classes], added to its logits in one mode.
  """

  params: Any
  model: Any
  offset: jax.Array


def start(context: RunContext) -> Record:
  """The record of a run that has not been evaluated yet."""
  modes = {mode: Score() for mode in offsets.modes(context.target)}
  return Record(modes, origin=context.origin, devices=context.devices)


def judge(
  record: Record, step: int, val: dict[str, float | None], primary: str
) -> set[str]:
  """Enters validation figures; returns the modes that are now at their best.

  Args:
    record: changed in place.
    step: number of training steps of these weights.
    val: mode -> figure, or None without validation rows; then
      the newest weights are the best.
    primary: the mode that is reported, and that a plateau watches.
  """
  improved = set()
  for mode, accuracy in val.items():
    best = record.modes[mode]
    if accuracy is None or best.val is None or accuracy > best.val:
      best.val, best.step = accuracy, step
      improved.add(mode)
  record.since_best = 0 if primary in improved else record.since_best + 1
  return improved


def falls(record: Record, plateau: Plateau | None) -> bool:
  """Whether the run goes on from its best weights at a lower rate.

  It does after `patience` evaluations without a better accuracy, except at the
  last level, which ends the run. The best accuracy so far remains the one to
  beat (arXiv 2311.02253, its protocol).

  Args:
    record: changed in place.
    plateau: None for other schedules, whose rate never falls here.
  """
  if plateau is None or record.since_best < plateau.patience:
    return False
  record.since_best = 0
  record.level += 1
  return not is_over(record, plateau)


def is_over(record: Record, plateau: Plateau | None) -> bool:
  """Whether the rate fell as often as a plateau allows."""
  return plateau is not None and record.level >= plateau.levels


def watched(context: RunContext) -> tuple[str, ...]:
  """The splits that an evaluation predicts."""
  names = () if context.target is None else ("train",)
  held_out = ("validation",) if "validation" in context.inputs else ()
  return (*names, *held_out)


def predict_splits(context: RunContext, state: State) -> dict[str, np.ndarray]:
  """The student's logits by split, float32[n, classes]."""
  params, model_state = state.params["student"], state.model
  return {
    name: context.predict(params, model_state, name)
    for name in watched(context)
  }


def validate(
  context: RunContext,
  logits: dict[str, np.ndarray],
  step: int,
  record: Record,
  best: dict[str, Snapshot],
  keep: Callable[[np.ndarray], Snapshot],
) -> dict[str, float]:
  """Validates, and copies the weights that are the best so far.

  Args:
    context: the splits and the programs that predict them.
    logits: from `predict_splits`.
    step: number of training steps of these weights.
    record: changed in place.
    best: weights by mode; changed in place.
    keep: float32[classes], an offset -> a `snapshot` of these weights.

  Returns:
    The figures found, by name.
  """
  found = offsets.by_mode(
    context.target, logits.get("train"), context.num_classes
  )
  val: dict[str, float | None] = dict.fromkeys(found)
  primary, figures = context.plan.offset.mode, {}
  if "validation" in logits:
    for mode, offset in found.items():
      judged = _judged(context, "validation", logits["validation"] + offset)
      name, val[mode] = next(iter(judged.items()))
      figures[offsets.metric(mode, primary, name)] = val[mode]
      if mode == primary:
        figures |= {f"val_{key}": judged[key] for key in judged}
  # In a fixed order: hosts that differed would wait for each other forever.
  for mode in sorted(judge(record, step, val, primary)):
    best[mode] = keep(found[mode])
  return figures


def snapshot(
  context: RunContext, state: State, offset: float | np.ndarray = 0.0
) -> Snapshot:
  """A copy of the student (the step donates its own), and its offset.

  Args:
    context: says where copies lie.
    state: whose student is copied.
    offset: float32[classes], or one number for all of them.
  """
  params, model = jax.tree.map(jnp.copy, (state.params["student"], state.model))
  filled: Any = np.full(context.num_classes, offset, np.float32)
  return hosts.put_global(Snapshot(params, model, filled), context.sharding)


def reload(state: State, best: Snapshot, level: float) -> State:
  """The best weights at a lower rate; the momentum stays, as published.

  Args:
    state: of the step that was made last.
    best: parameters and batch statistics to go on from.
    level: the new `State.level`, a factor of the scheduled learning rate.
  """
  copy = jax.tree.map(jnp.copy, best)
  return state._replace(
    params={**state.params, "student": copy.params},
    model=copy.model,
    level=hosts.put_global(np.float32(level), state.level.sharding),
  )


def test(
  context: RunContext,
  state: State,
  best: Mapping[str, Snapshot],
  record: Record,
) -> None:
  """Enters the first test figure of the best and of the last weights.

  Args:
    context: the splits and the programs that predict them.
    state: after the last step.
    best: the weights to report, by mode.
    record: changed in place.
  """
  if "test" not in context.inputs:
    return
  last = context.predict(state.params["student"], state.model, "test")
  train = predict_splits(context, state).get("train")
  found = offsets.by_mode(context.target, train, context.num_classes)
  for mode, offset in found.items():
    kept, score = best[mode], record.modes[mode]
    logits = context.predict(kept.params, kept.model, "test")
    score.test = _first(context, "test", logits + np.asarray(kept.offset))
    score.last_test = _first(context, "test", last + offset)


def _judged(context: RunContext, split: str, logits) -> dict[str, float]:
  return context.judge(logits, context.splits[split])


def _first(context: RunContext, split: str, logits) -> float:
  return next(iter(_judged(context, split, logits).values()))
