"""Which weights a run reports: the validation accuracy alone decides.

Where a loss leaves the class offset free, accuracies are kept in both modes of
`ckd_jax.offset`. The test set is not looked at before the end of the run.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import offset as offsets
from ckd_jax.run.context import RunContext
from ckd_jax.run.intervals import Plateau
from ckd_jax.run.record import Record, Score
from ckd_jax.step import State, percent
from ckd_jax.system import hosts


def start(context: RunContext) -> Record:
  """The record of a run that has not been evaluated yet."""
  modes = {mode: Score() for mode in offsets.modes(context.target)}
  return Record(modes, origin=context.origin)


def judge(
  record: Record, step: int, val: dict[str, float | None], primary: str
) -> set[str]:
  """Enters validation accuracies; returns the modes that are now at their best.

  Args:
    record: changed in place.
    step: how many steps the weights have seen.
    val: mode -> accuracy in percent, or None where nothing validates; then
      the newest weights are the best.
    primary: the mode whose best weights are reported and counted for a plateau.
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

  It does after `patience` evaluations that brought nothing better, but for the
  last level, which ends it. The best accuracy so far stays the bar
  (arXiv 2311.02253, its protocol).
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
  """The splits that an evaluation looks at."""
  names = () if context.target is None else ("train",)
  held_out = ("validation",) if "validation" in context.images else ()
  return (*names, *held_out)


def predict_splits(context: RunContext, state: State) -> dict[str, np.ndarray]:
  """What the student answers there, by split: float32[n, classes]."""
  params, model_state = state.params["student"], state.model
  predict = context.programs.predict
  return {
    name: predict(params, model_state, context.images[name])
    for name in watched(context)
  }


def validate(
  context: RunContext,
  logits: dict[str, np.ndarray],
  step: int,
  record: Record,
  best: dict,
  keep: Callable[[np.ndarray], dict],
) -> dict[str, float]:
  """Validates, and keeps in `best` a copy of what is now at its best.

  Args:
    context: the splits and the programs that look at them.
    logits: from `predict_splits`.
    step: how many steps the weights have seen.
    record: changed in place.
    best: weights by mode; changed in place.
    keep: offset -> a `snapshot` of these weights.

  Returns:
    The accuracies found, in percent, by name.
  """
  found = offsets.by_mode(
    context.target, logits.get("train"), context.num_classes
  )
  val: dict[str, float | None] = dict.fromkeys(found)
  if "validation" in logits:
    labels = context.labels["validation"]
    val = {
      mode: _accuracy(logits["validation"] + offset, labels)
      for mode, offset in found.items()
    }
  primary = context.plan.offset.mode
  # In one order, or the hosts of a run would wait for each other.
  for mode in sorted(judge(record, step, val, primary)):
    best[mode] = keep(found[mode])
  return {
    "val_accuracy" if mode == primary else f"offset_{mode}_val_accuracy": v
    for mode, v in val.items()
    if v is not None
  }


def snapshot(context: RunContext, state: State, offset=0.0) -> dict:
  """A copy of the weights (the step donates its own), and their offset."""
  weights = {"params": state.params["student"], "model": state.model}
  kept = jax.tree.map(jnp.copy, weights)
  kept["offset"] = np.full(context.num_classes, offset, np.float32)
  return hosts.put_global(kept, context.sharding)


def reload(state: State, best: dict, level: float) -> State:
  """The best weights at a lower rate; the momentum stays, as published."""
  copy = jax.tree.map(jnp.copy, best)
  return state._replace(
    params={**state.params, "student": copy["params"]},
    model=copy["model"],
    level=hosts.put_global(np.float32(level), state.level.sharding),
  )


def test(context: RunContext, state: State, best: dict, record: Record) -> None:
  """Enters the test accuracies of the best and of the last weights."""
  if "test" not in context.images:
    return
  predict, images = context.programs.predict, context.images["test"]
  labels = context.labels["test"]
  last = predict(state.params["student"], state.model, images)
  train = predict_splits(context, state).get("train")
  found = offsets.by_mode(context.target, train, context.num_classes)
  for mode, offset in found.items():
    kept, score = best[mode], record.modes[mode]
    logits = predict(kept["params"], kept["model"], images)
    score.test = _accuracy(logits + np.asarray(kept["offset"]), labels)
    score.last_test = _accuracy(last + offset, labels)


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
  return percent(logits.argmax(-1) == labels)
