"""Which weights a run reports: the validation accuracy alone decides.

The record is plain JSON, so a checkpoint carries it. Where a loss leaves the
class offset free, accuracies are kept both ways, `none` and `fit`. The test set
is not looked at before the end of the run.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.run.assemble import Fit
from ckd_jax.step import State
from ckd_jax.step.evaluate import percent
from ckd_jax.system import hosts


def start(modes) -> dict:
  """The record of a run that has not been judged yet."""
  empty = {"val": None, "test": None, "step": None, "last_test": None}
  return {
    "modes": {mode: dict(empty) for mode in modes},
    "since_best": 0,
    "level": 0,
    "train_seconds": 0.0,
    "evaluation_seconds": 0.0,
    "processor_seconds": 0.0,
    "timed_steps": 0,
    "timed_seconds": 0.0,
  }


def judge(record: dict, step: int, val: dict, primary: str) -> set[str]:
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
    best = record["modes"][mode]
    if accuracy is None or best["val"] is None or accuracy > best["val"]:
      best.update(val=accuracy, step=step)
      improved.add(mode)
  record["since_best"] = 0 if primary in improved else record["since_best"] + 1
  return improved


def plateau(record: dict, patience: int) -> bool:
  """Whether `patience` evaluations brought nothing better; starts anew if so.

  The best accuracy so far stays the bar (arXiv 2311.02253, its protocol).
  """
  if record["since_best"] < patience:
    return False
  record["since_best"] = 0
  record["level"] += 1
  return True


def modes(fit: Fit) -> tuple[str, ...]:
  """With the offset as it is; and fitted, where the loss leaves it free."""
  return ("none",) if fit.target is None else ("none", "fit")


def watched(fit: Fit) -> tuple[str, ...]:
  """The parts of the data set that a validation looks at."""
  names = () if fit.target is None else ("train",)
  return (*names, "validation") if "validation" in fit.images else names


def look(fit: Fit, state: State) -> dict[str, np.ndarray]:
  """What the student answers there, by name: float32[n, classes]."""
  params, model_state = state.params["student"], state.model
  return {
    name: fit.predict(params, model_state, fit.images[name])
    for name in watched(fit)
  }


def validate(fit: Fit, logits, step: int, record, best, keep) -> dict:
  """Validates, and keeps in `best` a copy of what is now at its best.

  Args:
    fit: the run.
    logits: from `look`.
    step: how many steps the weights have seen.
    record: changed in place.
    best: by mode; changed in place.
    keep: (offset) -> a `snapshot` of these weights.

  Returns:
    The accuracies found, in percent, by name.
  """
  offsets = fitted_offsets(fit, logits)
  val = dict.fromkeys(offsets)
  if "validation" in logits:
    val = {
      mode: _accuracy(logits["validation"] + offset, fit.labels["validation"])
      for mode, offset in offsets.items()
    }
  # In one order, or the hosts of a run would wait for each other.
  for mode in sorted(judge(record, step, val, fit.primary)):
    best[mode] = keep(offsets[mode])
  return {
    "val_accuracy" if mode == fit.primary else f"offset_{mode}_val_accuracy": v
    for mode, v in val.items()
    if v is not None
  }


def fitted_offsets(fit: Fit, logits) -> dict[str, np.ndarray]:
  """What each mode adds to the logits: nothing, or the mean gap to the target.

  The target is what the loss would meet if it saw the mean; the images are the
  training images as they are, the network is in evaluation mode.
  """
  offsets = {"none": np.zeros(fit.num_classes, np.float32)}
  if fit.target is not None:
    offsets["fit"] = fit.target - logits["train"].mean(0)
  return offsets


def snapshot(fit: Fit, state: State, offset=0.0) -> dict:
  """A copy of the weights (the step donates its own), and their offset."""
  weights = {"params": state.params["student"], "model": state.model}
  kept = jax.tree.map(jnp.copy, weights)
  kept["offset"] = np.full(fit.num_classes, offset, np.float32)
  return hosts.put(kept, fit.everywhere)


def reload(state: State, best: dict, level: float) -> State:
  """The best weights at a lower rate; the momentum stays, as published."""
  copy = jax.tree.map(jnp.copy, best)
  return state._replace(
    params={**state.params, "student": copy["params"]},
    model=copy["model"],
    level=hosts.put(np.float32(level), state.level.sharding),
  )


def test(fit: Fit, state: State, best: dict, record: dict) -> None:
  """Enters the test accuracies of the best and of the last weights."""
  params, model_state = state.params["student"], state.model
  last = fit.predict(params, model_state, fit.images["test"])
  for mode, offset in fitted_offsets(fit, look(fit, state)).items():
    kept = best[mode]
    logits = fit.predict(kept["params"], kept["model"], fit.images["test"])
    record["modes"][mode].update(
      test=_accuracy(logits + np.asarray(kept["offset"]), fit.labels["test"]),
      last_test=_accuracy(last + offset, fit.labels["test"]),
    )


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
  return percent(logits.argmax(-1) == labels)
