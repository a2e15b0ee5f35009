"""Checkpoints that are restored only after every byte was checked.

A checkpoint is DIR/00000100 with `arrays` (orbax) and `manifest.json`: the
sha256 of every file, the name and type of every leaf, the caller's notes, and
on its last line the sha256 of itself. The manifest is written last: a folder
without one is an unfinished save. Reason: orbax restores flipped bits silently
and never falls back to an older step.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from ckd_jax.errors import DAMAGED, UserError
from ckd_jax.run import arrays_file
from ckd_jax.system import files, hosts, signals

_MANIFEST = "manifest.json"
_ARRAYS = "arrays"


def save(
  directory, step: int, state, notes: dict[str, Any], *, keep: int = 2
) -> None:
  """Writes a checkpoint and returns when it is durable.

  All processes call it; process 0 writes. The arrays of `state` may be donated
  afterwards.

  Args:
    directory: of the checkpoints of one run, seen by all processes; made if
      absent.
    step: number of the steps done so far; an older save of it is replaced.
    state: any pytree of arrays and typed keys, equal in all processes.
    notes: values beside the arrays, JSON-able.
    keep: number of checkpoints to keep; older ones are removed.

  Raises:
    UserError: the directory cannot be written.
  """
  leaves = _named(state)
  manifest = {
    "step": step,
    "notes": notes,
    "leaves": {name: _type(leaf) for name, leaf in leaves.items()},
    "keys": {
      name: str(jax.random.key_impl(leaf))
      for name, leaf in leaves.items()
      if _is_key(leaf)
    },
  }
  json.dumps(manifest)  # notes that are not JSON must not cost the older save
  arrays = jax.device_get(
    {
      name: jax.random.key_data(leaf) if _is_key(leaf) else np.asarray(leaf)
      for name, leaf in leaves.items()
      if np.size(leaf)  # orbax refuses arrays without elements
    }
  )
  folder = step_folder(directory, step)
  primary = jax.process_index() == 0
  try:
    if primary:
      _remove(folder)
      folder.mkdir(parents=True)
    with signals.held_back():  # orbax would leave a coroutine behind
      arrays_file.save(
        folder / _ARRAYS, arrays
      )  # all processes meet here, one writes
    if primary:
      manifest["files"] = _digests(folder)
      body = json.dumps(manifest, indent=1).encode()
      files.write(folder / _MANIFEST, _seal(body))
      _prune(directory, step, keep)
  except OSError as error:
    hosts.check_lost(error)
    with contextlib.suppress(OSError):
      _remove(folder)  # half of it would only take room
    raise UserError(
      f"cannot write the checkpoint {folder}: {error.strerror or error}; "
      "free space there or give another --workdir"
    ) from error


def restore(
  directory, like, *, at_most: int | None = None
) -> tuple[int, Any, dict[str, Any]] | None:
  """Reads the newest checkpoint that is exactly as it was written.

  A damaged one is renamed `*.corrupt`, with one line in the log, and the one
  before is tried, if there is one.

  Args:
    directory: of the checkpoints of one run.
    like: a pytree of arrays or `jax.ShapeDtypeStruct`s with the structure,
      shapes and dtypes of the state; a leaf is restored with the sharding of
      this one, or as a NumPy array where this one is.
    at_most: the newest step that is looked for; None is any.

  Returns:
    (step, state, notes), or None where there is no valid checkpoint.

  Raises:
    UserError: the checkpoint holds another structure, shape or dtype.
  """
  step = _valid_step(directory, at_most)
  if step < 0:
    return None
  folder = step_folder(directory, step)
  manifest = _manifest(folder)
  wanted = _named(like)
  _check_same(folder, manifest["leaves"], wanted)
  _check_stored(folder, wanted)
  arrays = ocp.load(folder / _ARRAYS)

  def place(name, leaf):
    if np.size(leaf):
      value = arrays[name]
    else:
      value = np.zeros(leaf.shape, leaf.dtype)
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
      value = hosts.put_global(value, leaf.sharding)
    if _is_key(leaf):
      value = jax.random.wrap_key_data(value, impl=manifest["keys"][name])
    return value

  placed = [place(name, leaf) for name, leaf in wanted.items()]
  state = jax.tree.unflatten(jax.tree.structure(like), placed)
  return manifest["step"], state, manifest["notes"]


def notes_of(directory) -> dict[str, Any]:
  """The notes that `restore` would return; {} without a valid checkpoint."""
  step = _valid_step(directory, None)
  return {} if step < 0 else _manifest(step_folder(directory, step))["notes"]


def _valid_step(directory, at_most: int | None) -> int:
  """The step that all processes restore, or -1."""
  primary = jax.process_index() == 0
  step = _newest_valid(directory, at_most) if primary else -1
  if jax.process_count() > 1:
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
  return step


def _named(tree) -> dict[str, Any]:
  """Leaves by their path, in tree order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  named = {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    if hasattr(leaf, "dtype")
    else np.asarray(leaf)
    for path, leaf in leaves
  }
  if len(named) < len(leaves):
    raise ValueError("two leaves have the same path once written with '/'")
  return named


