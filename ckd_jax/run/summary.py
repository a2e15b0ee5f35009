"""The header of a run, its result, and summary.json."""

import json
from typing import Any

import jax

from ckd_jax import methods
from ckd_jax import offset as offsets
from ckd_jax import student as student_file
from ckd_jax.data import Dataset, shown
from ckd_jax.models import cost
from ckd_jax.run.answers import Collected
from ckd_jax.run.context import RunContext
from ckd_jax.run.measured import figures
from ckd_jax.run.plan import About, Plan
from ckd_jax.run.record import Record
from ckd_jax.run.standing import Standing
from ckd_jax.system import hosts

Lines = list[tuple[str, Any]]  # (name, text), one line each
_LANES = 128  # images that a TPU's vector unit holds side by side


def header(plan: Plan, answers: Collected, context: RunContext) -> Lines:
  """The lines above the progress bar.

  Args:
    plan: gives names, rows and the recipe.
    answers: the teacher's, and what they cost.
    context: whose state has the student's parameters.
  """
  about, recipe, state = plan.about, plan.recipe, context.state
  params = plan.exported(state.params["student"])
  student = cost.parameters(params)
  flops = cost.flops(
    plan.members[0], params, plan.exported(state.model), shown(recipe.view)
  )
  lines = [
    ("dataset", about.dataset),
    *([("training set", about.spoiled)] if about.spoiled else []),
    ("budget", _budget(plan, answers)),
    ("student", f"{about.student}, {_size(student, flops)}"),
    *([("peers", ", ".join(about.peers))] if about.peers else []),
    *_teacher(plan, answers, student, flops),
    ("method", f"{about.method} {_changed(about)}".strip()),
    ("devices", context.devices),
    *_share(plan, context),
    ("dtype", about.dtype),
    ("seed", about.seed),
  ]
  return lines


def _budget(plan: Plan, answers: Collected) -> str:
  train, validation = len(plan.rows.train), len(plan.rows.validation)
  asked = f", {answers.calls} of them asked about" if answers.calls else ""
  return (
    f"{plan.about.budget} labelled images: {train} to learn from{asked}, "
    f"{validation} to validate with"
  )


def _teacher(plan: Plan, answers: Collected, student: int, flops: float):
  """The lines about a teacher; none without one."""
  if answers.teacher == "none":
    return []
  teacher, compression = answers.teacher, "unknown: the teacher is a black box"
  if answers.parameters:
    teacher += f", {_size(answers.parameters, answers.flops)}"
    compression = (
      f"{answers.parameters / student:.1f} x parameters, "
      f"{answers.flops / flops:.1f} x FLOPs"
    )
  if plan.about.pruned:
    teacher += f"; and a copy without the {plan.about.pruned:.0%} smallest"
    teacher += " weights"
  return [
    ("teacher", teacher),
    ("compression", compression),
    (
      "teacher calls",
      _calls(answers),
    ),
  ]


def _calls(answers: Collected) -> str:
  if answers.live:
    return "live, in every step"
  if answers.may_buy is None:
    return f"none: {answers.calls} answers of a table"
  failed = f", {answers.failed} failed" if answers.failed else ""
  return (
    f"{answers.paid} bought by this run, {answers.repeated} repeated{failed}; "
    f"{answers.may_buy} may still be bought"
  )


def _size(parameters: int, flops: float) -> str:
  return f"{parameters:,} parameters, {flops / 1e6:.2f} MFLOPs an image"


def _changed(about: About) -> str:
  """The hyper-parameters that are not the published ones."""
  published = methods.defaults(about.method)
  return " ".join(
    f"{key}={value}"
    for key, value in about.hyper.items()
    if value != published[key]
  )


def _share(plan: Plan, context: RunContext) -> Lines:
  """What each device has of a batch, where that matters."""
  images = context.images_per_step // context.mesh.shape["data"]
  platform = context.mesh.devices.flat[0].platform
  lines: Lines = []
  if platform == "tpu" and images < _LANES:
    lines.append(
      (
        "batch",
        f"{images} images a step on each chip: "
        f"a TPU takes as long for {_LANES}",
      )
    )
  if plan.batch_norm == "device":
    lines.append(("batch norm", f"of each device's {images} images alone"))
  return lines


