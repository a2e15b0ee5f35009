"""Finds runs, reads their summaries, and compares their configs."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from ckd_jax.config import flatten
from ckd_jax.errors import UserError
from ckd_jax.system import files, sealed

# The keys of a summary that a report reads, and their types.
_KEYS = {
  "dataset": str,
  "teacher": str,
  "student": str,
  "method": str,
  "seed": int,
  "budget": int | None,
  "teacher_calls": int | float,
  "train_seconds": int | float,
}


# Keys that do not change an experiment: paths, and how often files are written.
_NEUTRAL = (
  "budget",
  "budget_seed",
  "checkpoint_every",
  "label",
  "log_every",
  "method",
  "seed",
  "steps_per_launch",
  "table.path",
  "teacher.path",
)


def find(paths: Iterable) -> tuple[list[epath.Path], list[epath.Path]]:
  """Looks for runs in folders and in their direct children.

  Args:
    paths: folders of runs, or folders of such folders.

  Returns:
    (finished, unfinished): folders with summary.json, and folders of runs that
    have config.json only.

  Raises:
    UserError: a path is not a folder, or there is no finished run.
  """
  candidates = []
  for path in dict.fromkeys(epath.Path(path).resolve() for path in paths):
    if not path.is_dir():
      raise UserError(f"{path} is not a folder; give the folder of a run")
    children = sorted(child for child in path.iterdir() if child.is_dir())
    candidates += [path] if _is_run(path) else filter(_is_run, children)
  candidates = list(dict.fromkeys(candidates))
  finished = [run for run in candidates if (run / "summary.json").exists()]
  unfinished = [run for run in candidates if run not in finished]
  if not finished:
    hint = f" ({len(unfinished)} unfinished)" if unfinished else ""
    raise UserError(
      f"no finished run{hint}: give folders that hold summary.json, or a "
      "folder of such folders"
    )
  return finished, unfinished


def _is_run(path: epath.Path) -> bool:
  names = ("summary.json", "config.json", "metrics.jsonl")
  return any((path / name).exists() for name in names)


def read(run) -> dict[str, Any]:
  """The summary of a run.

  Raises:
    UserError: the file is not a summary.
  """
  path = epath.Path(run) / "summary.json"
  try:
    summary = json.loads(files.read(path))
    if not sealed.is_whole(summary):
      raise UserError(
        f"{path} was changed after it was written; remove it and rerun"
      )
    figure = f"test_{metric_of(dict(summary))}"
    missing = [
      key
      for key, kind in (_KEYS | {figure: int | float}).items()
      if key not in summary or not isinstance(summary[key], kind)
    ]
  except (
    AttributeError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise UserError(
      f"{path} is not JSON: {error}; remove it and rerun"
    ) from error
  if missing:
    keys = ", ".join(missing)
    raise UserError(f"{path} lacks a usable {keys}; remove it and rerun")
  return summary | {"config": _config(path.parent)}


def metric_of(summary: dict[str, Any]) -> str:
  """Name of the figure that chose the weights; old summaries do not say."""
  return str(summary.get("metric", "accuracy"))


def _config(run) -> dict[str, Any]:
  """The keys of config.json that define an experiment; {} without a file."""
  path = run / "config.json"
  try:
    config = flatten(json.loads(files.read(path))) if path.exists() else {}
  except (AttributeError, OSError, RecursionError, ValueError) as error:
    raise UserError(f"{path} is not a config; remove it and rerun") from error
  return {key: config[key] for key in config if key not in _NEUTRAL}


def differing(summaries: Sequence[dict[str, Any]]) -> list[str]:
  """The keys in which the configs of these runs differ, in order."""
  configs = [summary.get("config") or {} for summary in summaries]
  known = [config for config in configs if config]
  keys = sorted({key for config in known for key in config})
  return [
    key
    for key in keys
    if any(config.get(key) != known[0].get(key) for config in known)
  ]
