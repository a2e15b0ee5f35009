"""`python -m ckd_jax.export RUN_DIR --out=DIR`: the student alone.

A student is one safetensors file: tensors named by their tree paths
`params/...` and `state/...` and what is needed to use them as metadata.
Loading it runs no code.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from ckd_jax.errors import UserError, command
from ckd_jax.system import files

STUDENT = "student.safetensors"

_DTYPES = {
  "BOOL": np.bool_,
  "BF16": ml_dtypes.bfloat16,
  **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
  **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
  **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def params_sha256(params, state) -> str:
  """One digest of every leaf: path, dtype, shape and bytes, in tree order.

  It is the same for JAX and NumPy arrays, and after `save` and `load`.
  """
  digest = hashlib.sha256()
  for path, leaf in _leaves(params, state):
    digest.update(f"{path} {leaf.dtype} {leaf.shape}\n".encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


def save(path, params, state, metadata: dict[str, str]) -> None:
  """Writes a student, or nothing.

  Args:
    path: of the .safetensors file.
    params: pytree of arrays.
    state: pytree of arrays, the batch statistics.
    metadata: texts by name, JSON where not plain: model, classes, class_names,
      mean, std, image_shape.
  """
  tensors = dict(_leaves(params, state))
  files.write(path, safetensors.numpy.save(tensors, metadata))


def load(path) -> tuple[dict, dict, dict[str, str]]:
  """Reads a student.

  Returns:
    (params, state, metadata); the first two are nested dicts of NumPy arrays.

  Raises:
    UserError: there is no such file, it is cut, or it is not a student.
  """
  path = epath.Path(path)
  try:
    data = path.read_bytes()
    trees = _nest(safetensors.deserialize(data))  # checks offsets and length
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror or error}") from error
  except (safetensors.SafetensorError, ValueError) as error:
    raise UserError(
      f"{path} is cut or is not a student of ckd_jax ({error}); give the "
      f"{STUDENT} of a finished run"
    ) from error
  length = int.from_bytes(data[:8], "little")
  metadata = json.loads(data[8 : 8 + length]).get("__metadata__")
  return trees["params"], trees["state"], metadata or {}


def _nest(tensors) -> dict[str, dict]:
  """(name, tensor) pairs of safetensors as nested dicts of arrays."""
  trees: dict[str, dict] = {"params": {}, "state": {}}
  for name, tensor in tensors:
    *parents, last = map(unquote, name.split("/"))
    if not parents or parents[0] not in trees or tensor["dtype"] not in _DTYPES:
      raise ValueError(f"it holds {name!r} of type {tensor['dtype']}")
    tree = trees
    for key in parents:
      tree = tree.setdefault(key, {})
      if not isinstance(tree, dict):
        raise ValueError(f"{name!r} is inside a tensor")
    if last in tree:
      raise ValueError(f"{name!r} is a tensor and holds others")
    array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]])
    tree[last] = array.reshape(tensor["shape"])
  return trees


def fold_offset(params, offset: jax.Array, path: tuple[str, ...]):
  """Adds `offset[classes]` to the leaf at `path`, the classifier's bias."""
  return jax.tree_util.tree_map_with_path(
    lambda where, leaf: (
      leaf + jnp.asarray(offset, leaf.dtype) if _keys(where) == path else leaf
    ),
    params,
  )


def classifier_bias(
  apply: Callable, params, state, images: jax.Array
) -> tuple[str, ...]:
  """Finds the leaf that is added to the logits, by adding to it.

  Args:
    apply: `Model.apply`.
    params: of the student.
    state: of the student.
    images: float[n, h, w, c]; a few are enough.

  Returns:
    The path of the leaf, for `fold_offset`.

  Raises:
    UserError: the student's classifier has no bias.
  """

  def logits(params):
    outputs, _ = apply(params, state, images, train=False)
    return np.asarray(outputs.logits, np.float32)

  before = logits(params)
  classes = before.shape[-1]
  size = 1 + np.abs(before).max()  # large, so that bfloat16 can tell
  added = size * np.linspace(-1, 1, classes, dtype=np.float32)
  for where, leaf in jax.tree_util.tree_leaves_with_path(params):
    if leaf.shape == (classes,):
      path = _keys(where)
      change = logits(fold_offset(params, added, path)) - before
      if np.abs(change - added[None]).max() < 0.02 * size:
        return path
  raise UserError(
    "this student's classifier has no bias that could take up the offset: set "
    "hyper.offset to 'none' or give the classifier a bias"
  )