def _is_key(leaf) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _type(leaf) -> str:
  return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _check_same(folder, saved: dict[str, str], wanted: dict[str, Any]) -> None:
  wanted = {name: _type(leaf) for name, leaf in wanted.items()}
  names = [*wanted, *(name for name in saved if name not in wanted)]
  wrong = [name for name in names if saved.get(name) != wanted.get(name)]
  if wrong:
    name = wrong[0]
    there, here = (tree.get(name, "absent") for tree in (saved, wanted))
    raise UserError(
      f"the checkpoint {folder} is of another model, method or version: "
      f"{name!r} is {there} there and {here} here ({len(wrong)} leaves "
      "differ); give another --workdir"
    )


def _check_stored(folder, wanted: dict[str, Any]) -> None:
  """Refuses stored arrays of other sizes, before memory is taken for them."""
  found = ocp.metadata(folder / _ARRAYS).metadata
  stored = {name: _type(leaf) for name, leaf in found.items()}
  expected = {
    name: _type(
      jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    )
    for name, leaf in wanted.items()
    if np.size(leaf)
  }
  if stored != expected:
    raise UserError(
      f"the checkpoint {folder} holds other arrays than its manifest says: it "
      "was not written by ckd_jax; give another --workdir"
    )


def step_folder(directory, step: int) -> epath.Path:
  return epath.Path(directory).resolve() / f"{step:08d}"  # orbax wants it so


def _steps(directory) -> list[int]:
  """Steps that have a folder, finished or not, in ascending order."""
  directory = epath.Path(directory)
  if not directory.is_dir():
    return []
  names = (
    path.name
    for path in directory.iterdir()
    # What a link names was not written here, and is not removed from here.
    if path.is_dir() and not os.path.islink(path)
  )
  return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{8,}", name))


def latest(directory) -> int | None:
  """The step of the newest finished checkpoint, its bytes not yet checked."""
  return max(finished(directory), default=None)


def finished(directory) -> list[int]:
  """The steps of all finished checkpoints, their bytes not yet checked."""
  return [step for step in _steps(directory) if _finished(directory, step)]


def _finished(directory, step: int) -> bool:
  return (step_folder(directory, step) / _MANIFEST).exists()


def _prune(directory, step: int, keep: int) -> None:
  """Keeps `step` and, of those before it, the newest finished ones."""
  earlier = [old for old in reversed(_steps(directory)) if old < step]
  kept = [old for old in earlier if _finished(directory, old)][: keep - 1]
  for old in earlier:
    if old not in kept:
      _remove(step_folder(directory, old))


def _newest_valid(directory, at_most: int | None) -> int:
  """The newest step whose bytes are what was written, or -1."""
  steps = finished(directory)
  if at_most is not None:
    steps = [step for step in steps if step <= at_most]
  while steps:
    step = steps.pop()
    folder = step_folder(directory, step)
    try:
      _check_files(folder, _manifest(folder))
      return step
    except (OSError, *DAMAGED) as error:
      corrupt = folder.with_name(f"{folder.name}.corrupt")
      if corrupt.exists():
        corrupt.rmtree()
      folder.rename(corrupt)
      logging.getLogger(__name__).warning(
        "checkpoint %s is damaged (%s): renamed %s, %s",
        folder,
        error,
        corrupt.name,
        "trying the one before" if steps else "and there is none before it",
      )
  return -1


def _manifest(folder: epath.Path) -> dict[str, Any]:
  data = files.read(folder / _MANIFEST)
  body = data[: data.rstrip(b"\n").rfind(b"\n")]
  if data != _seal(body):
    raise ValueError(f"{_MANIFEST} is not what was written")
  manifest = json.loads(body)
  step = int(folder.name)
  if not isinstance(manifest, dict) or manifest.get("step") != step:
    raise ValueError(f"{_MANIFEST} is not of step {step}")
  parts = ("files", "keys", "leaves", "notes")
  if not all(isinstance(manifest.get(part), dict) for part in parts):
    raise ValueError(f"{_MANIFEST} lacks one of {', '.join(parts)}")
  return manifest


def _check_files(folder: epath.Path, manifest: dict[str, Any]) -> None:
  for name, digest in manifest["files"].items():
    if _sha256(files.read(folder / name)) != digest:
      raise ValueError(f"{name} is not what was written")


def _digests(folder: epath.Path) -> dict[str, str]:
  """The sha256 of every file, after it was forced on to the disk."""
  digests = {}
  for parent, _, names in folder.walk():
    for path in (parent / name for name in names):
      files.sync(path)
      digests[str(path.relative_to(folder))] = _sha256(path.read_bytes())
    files.sync(parent)
  return digests


def _seal(body: bytes) -> bytes:
  return body + b"\n" + _sha256(body).encode() + b"\n"


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def clear(directory) -> None:
  """Removes all checkpoints; processes other than the first do nothing."""
  if jax.process_index() == 0:
    for step in _steps(directory):
      _remove(step_folder(directory, step))


def _remove(folder: epath.Path) -> None:
  """Removes the manifest first, so that a half removed folder is unfinished."""
  if folder.exists():
    (folder / _MANIFEST).unlink(missing_ok=True)
    folder.rmtree()
