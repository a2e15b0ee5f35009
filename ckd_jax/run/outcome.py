"""The lines below the progress bar, from a summary."""

from typing import Any

from ckd_jax import offset as offsets

Lines = list[tuple[str, Any]]  # (name, text), one line each


def result(summary: dict[str, Any]) -> Lines:
  """The lines below the progress bar.

  Args:
    summary: contents of summary.json.
  """
  # Old ones say neither.
  metric = summary.get("metric", "accuracy")
  kind = summary.get("inputs", "images")
  lines = [
    (f"test {metric}", figure(summary, "test")),
    (f"validation {metric}", figure(summary, "val")),
    (f"last test {metric}", figure(summary, "last_test")),
    (f"teacher's test {metric}", figure(summary, "teacher_test")),
    (f"agreement on training {kind}", _percent(summary["train_agreement"])),
    (f"agreement on test {kind}", _percent(summary.get("test_agreement"))),
    ("teacher calls", _calls(summary)),
    *_bad_numbers(summary),
    ("training", f"{summary['train_seconds']:.1f} s"),
    ("speed", f"{summary[f'{kind}_per_second']:,.0f} {kind}/s"),
    ("student", f"sha256 {summary['params_sha256']}"),
  ]
  if branches := summary.get(f"branches_test_{metric}"):
    each = ", ".join(str(_figure(metric, value)) for value in branches)
    mean = _figure(metric, summary[f"mean_branch_test_{metric}"])
    lines.append(("every branch", f"test {each}; mean {mean}"))
  for mode, found in (summary["offset"] or {}).items():
    lines.append(
      (
        offsets.LABELS.get(mode, mode),
        f"test {_figure(metric, found['test'])}, "
        f"validation {_figure(metric, found['val'])}",
      )
    )
  return lines


def _calls(summary: dict[str, Any]) -> str:
  calls = f"{summary['teacher_calls']}"
  if experts := summary.get("expert_calls"):
    calls += f": {per_teacher(experts)}"
  return calls


def per_teacher(calls: dict[str, int]) -> str:
  """The calls of several teachers, in one line.

  Args:
    calls: by name, the largest teacher last.
  """
  return ", ".join(f"{count} of {name}" for name, count in calls.items())


def _bad_numbers(summary: dict[str, Any]) -> Lines:
  """What came of numbers that were not finite; nothing if all were."""
  lines = [
    ("steps skipped", summary.get("skipped_steps")),  # older runs have none
    ("ways back", summary.get("rollbacks")),
  ]
  return [(name, count) for name, count in lines if count]


def figure(summary: dict[str, Any], name: str) -> str | None:
  """The figure that chose the weights, as it is shown.

  Args:
    summary: contents of summary.json.
    name: "test", "val", "last_test" or "teacher_test".
  """
  metric = summary.get("metric", "accuracy")
  return _figure(metric, summary[f"{name}_{metric}"])


def _figure(metric: str, value: float | None) -> str | None:
  if metric == "accuracy" or value is None:
    return _percent(value)
  return f"{value:.4g}"


def _percent(value: float | None) -> str | None:
  return None if value is None else f"{value:.2f} %"
