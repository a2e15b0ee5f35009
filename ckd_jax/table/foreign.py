"""Imports answers that another tool wrote."""

import hashlib
import os
import re
from collections import Counter
from typing import Any

import jax
import numpy as np
from etils import epath

from ckd_jax.data import count, take
from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.system import console, files
from ckd_jax.table import formats
from ckd_jax.table.answers import Answers
from ckd_jax.table.info import Subject, new_info
from ckd_jax.table.store import append, exists
from ckd_jax.table.values import (
  are_constant,
  fits_half,
  looks_like_probs,
  validate,
  warn_of_constants,
  warn_of_probs,
)


def import_file(
  file: epath.PathLike,
  subject: Subject,
  out: epath.PathLike,
  *,
  array: str | None = None,
  kind: str = "logits",
  dtype: str | None = None,
  teacher: str | None = None,
) -> dict[str, Any]:
  """Makes a table from a file that another tool wrote.

  An array `embedding` or `<split>_embedding` is imported, too, for methods that
  compare embeddings; stderr lists the arrays that are not used.

  Args:
    file: .npz, .npy, .parquet, .safetensors or .csv; without ids its rows are
      in the split's order.
    subject: the images that the answers are about.
    out: folder of the new table.
    array: name of the answers, if not `logits`, `<split>_logits` or `values`.
    kind: of the answers, "logits", "log_probs" or "probs".
    dtype: of the stored arrays, "float16" or "float32"; default: as precise as
      needed.
    teacher: name of the teacher; default: the file and its sha256.

  Returns:
    The contents of table.json.

  Raises:
    UserError: the file is malformed or belongs to another data set, or another
      process writes into `out`.
  """
  _check_new(out)
  name = os.fspath(file)
  try:
    data = epath.Path(file).read_bytes()
  except OSError as error:
    raise UserError(f"cannot read {name}: {error.strerror or error}") from error
  try:
    place, answers = _parse(data, name, subject, array, kind)
    held = answers.values
    is_whole = not isinstance(held, TopK)
    if dtype == "float16" and is_whole and not fits_half(held):
      raise UserError("some |logit| > 65504: set --dtype=float32")
  except UserError as error:
    raise UserError(f"{name}: {error}") from error
  if kind == "logits" and looks_like_probs(held):
    warn_of_probs(name, "--kind=probs (teacher.kind=probs)")
  if count(held) > 1 and are_constant(held):
    warn_of_constants(name)
  known = np.asarray(subject.split.ids, str)
  info = new_info(
    subject.facts(),
    teacher=teacher or _file_name(name, data),
    missing=np.delete(known, place).tolist(),
    kind=kind if is_whole else "log_probs",
    form=subject.form(0 if is_whole else held.ids.shape[-1]),
  )
  new = files.absent(epath.Path(out))
  try:
    with files.lock(out, wait=False):
      _check_new(out)  # another import may have ended since
      return append(out, info, known[place].tolist(), answers, dtype=dtype)
  finally:
    files.remove_empty(epath.Path(out), new)


def _check_new(out: epath.PathLike) -> None:
  if exists(out):
    raise UserError(f"{out} already holds a table: choose another --out")


def _parse(
  data: bytes, name: str, subject: Subject, array: str | None, kind: str
) -> tuple[np.ndarray, Answers]:
  """Rows of the split, ascending, and the answers about them."""
  found = formats.read(
    data,
    name,
    subject.split_name,
    subject.class_names,
    array,
    len(subject.split.ids),
    subject.form().width,
  )
  ids, values, embedding, unused = found
  rows = count(values)
  if not rows:
    raise UserError("there is no row of answers: export it again")
  values = _valid(values, kind, subject)
  if embedding is not None and len(embedding) != rows:
    raise UserError(f"there are {len(embedding)} embeddings for {rows} answers")
  if unused:
    console.note(f"{name}: not used: {', '.join(unused)}")
  place = _places(ids, rows, subject.split, subject.split_name)
  order = np.argsort(place)  # one layout, whatever the order of the file
  if embedding is not None:
    embedding = embedding[order]
  return place[order], Answers(take(values, order), embedding)


def _valid(values: Any, kind: str, subject: Subject) -> Any:
  """The answers in float32, of the shape that this data set wants."""
  if isinstance(values, TopK):
    form = subject.form(values.ids.shape[-1])
    if jax.tree.map(np.shape, values) != form.shapes(count(values)):
      raise UserError(
        f"top_ids have shape {values.ids.shape}, not"
        f" [{', '.join(map(str, ('texts', *form.lead, 'k')))}], or"
        " top_log_probs and top_rest do not fit them"
      )
    form.check_kept(values)
    return values
  with np.errstate(over="ignore"):  # what overflows is refused as infinite
    values = values.astype(np.float32)
  form = subject.form()
  validate(values, kind, form.classes)
  if values.shape[1:-1] != form.lead:
    wanted = ", ".join(map(str, (*form.lead, form.classes)))
    raise UserError(f"answers have shape {values.shape}, not [rows, {wanted}]")
  return values


def _places(ids, count: int, split, split_name: str) -> np.ndarray:
  """For each row of a file, its row in the split."""
  if ids is None and count != len(split.ids):
    raise UserError(
      f"there are {count} rows without ids and the {split_name} split has"
      f" {len(split.ids)} {split.kind}: add ids, or choose another split"
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
