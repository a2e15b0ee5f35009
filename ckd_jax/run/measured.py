"""How good the chosen student is, on every split."""

from typing import Any, NamedTuple

from ckd_jax.data import accuracy
from ckd_jax.run.answers import Collected
from ckd_jax.run.context import RunContext
from ckd_jax.run.record import Record
from ckd_jax.step import measures


def figures(
  answers: Collected, context: RunContext, record: Record, params, model_state
) -> dict[str, Any]:
  """How good the chosen student is; `metric` names the figure that chose it.

  Args:
    answers: the teacher's, about training and test rows.
    context: programs and splits of the run.
    record: with the figures of the weights that were chosen.
    params: their parameters, of all that was trained together.
    model_state: their batch statistics.
  """
  teacher = answers.teachers[0] if answers.teachers else None
  weights = params, model_state
  train = _measured(context, "train", *weights, teacher)
  test = _measured(context, "test", *weights, answers.test_outputs)
  metric = next(iter(train.figures))
  chosen = record.modes[context.plan.offset.mode]
  fitted = context.target is not None
  return {
    "metric": metric,
    **{f"test_{name}": value for name, value in test.figures.items()},
    f"test_{metric}": chosen.test,
    f"val_{metric}": chosen.val,
    f"last_test_{metric}": chosen.last_test,
    "best_step": chosen.step,
    "offset": record.to_json()["modes"] if fitted else None,
    "test_top5_accuracy": test.classes.get("top5"),
    "test_calibration_error": test.classes.get("calibration_error"),
    "test_agreement": test.classes.get("agreement"),
    f"train_{metric}": train.figures[metric],
    "train_agreement": train.classes.get("agreement"),
    f"teacher_test_{metric}": answers.test_accuracy,
    **_branches(context, *weights),
  }


def _branches(context: RunContext, params, state) -> dict[str, Any]:
  """The first test figure of every branch, and their mean."""
  if context.plan.method.branches == "none" or "test" not in context.inputs:
    return {}
  inputs, rows = context.inputs["test"], context.splits["test"]
  logits = context.programs.predict_branches(params, state, inputs)
  judged = [context.judge(each, rows) for each in logits.swapaxes(0, 1)]
  metric = next(iter(judged[0]))
  found = [each[metric] for each in judged]
  return {
    f"branches_test_{metric}": found,
    f"mean_branch_test_{metric}": sum(found) / len(found),
  }


class _Measured(NamedTuple):
  """What is measured of the chosen student on one split.

  Attributes:
    figures: of the data set's judge.
    classes: `measures`, where every row is of one class.
  """

  figures: dict[str, float] = {}  # noqa: RUF012 (never changed)
  classes: dict[str, float] = {}  # noqa: RUF012 (never changed)


def _measured(
  context: RunContext, split: str, params, state, teacher
) -> _Measured:
  """Measures a split; nothing where it has no rows."""
  if split not in context.inputs:
    return _Measured()
  logits = context.predict(params, state, split)
  rows = context.splits[split]
  classes = {}
  if context.judge is accuracy:
    classes = measures(logits, rows.labels, teacher)
  return _Measured(context.judge(logits, rows), classes)
