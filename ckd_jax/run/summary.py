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
from ckd_jax.run.outcome import per_teacher
from ckd_jax.run.plan import About, Plan
from ckd_jax.run.record import Record
from ckd_jax.run.standing import Standing
from ckd_jax.system import hosts

Lines = list[tuple[str, Any]]  # (name, text), one line each
_LANES = 128  # rows that a TPU's vector unit holds side by side


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
    ("student", f"{about.student}, {_size(student, flops, recipe.view.kind)}"),
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
  kind = plan.recipe.view.kind
  asked = f", {train} of them asked about" if answers.calls else ""
  return (
    f"{plan.about.budget} labelled {kind}: {train} to learn from{asked}, "
    f"{validation} to validate with"
  )


def _teacher(plan: Plan, answers: Collected, student: int, flops: float):
  """The lines about a teacher; none without one."""
  if answers.teacher == "none":
    return []
  teacher, compression = answers.teacher, "unknown: the teacher is a black box"
  if answers.parameters:
    kind = plan.recipe.view.kind
    teacher += f", {_size(answers.parameters, answers.flops, kind)}"
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
    *(
      [("calls of each", per_teacher(dict(answers.experts)))]
      * bool(answers.experts)
    ),
  ]


def _calls(answers: Collected) -> str:
  if answers.live:
    return "live, in every step"
  pairs = f", scores of {answers.pairs:,} pairs" if answers.pairs else ""
  if answers.may_buy is None:
    return f"none: {answers.calls} answers of a table{pairs}"
  failed = f", {answers.failed} failed" if answers.failed else ""
  return (
    f"{answers.paid} bought by this run, {answers.repeated} repeated{failed}; "
    f"{answers.may_buy} may still be bought{pairs}"
  )


def _size(parameters: int, flops: float, kind: str) -> str:
  one = {"images": "an image", "texts": "a text"}[kind]
  return f"{parameters:,} parameters, {flops / 1e6:.2f} MFLOPs {one}"


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
  rows = context.images_per_step // context.mesh.shape["data"]
  kind = plan.recipe.view.kind
  platform = context.mesh.devices.flat[0].platform
  lines: Lines = []
  if platform == "tpu" and rows < _LANES:
    lines.append(
      (
        "batch",
        f"{rows} {kind} a step on each chip: a TPU takes as long for {_LANES}",
      )
    )
  if plan.batch_norm == "device":
    lines.append(("batch norm", f"of each device's {rows} {kind} alone"))
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
  kind = plan.recipe.view.kind
  params, model_state = _export_best(plan, dataset, context, ended, workdir)
  rate = record.timed_steps / max(record.timed_seconds, 1e-9)
  return {
    "dataset": about.dataset,
    "inputs": kind,
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
    f"{kind}_per_second": round(rate * context.images_per_step, 1),
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
) -> dict[str, Any]:
  """Calls by their kind; `images` are those of all training steps."""
  live = images * len(answers.live.weights) if answers.live else 0
  memory = ended.state.method
  if isinstance(memory, dict) and "asked" in memory:  # while texts were written
    live += int(memory["asked"])
  return {
    "teacher_calls": answers.calls,
    **({"expert_calls": dict(answers.experts)} if answers.experts else {}),
    **({"teacher_pairs": answers.pairs} if answers.pairs else {}),
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
  model_state = jax.device_get(context.encoded(params, model_state))
  if plan.offset.mode == offsets.FIT:
    params = offsets.fold(params, best.offset, plan.offset.bias)
  metadata = {
    "model": plan.about.student,
    "classes": str(context.num_classes),
    "class_names": json.dumps(list(dataset.class_names)),
    **plan.recipe.view.facts(),
  }
  if dataset.index is not None:
    metadata["temperature"] = json.dumps(float(dataset.index.temperature))
    metadata["cosine"] = json.dumps(bool(dataset.index.cosine))
  if hosts.first():
    student_file.save(
      workdir / student_file.STUDENT,
      plan.exported(params),
      plan.exported(model_state),
      metadata,
    )
  return params, model_state