def finish(
  plan: Plan,
  dataset: Dataset,
  answers: Collected,
  context: RunContext,
  ended: Standing,
  workdir,
) -> dict[str, Any]:
  """Exports the best student.

  Args:
    plan: gives names, the recipe and the offset's mode.
    dataset: its inputs and labels.
    answers: the teacher's, and what they cost.
    context: programs and splits of the run.
    ended: where the run stands, test accuracies included.
    workdir: folder of the run, where the student is written.

  Returns:
    The contents of summary.json.
  """
  about, record = plan.about, ended.record
  params, model_state = _export_best(plan, dataset, context, ended, workdir)
  rate = record.timed_steps / max(record.timed_seconds, 1e-9)
  return {
    "dataset": about.dataset,
    "student": about.student,
    "teacher": answers.teacher,
    "method": about.method,
    "label": about.label,
    "hyper": about.hyper,
    "schedule": about.schedule,
    "seed": about.seed,
    "budget": about.budget,
    "budget_seed": about.budget_seed,
    **_cost_of(answers, record.steps * context.images_per_step, ended),
    **_steps(record),
    **figures(answers, context, record, params, model_state),
    "train_seconds": round(record.train_seconds, 3),
    "evaluation_seconds": round(record.evaluation_seconds, 3),
    # CPU time of all cores: other programs change it less than wall time.
    "processor_seconds": round(record.processor_seconds, 3),
    "step_milliseconds": round(1e3 / rate, 3) if rate else None,
    "images_per_second": round(rate * context.images_per_step, 1),
    "student_parameters": cost.parameters(plan.exported(params)),
    "params_sha256": student_file.params_sha256(
      plan.exported(params), plan.exported(model_state)
    ),
    "table_path": answers.path,
    "table_digest": answers.digest,
    "table_rows": answers.calls,
    "devices": context.devices,
    "dtype": about.dtype,
    "jax": jax.__version__,
  }


def _steps(record: Record) -> dict[str, int]:
  return {
    "steps": record.steps,
    "skipped_steps": record.skipped,
    "rollbacks": record.rollbacks,
  }


def _cost_of(
  answers: Collected, images: int, ended: Standing
) -> dict[str, int]:
  """Calls by their kind; `images` are those of all training steps."""
  live = images * len(answers.live.weights) if answers.live else 0
  memory = ended.state.method
  if isinstance(memory, dict) and "asked" in memory:  # while texts were written
    live += int(memory["asked"])
  return {
    "teacher_calls": answers.calls,
    "paid_calls": answers.paid,
    "repeated_calls": answers.repeated,
    "failed_calls": answers.failed,
    "pruned_calls": answers.pruned_calls,
    "live_calls": live,
    "evaluation_calls": answers.evaluation_calls,
  }


def _export_best(
  plan: Plan, dataset: Dataset, context: RunContext, ended: Standing, workdir
):
  """Writes student.safetensors, the offset folded into its last bias.

  Returns parameters and batch statistics of all that was trained together.
  """
  best = jax.device_get(ended.best[plan.offset.mode])
  params, model_state = best.params, best.model
  if plan.offset.mode == offsets.FIT:
    params = offsets.fold(params, best.offset, plan.offset.bias)
  metadata = {
    "model": plan.about.student,
    "classes": str(context.num_classes),
    "class_names": json.dumps(list(dataset.class_names)),
    **plan.recipe.view.facts(),
  }
  if hosts.first():
    student_file.save(
      workdir / student_file.STUDENT,
      plan.exported(params),
      plan.exported(model_state),
      metadata,
    )
  return params, model_state


def result(summary: dict[str, Any]) -> Lines:
  """The lines below the progress bar.

  Args:
    summary: contents of summary.json.
  """
  metric = summary.get("metric", "accuracy")  # old ones do not say

  def figure(name: str) -> str | None:
    return _figure(metric, summary[f"{name}_{metric}"])

  lines = [
    (f"test {metric}", figure("test")),
    (f"validation {metric}", figure("val")),
    (f"last test {metric}", figure("last_test")),
    (f"teacher's test {metric}", figure("teacher_test")),
    ("agreement on training rows", _percent(summary["train_agreement"])),
    ("agreement on test rows", _percent(summary.get("test_agreement"))),
    ("teacher calls", summary["teacher_calls"]),
    *_bad_numbers(summary),
    ("training", f"{summary['train_seconds']:.1f} s"),
    ("speed", f"{summary['images_per_second']:,.0f} images/s"),
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


def _bad_numbers(summary: dict[str, Any]) -> Lines:
  """What came of numbers that were not finite; nothing if all were."""
  lines = [
    ("steps skipped", summary.get("skipped_steps")),  # older runs have none
    ("ways back", summary.get("rollbacks")),
  ]
  return [(name, count) for name, count in lines if count]


def _figure(metric: str, value: float | None) -> str | None:
  if metric == "accuracy" or value is None:
    return _percent(value)
  return f"{value:.4g}"


def _percent(value: float | None) -> str | None:
  return None if value is None else f"{value:.2f} %"
