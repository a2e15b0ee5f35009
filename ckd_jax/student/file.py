"""A student as one safetensors file, whose loading runs no code.

Tensors are named by their tree paths, `params/...` and `state/...`; name,
classes and preprocessing of the network are in the metadata, and a digest of
both. A run or an export says beside the file which weights it wrote: `load`
compares, whoever reads.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.system import files, sealed, tensors

STUDENT = "student.safetensors"
_DEEPEST = 100  # levels of a tree; JAX recurses into them


def params_sha256(params, state) -> str:
  """sha256 of every leaf's path, dtype, shape and bytes, in tree order.

  It is the same for JAX and NumPy arrays, and after `save` and `load`.

  Args:
    params: pytree of arrays.
    state: pytree of arrays, the batch statistics.
  """
  digest = hashlib.sha256()
  for path, leaf in _leaves(params, state):
    digest.update(f"{path} {leaf.dtype} {leaf.shape}\n".encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


def save(path, params, state, metadata: dict[str, str]) -> None:
  """Writes a student; a kill leaves the old file or the new one.

  Args:
    path: the .safetensors file.
    params: pytree of arrays.
    state: pytree of arrays, the batch statistics.
    metadata: model, classes, class_names, mean, std and image_shape as strings,
      JSON where they are not plain.
  """
  leaves = dict(_leaves(params, state))
  metadata = sealed.seal(metadata, params_sha256(params, state))
  files.write(path, _in_order(safetensors.numpy.save(leaves, metadata)))


def _in_order(data: bytes) -> bytes:
  """The same file, its header sorted: safetensors orders metadata at random."""
  length = int.from_bytes(data[:8], "little")
  header = json.loads(data[8 : 8 + length])
  text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
  return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load(path) -> tuple[dict, dict, dict[str, str]]:
  """Reads a student.

  Args:
    path: the .safetensors file.

  Returns:
    (params, state, metadata); the first two are nested dicts of NumPy arrays.

  Raises:
    UserError: there is no such file, it is cut or not a student, or it is not
      what the run or the export around it wrote.
  """
  path = epath.Path(path)
  try:
    data = files.read(path)
    trees = _nest(tensors.read(data))
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror or error}") from error
  except (safetensors.SafetensorError, ValueError) as error:
    raise UserError(
      f"{path} is cut or is not a student of ckd_jax ({error}); give the "
      f"{STUDENT} of a finished run"
    ) from error
  _check_digests(path, params_sha256(**trees), metadata)
  metadata.pop(sealed.KEY, None)
  return trees["params"], trees["state"], metadata


def _check_digests(path: epath.Path, found: str, metadata: dict) -> None:
  """Compares with the file's own digest, and with the one written beside it."""
  for name in ("summary.json", "config.json"):  # of a run, of an export
    wanted = read_object(path.parent / name).get("params_sha256", found)
    if wanted != found:
      raise UserError(
        f"{path} is not what the run wrote: sha256 {found[:12]}..., in {name} "
        f"{str(wanted)[:12]}...; restore it from a copy, or delete {name} and"
        " run it again"
      )
  if not sealed.is_whole(metadata, found):
    raise UserError(
      f"{path} was changed after it was written: restore it from a copy, or "
      "run it again"
    )


def read_object(path: epath.Path) -> dict[str, Any]:
  """The object in a .json file beside a student; {} without a file.

  Raises:
    UserError: the file is damaged.
  """
  try:
    facts = json.loads(files.read(path)) if path.exists() else {}
    if not isinstance(facts, dict) or not sealed.is_whole(facts):
      raise ValueError("it is not what was written")
  except (OSError, RecursionError, ValueError) as error:
    raise UserError(
      f"{path} is damaged: restore it from a copy, or run it again"
    ) from error
  return facts


def _nest(arrays: dict[str, np.ndarray]) -> dict[str, dict]:
  """Arrays by their paths as nested dicts."""
  trees: dict[str, Any] = {"params": {}, "state": {}}
  for name, array in arrays.items():
    *parents, last = map(unquote, name.split("/"))
    if len(parents) > _DEEPEST:
      raise ValueError(f"it holds a tensor {len(parents)} levels deep")
    if not parents or parents[0] not in trees:
      raise ValueError(f"it holds {name!r}")
    tree = trees
    for key in parents:
      tree = tree.setdefault(key, {})
      if not isinstance(tree, dict):
        raise ValueError(f"{name!r} is inside a tensor")
    if last in tree:
      raise ValueError(f"{name!r} is a tensor and holds others")
    tree[last] = array
  return trees


def check_holdable(params, state) -> None:
  """Refuses a student that cannot be saved and restored.

  Args:
    params: tree of arrays, or of their shapes (`jax.ShapeDtypeStruct`).
    state: tree of the batch statistics, arrays or shapes.

  Raises:
    UserError: a leaf is not an array of numbers, a container is not a dict, or
      two leaves have the same name.
  """
  for name, tree in (("params", params), ("state", state)):
    _check_tree(tree, name)


def _check_tree(tree: Any, name: str) -> None:
  if isinstance(tree, dict):
    if len({str(key) for key in tree}) < len(tree):
      raise UserError(f"the student's {name} has two keys of one name")
    for key, part in tree.items():
      _check_tree(part, f"{name}/{key}")
    return
  dtype = getattr(tree, "dtype", None)
  if dtype is None or not hasattr(tree, "shape"):
    raise UserError(
      f"the student's {name} is a {type(tree).__name__}, which its file cannot "
      "hold: Model.init must return nested dicts of arrays"
    )
  if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
    raise UserError(
      f"the student's {name} is a random key, which its file cannot hold: draw "
      "dropout from the `key` of Model.apply"
    )
  if np.dtype(dtype) not in map(np.dtype, tensors.DTYPES.values()):
    raise UserError(
      f"the student's {name} is of type {dtype}, which its file cannot hold"
    )


def _keys(where) -> tuple[str, ...]:
  """The keys of a path of jax, as strings."""
  return tuple(
    jax.tree_util.keystr((key,), simple=True, separator="/") for key in where
  )


def _leaves(params, state) -> Iterator[tuple[str, np.ndarray]]:
  """(path, array on the host), sorted by keys as JAX sorts dicts.

  A '/' inside a key (Haiku has them) is written %2F.
  """
  tree = {"params": params, "state": state}
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  for keys, leaf in sorted(
    ((_keys(where), leaf) for where, leaf in leaves), key=lambda pair: pair[0]
  ):
    path = "/".join(quote(key, safe="") for key in keys)
    yield path, np.asarray(jax.device_get(leaf), order="C")
