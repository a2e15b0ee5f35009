"""The folder of a run: checked, locked, and removed if it stays empty."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from ckd_jax import config as configuration
from ckd_jax import student
from ckd_jax.errors import DAMAGED, UserError
from ckd_jax.run import outcome
from ckd_jax.system import files, hosts, sealed


def check_workdir(
  workdir: epath.Path, config, flag_name: str
) -> dict[str, Any] | None:
  """The summary of a finished run, or None for an unfinished or new one.

  Args:
    workdir: need not exist.
    config: a ConfigDict, compared with the folder's config.json.
    flag_name: the setting that names the folder, for messages.

  Raises:
    UserError: the folder cannot be used, holds a run of another config, or a
      finished one whose summary or student is not as it was written.
  """
  path = workdir / "config.json"
  try:
    if workdir.exists() and not workdir.is_dir():
      raise NotADirectoryError(20, "Not a directory")
    old, finished = _object(path), _object(workdir / "summary.json")
    if finished is not None and not sealed.is_whole(finished):
      raise UserError(
        f"{workdir}/summary.json was changed after it was written: restore it "
        "from a copy, or delete it and the same command makes it again"
      )
    if finished is not None:
      outcome.result(finished)  # raises if a key is missing
  except OSError as error:
    raise UserError(
      f"cannot use {workdir}: {error.strerror}: choose another {flag_name}"
    ) from error
  except DAMAGED as error:
    raise UserError(
      f"a .json file in {workdir} is damaged: choose another {flag_name}"
    ) from error
  new = configuration.to_json(config)
  changes = configuration.differences(old, new) if old else []
  if changes:
    raise UserError(
      f"{workdir} holds a run of another config ({'; '.join(changes)}): "
      f"choose another {flag_name} or the old values"
    )
  if finished is not None:
    _check_student(workdir)
  return finished


def _check_student(workdir: epath.Path) -> None:
  """Refuses a finished run whose student is not there, or not whole."""
  path = workdir / student.STUDENT
  if not path.exists():
    raise UserError(
      f"{workdir} is finished, and its {student.STUDENT} is gone: restore it"
      " from a copy, or delete summary.json and the same command makes it again"
    )
  student.load(path)


def _object(path: epath.Path) -> dict[str, Any] | None:
  """The object in a .json file, or None without a file."""
  if not path.exists():
    return None
  value = json.loads(files.read(path))
  if not isinstance(value, dict):
    raise ValueError(f"{path} holds a {type(value).__name__}")
  return value


@contextlib.contextmanager
def claimed(
  workdir: epath.Path, flag_name: str, *, wait: bool = False
) -> Iterator[None]:
  """Locks the folder for this run, in the first process of several.

  A command that fails before it wrote anything leaves no folder behind.

  Args:
    workdir: made if absent.
    flag_name: the setting that names the folder, for messages.
    wait: whether to wait for another process that has locked it.

  Raises:
    UserError: the folder cannot be made, or another process has locked it.
  """
  new = files.absent(workdir)
  with contextlib.ExitStack() as stack:
    if hosts.first():
      try:
        workdir.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise UserError(
          f"cannot use {workdir}: {error.strerror}: choose another {flag_name}"
        ) from error
      stack.callback(files.remove_empty, workdir, new)
      stack.enter_context(files.lock(workdir, wait=wait))
    hosts.barrier()
    yield
