"""Makes a table from answers that another tool wrote."""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs
from ckd_jax.table import formats
from ckd_jax.table.store import append, exists, new_info
from ckd_jax.table.values import fits_half, validate


def import_file(
  file: epath.PathLike,
  split: Any,
  dataset_name: str,
  split_name: str,
  class_names: Sequence[str],
  out: epath.PathLike,
  *,
  array: str | None = None,
  kind: str = "logits",
  dtype: str | None = None,
  teacher: str | None = None,
) -> dict[str, Any]:
  """Makes a table from a file that another tool wrote.

  Args:
    file: .npz, .npy, .parquet, .safetensors or .csv; without ids its rows are
      in the split's order.
    split: a `data.Split`, in canonical order.
    dataset_name: written into the table.
    split_name: as is.
    class_names: as is, in the order of the file's columns.
    out: the new table's folder.
    array: the name of the answers, if not `logits` or `<split>_logits`.
    kind: "logits", "log_probs" or "probs".
    dtype: "float16" or "float32"; default: as precise as needed.
    teacher: who answered; default: the file and its sha256.

  Returns:
    What table.json says.

  Raises:
    UserError: the file is malformed or belongs to another data set.
  """
  if exists(out):
    raise UserError(f"{out} already holds a table: choose another --out")
  name = os.fspath(file)
  try:
    data = epath.Path(file).read_bytes()
  except OSError as error:
    raise UserError(f"cannot read {name}: {error.strerror or error}") from error
  try:
    ids, values = formats.read(data, name, split_name, class_names, array)
    if not len(values):
      raise UserError("there is no row of answers: export it again")
    with np.errstate(over="ignore"):  # what overflows is refused as infinite
      values = values.astype(np.float32)
    validate(values, kind, len(class_names))
    if dtype == "float16" and not fits_half(values):
      raise UserError("some |logit| > 65504: say --dtype=float32")
    place = _places(ids, len(values), split, split_name)
  except UserError as error:
    raise UserError(f"{name}: {error}") from error
  order = np.argsort(place)  # one layout, whatever the order of the file
  place, values = place[order], values[order]
  if kind == "logits" and _looks_like_probs(values):
    print(
      f"{name}: these look like probabilities; if so, say kind=probs",
      file=sys.stderr,
    )
  known = np.asarray(split.ids, str)
  info = new_info(
    dataset=dataset_name,
    split=split_name,
    fingerprint=split.fingerprint,
    class_names=class_names,
    teacher=teacher or _file_name(name, data),
    missing=np.delete(known, place),
    kind=kind,
  )
  return append(out, info, known[place], Outputs(values), dtype=dtype)


def _places(ids, count: int, split, split_name: str) -> np.ndarray:
  """The row in the split of each row of a file."""
  if ids is None and count != len(split.ids):
    raise UserError(
      f"there are {count} rows without ids and the {split_name} split has"
      f" {len(split.ids)} images: add ids, or choose another split"
    )
  if ids is None:
    return np.arange(count)
  if len(ids) != count:
    raise UserError(f"there are {len(ids)} ids for {count} rows")
  return locate(ids, split.ids)


def _file_name(name: str, data: bytes) -> str:
  return (
    f"file:{os.path.basename(name)}:{hashlib.sha256(data).hexdigest()[:16]}"
  )


def _looks_like_probs(values: np.ndarray) -> bool:
  sums = values.sum(1, dtype=np.float64)
  return values.min() >= 0 and np.abs(sums - 1).max() < 1e-2


def locate(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
  """The row of each id in a split.

  Args:
    ids: str[rows], or int[rows] for the numbers at the end of the split's ids.
    known: str[images], the split's ids.

  Returns:
    int[rows].

  Raises:
    UserError: an id comes twice or is not one of the split's.
  """
  names = [str(name) for name in ids]
  if len(set(names)) < len(names):
    twice = next(n for n, times in Counter(names).items() if times > 1)
    count = len(names) - len(set(names))
    raise UserError(f"{count} ids come twice, {twice} among them")
  rows = {str(name): row for row, name in enumerate(known)}
  if not rows.keys() & set(names) and all(map(str.isdecimal, names)):
    rows = {_number(name): row for name, row in rows.items()}
    names = [str(int(name)) for name in names]
  strange = [name for name in names if name not in rows]
  if len(strange) == len(names):
    raise UserError(
      f"no id is one of this split's ({names[0]} here, {known[0]} there):"
      " it belongs to another data set or split"
    )
  if strange:
    raise UserError(
      f"{len(strange)} of {len(names)} ids are not in the split,"
      f" {strange[0]} among them"
    )
  return np.asarray([rows[name] for name in names])


def _number(name: str) -> str:
  digits = re.search(r"\d+$", name)
  return str(int(digits.group())) if digits else name
