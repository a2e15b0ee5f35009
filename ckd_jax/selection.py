"""Which weights a run reports: the validation accuracy alone decides.

The record is plain JSON, so a checkpoint carries it. Where a loss leaves the
class offset free, accuracies are kept both ways, `none` and `fit`.
"""


def start(modes) -> dict:
  """The record of a run that has not been judged yet."""
  empty = {"val": None, "test": None, "step": None, "last_test": None}
  return {
    "modes": {mode: dict(empty) for mode in modes},
    "evaluations": 0,
    "since_best": 0,
    "level": 0,
    "train_seconds": 0.0,
    "evaluation_seconds": 0.0,
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
    primary: the mode whose best weights are kept and counted for a plateau.
  """
  improved = set()
  for mode, accuracy in val.items():
    best = record["modes"][mode]
    if accuracy is None or best["val"] is None or accuracy > best["val"]:
      best.update(val=accuracy, step=step)
      improved.add(mode)
  record["evaluations"] += 1
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
