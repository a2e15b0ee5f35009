"""What a run says of itself: the header, the result, and summary.json."""

import json

import jax

from ckd_jax import export, methods
from ckd_jax.data import Dataset
from ckd_jax.models import cost
from ckd_jax.run import selection
from ckd_jax.run.answers import Answers
from ckd_jax.run.assemble import Fit
from ckd_jax.step import State, evaluate
from ckd_jax.system import hosts


def header(config, dataset: Dataset, answers: Answers, fit: Fit) -> list[tuple]:
  """What stands above the progress bar, as (name, text) pairs."""
  student = cost.parameters(fit.state.params["student"])
  flops = cost.flops(
    fit.model,
    fit.state.params["student"],
    fit.state.model,
    dataset.train.images.shape[1:],
  )
  teacher, compression = answers.teacher, "unknown: the teacher is a black box"
  if answers.parameters:
    teacher += f", {_size(answers.parameters, answers.flops)}"
    compression = (
      f"{answers.parameters / student:.1f} x parameters, "
      f"{answers.flops / flops:.1f} x FLOPs"
    )
  if share := config.teacher.get("pruned"):
    teacher += f"; and a copy without the {share:.0%} smallest weights"
  validation = len(fit.labels["validation"])
  left = config.budget - answers.calls  # validation needs no answers
  spent = (
    f"{answers.calls} spent, {left} left; {answers.paid} paid by this run, "
    f"{answers.repeated} repeated"
  )
  lines = [
    ("dataset", dataset.name),
    ("budget", f"{fit.num_train} train + {validation} validation images"),
    ("student", f"{config.student}, {_size(student, flops)}"),
    ("teacher", teacher),
    ("compression", compression),
    ("teacher calls", "live, in every step" if answers.live else spent),
    ("method", f"{config.method} {_changed(config)}".strip()),
    ("devices", devices(fit)),
    ("dtype", config.dtype),
    ("seed", config.seed),
  ]
  if answers.teacher == "none":
    dropped = ("teacher", "compression", "teacher calls")
    lines = [line for line in lines if line[0] not in dropped]
  return lines


def _size(parameters: int, flops: float) -> str:
  return f"{parameters:,} parameters, {flops / 1e6:.2f} MFLOPs an image"


def _changed(config) -> str:
  """The hyper-parameters that are not the published ones."""
  published = methods.defaults(config.method)
  return " ".join(
    f"{key}={value}"
    for key, value in config.hyper.items()
    if value != published[key]
  )


def devices(fit: Fit) -> str:
  """How many of which kind."""
  device = fit.mesh.devices.flat[0]
  return f"{fit.mesh.size} x {device.device_kind} ({device.platform})"


def finish(
  config,
  dataset: Dataset,
  answers: Answers,
  fit: Fit,
  state: State,
  best: dict,
  record: dict,
  workdir,
) -> dict:
  """Exports the best student; returns everything that the run showed."""
  selection.test(fit, state, best, record)
  params, model_state = export_best(config, dataset, fit, best, workdir)
  test = evaluate.measures(
    fit.predict(params, model_state, fit.images["test"]),
    fit.labels["test"],
    answers.test_outputs,
  )
  train = evaluate.measures(
    fit.predict(params, model_state, fit.images["train"]),
    fit.labels["train"],
    answers.outputs[0] if answers.outputs else None,
  )
  chosen = record["modes"][fit.primary]
  steps = record["steps"]
  rate = record["timed_steps"] / max(record["timed_seconds"], 1e-9)
  images = steps * fit.images_per_step
  return {
    "dataset": dataset.name,
    "student": config.student,
    "teacher": answers.teacher,
    "method": config.method,
    "label": config.label,
    "hyper": config.hyper.to_dict(),
    "schedule": config.schedule,
    "seed": config.seed,
    "budget": config.budget,
    "budget_seed": config.budget_seed,
    "teacher_calls": answers.calls,
    "paid_calls": answers.paid,
    "repeated_calls": answers.repeated,
    "pruned_calls": answers.pruned_calls,
    "live_calls": images * len(answers.live.weights) if answers.live else 0,
    "evaluation_calls": answers.evaluation_calls,
    "steps": steps,
    "test_accuracy": chosen["test"],
    "val_accuracy": chosen["val"],
    "last_test_accuracy": chosen["last_test"],
    "best_step": chosen["step"],
    "offset": record["modes"] if fit.target is not None else None,
    "test_top5_accuracy": test["top5"],
    "test_calibration_error": test["calibration_error"],
    "test_agreement": test.get("agreement"),
    "train_accuracy": train["top1"],
    "train_agreement": train.get("agreement"),
    "teacher_test_accuracy": answers.test_accuracy,
    "train_seconds": round(record["train_seconds"], 3),
    "evaluation_seconds": round(record["evaluation_seconds"], 3),
    # Of all cores, for both: a busy machine does not change it as it does time.
    "processor_seconds": round(record["processor_seconds"], 3),
    "step_milliseconds": round(1e3 / rate, 3) if rate else None,
    "images_per_second": round(rate * fit.images_per_step, 1),
    "student_parameters": cost.parameters(params),
    "params_sha256": export.params_sha256(params, model_state),
    "table_path": answers.path,
    "table_digest": answers.digest,
    "table_rows": answers.calls,
    "devices": devices(fit),
    "dtype": config.dtype,
    "jax": jax.__version__,
  }


def export_best(config, dataset, fit: Fit, best: dict, workdir):
  """Writes student.safetensors, the offset folded into its last bias."""
  best = jax.device_get(best[fit.primary])
  params, model_state = best["params"], best["model"]
  if fit.primary == "fit":
    params = export.fold_offset(params, best["offset"], fit.bias)
  metadata = {
    "model": config.student,
    "classes": str(fit.num_classes),
    "class_names": json.dumps(list(dataset.class_names)),
    "mean": json.dumps(list(config.dataset.mean)),
    "std": json.dumps(list(config.dataset.std)),
    "image_shape": json.dumps(list(dataset.test.images.shape[1:])),
  }
  if hosts.first():
    export.save(workdir / export.STUDENT, params, model_state, metadata)
  return params, model_state


def result(summary: dict) -> list[tuple]:
  """What stands below the progress bar, as (name, text) pairs."""
  lines = [
    ("test accuracy", _percent(summary["test_accuracy"])),
    ("validation accuracy", _percent(summary["val_accuracy"])),
    ("last test accuracy", _percent(summary["last_test_accuracy"])),
    ("teacher's test accuracy", _percent(summary["teacher_test_accuracy"])),
    ("agreement with the teacher", _percent(summary["train_agreement"])),
    ("teacher calls", summary["teacher_calls"]),
    ("training", f"{summary['train_seconds']:.1f} s"),
    ("speed", f"{summary['images_per_second']:,.0f} images/s"),
    ("student", f"sha256 {summary['params_sha256']}"),
  ]
  for mode, found in (summary["offset"] or {}).items():
    lines.append(
      (
        f"offset {mode}",
        f"test {_percent(found['test'])}, validation {_percent(found['val'])}",
      )
    )
  return lines


def _percent(value: float | None) -> str | None:
  return None if value is None else f"{value:.2f} %"