def run(run_dir, out) -> str:
  """Copies the best student of a finished run, with what its user needs.

  Writes student.safetensors, config.json and labels.txt (one class per line).

  Returns:
    The digest of the parameters, equal to the run's `params_sha256`.

  Raises:
    UserError: the run is unfinished or damaged, or `out` is itself a run.
  """
  run_dir, out = epath.Path(run_dir), epath.Path(out)
  if not (run_dir / "summary.json").exists():
    raise UserError(
      f"{run_dir} holds no finished run (no summary.json); give its --workdir "
      "again to finish it"
    )
  if (out / "summary.json").exists():
    raise UserError(f"{out} is the folder of a run; give another --out")
  wanted = str(_read(run_dir / "summary.json").get("params_sha256", "nothing"))
  params, state, metadata = _load_checked(run_dir / STUDENT, wanted)
  known = {name: _from_json(text) for name, text in metadata.items()}
  try:
    labels = _labels(run_dir, known)
    image_size = _image_size(run_dir, known)
  except (AttributeError, LookupError, TypeError) as error:
    raise UserError(
      f"{run_dir} is damaged, its classes or the size of its images cannot be "
      f"told ({error}): run it again"
    ) from error
  config = {
    "model": known.get("model"),
    "classes": known.get("classes", len(labels)),
    "class_names": labels,
    "mean": known.get("mean"),
    "std": known.get("std"),
    "image_size": image_size,
    "params_sha256": wanted,
  }
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"cannot make the folder {out}: {error.strerror}: give another --out"
    ) from error
  save(out / STUDENT, params, state, metadata)
  _load_checked(out / STUDENT, wanted)  # what was written, not what was read
  files.write(out / "config.json", json.dumps(config, indent=2).encode())
  files.write(out / "labels.txt", "".join(f"{x}\n" for x in labels).encode())
  return wanted


def _load_checked(path, wanted: str):
  params, state, metadata = load(path)
  found = params_sha256(params, state)
  if found != wanted:
    raise UserError(
      f"{path} is not what the run wrote: sha256 {found[:12]}..., in "
      f"summary.json {wanted[:12]}...; run it again"
    )
  return params, state, metadata


def _labels(run_dir, known: dict[str, Any]) -> list[str]:
  """Class names: of the metadata, else of the table, else numbers."""
  names = known.get("class_names") or _read(run_dir / "table/table.json").get(
    "class_names"
  )
  return [str(label) for label in names or range(known.get("classes", 0))]


def _image_size(run_dir, known: dict[str, Any]) -> int | None:
  if "image_shape" in known:
    return known["image_shape"][0]
  return _read(run_dir / "config.json").get("dataset", {}).get("image_size")


def _read(path) -> dict[str, Any]:
  try:
    facts = json.loads(path.read_text()) if path.exists() else {}
    if not isinstance(facts, dict):
      raise ValueError("it holds no object")
  except ValueError as error:
    raise UserError(f"{path} is damaged: run it again") from error
  return facts


def _from_json(text: str) -> Any:
  try:
    return json.loads(text)
  except ValueError:
    return text


def _keys(where) -> tuple[str, ...]:
  """A path of jax as the texts of its keys."""
  return tuple(
    jax.tree_util.keystr((key,), simple=True, separator="/") for key in where
  )


def _leaves(params, state) -> Iterator[tuple[str, np.ndarray]]:
  """(path, array on the host), sorted by keys: dicts' own order in a tree.

  A '/' inside a key (Haiku has them) is written %2F.
  """
  tree = {"params": params, "state": state}
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  for keys, leaf in sorted(
    ((_keys(where), leaf) for where, leaf in leaves), key=lambda pair: pair[0]
  ):
    path = "/".join(quote(key, safe="") for key in keys)
    yield path, np.asarray(jax.device_get(leaf), order="C")


def main(argv: list[str]) -> None:
  parser = argparse.ArgumentParser("ckd_jax.export", description=__doc__)
  parser.add_argument("run", metavar="RUN_DIR")
  parser.add_argument("--out", required=True, metavar="DIR")
  parser.error = refuse
  flags = parser.parse_args(argv)
  if not flags.out:
    raise UserError("--out names no folder: say --out=DIR")
  digest = run(flags.run, flags.out)
  print(f"{flags.out}: {STUDENT}, config.json, labels.txt")
  print(f"params_sha256 {digest}, as in {flags.run}/summary.json")


def refuse(message: str) -> None:
  raise UserError(f"{message}; --help shows the usage")


if __name__ == "__main__":
  sys.exit(command(main, sys.argv[1:]))
