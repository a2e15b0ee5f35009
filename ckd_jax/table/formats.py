"""Finds ids and answers in npz, npy, parquet, safetensors and csv files."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ckd_jax import errors
from ckd_jax.data import read_header, read_members
from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.table import parquet
from ckd_jax.table.rows import rectangle

_Columns = Mapping[str, np.ndarray]
_VALUES = "values"  # answers of any kind
_WIDEST = 65_536  # numbers about one image, at most


class _Unpacked(Mapping):
  """The arrays of an .npz, each unpacked only if the images can explain it."""

  def __init__(self, data: bytes, images: int | None):
    self._members = read_members(io.BytesIO(data))
    self._arrays = np.load(io.BytesIO(data), allow_pickle=False)
    self._images = images

  def __getitem__(self, key: str) -> np.ndarray:
    shape = self._members[key].shape
    images = self._images
    if images is not None and math.prod(shape) > images * _WIDEST:
      raise UserError(
        f"{key!r} has shape {shape}, too much for {images} rows: it is not"
        " unpacked"
      )
    return self._arrays[key]

  def __iter__(self):
    return iter(self._members)

  def __len__(self) -> int:
    return len(self._members)


class Found(NamedTuple):
  """The arrays of a file.

  Attributes:
    ids: str or int [rows]; None where the file has none.
    values: float[rows, classes], the answers; of a language model float[rows,
      length, vocabulary], or a TopK.
    embedding: float32[rows, dim], the teacher's; None where the file has none.
    unused: names of further arrays that may belong to the same images.
  """

  ids: np.ndarray | None
  values: Any
  embedding: np.ndarray | None
  unused: list[str]


def read(
  data: bytes,
  name: str,
  split_name: str,
  class_names: Sequence[str],
  array: str | None = None,
  images: int | None = None,
  width: int = 0,
) -> Found:
  """Finds ids, answers and embeddings in the bytes of a file.

  Args:
    data: the bytes of the whole file.
    name: the name of the file, whose ending gives the format.
    split_name: the answers are `logits`, `<split>_logits` or `values`, whatever
      their kind; the split is also looked for in `<split>_ids` and
      `<split>_embedding`.
    class_names: in the data set's order, into which columns of these names are
      put.
    array: name of the answers, if it is another one.
    images: of the split: an array with more rows is not unpacked; None is no
      limit.
    width: numbers that an answer about one image may have.

  Raises:
    UserError: the file is cut, empty, pickled, or not what its ending says;
      the message does not name the file.
  """
  ending = os.path.splitext(name)[1].lower()
  if ending not in _READERS:
    hint = errors.nearest(ending, _READERS)
    raise UserError(f"files of type {ending!r} cannot be imported; {hint}")
  if not data:
    raise UserError("the file is empty: export the table again")
  if data[:1] == b"\x80":
    raise UserError(
      "this is a pickle, which can run code and is never loaded: save the"
      " arrays with numpy.savez"
    )
  try:
    if images is not None:  # a wide answer counts as several images
      images *= max(1, -(-width // _WIDEST))
    columns = _READERS[ending](data, class_names, images)
    return _find(columns, split_name, array)
  except UserError:
    raise
  except Exception as error:  # a parser of damaged bytes may raise anything
    if "allow_pickle" in str(error):
      raise UserError(
        "it holds pickled Python objects, which are never loaded: save plain"
        " numbers and strings"
      ) from error
    reason = " ".join(f"{error}".split())[:200] or type(error).__name__
    raise UserError(
      f"it cannot be read as {ending[1:]} ({reason}): it is cut, damaged or of"
      " another format; export it again"
    ) from error


def _find(columns: _Columns, split_name: str, array: str | None) -> Found:
  wanted = {
    "values": [array] if array else ["logits", f"{split_name}_logits", _VALUES],
    "ids": [f"{split_name}_ids", "ids", "id"],
    "embedding": [f"{split_name}_embedding", "embedding"],
    "top_ids": [f"{split_name}_top_ids", "top_ids"],
    "top_log_probs": [f"{split_name}_top_log_probs", "top_log_probs"],
    "top_rest": [f"{split_name}_top_rest", "top_rest"],
  }
  keys = {
    name: next((key for key in names if key in columns), None)
    for name, names in wanted.items()
  }
  others = ("train_", "test_", "val_", "validation_")
  unused = [
    key
    for key in columns
    if key not in keys.values()
    and (key.startswith(f"{split_name}_") or not key.startswith(others))
  ]
  if keys["values"] is None and keys["top_ids"] and keys["top_log_probs"]:
    kept = ("top_ids", "top_log_probs", "top_rest")
    found: list[Any] = [keys[key] for key in kept]
    values = _kept([key and columns[key] for key in found])
  else:
    values = _values(columns, keys["values"], wanted["values"])
  return Found(
    ids=_ids(columns, keys["ids"]),
    values=values,
    embedding=_embedding(columns, keys["embedding"]),
    unused=sorted(unused),
  )


def _values(
  columns: _Columns, found: str | None, wanted: list[str]
) -> np.ndarray:
  if found is None:
    raise UserError(
      f"no array {' or '.join(map(repr, wanted))}: import it with"
      f" --array=NAME, one of {', '.join(columns)}"
    )
  values = np.asarray(columns[found])
  if values.dtype.name == "bfloat16":
    values = values.astype(np.float32)
  if values.dtype.kind not in "fiu":
    raise UserError(f"{found!r} holds {values.dtype}, not numbers")
  if values.ndim not in (2, 3):
    raise UserError(f"{found!r} has shape {values.shape}, not [rows, classes]")
  return values


def _kept(arrays: list[Any]) -> TopK:
  """The most probable tokens; without the rest it is what is left of 1."""
  ids, log_probs = map(np.asarray, arrays[:2])
  rest = None if arrays[2] is None else np.asarray(arrays[2])
  numbers = [log_probs, *([] if rest is None else [rest])]
  if ids.dtype.kind not in "iu" or any(x.dtype.kind != "f" for x in numbers):
    raise UserError("top_ids are integers, top_log_probs and top_rest floats")
  log_probs = log_probs.astype(np.float32)
  if rest is None:
    named = np.exp(log_probs.astype(np.float64)).sum(-1)
    rest = np.maximum(1 - named, 0)
  return TopK(ids.astype(np.int32), log_probs, rest.astype(np.float32))


def _embedding(columns: _Columns, found: str | None) -> np.ndarray | None:
  if found is None:
    return None
  embedding = np.asarray(columns[found])
  if embedding.dtype.name == "bfloat16":
    embedding = embedding.astype(np.float32)
  if embedding.dtype.kind not in "fiu" or embedding.ndim != 2:
    raise UserError(
      f"{found!r} has shape {embedding.shape} and type {embedding.dtype}, not"
      " numbers [rows, dim]"
    )
  if not np.isfinite(embedding).all():
    raise UserError(f"{found!r} holds NaN or infinite numbers")
  return embedding.astype(np.float32)


def _ids(columns: _Columns, found: str | None) -> np.ndarray | None:
  if found is None:
    return None
  ids = np.asarray(columns[found])
  if ids.dtype.kind == "S":
    ids = np.char.decode(ids, "utf-8")
  if ids.dtype.kind not in "Uiu" or ids.ndim != 1:
    raise UserError(
      f"{found!r} must be a list of strings or integers, not {ids.dtype}"
      f" of shape {ids.shape}"
    )
  return ids


def _npz(data: bytes, class_names, images) -> _Columns:
  del class_names
  if data[:4] != b"PK\x03\x04":
    raise ValueError("not an npz archive")
  return _Unpacked(data, images)


def _npy(data: bytes, class_names, images) -> _Columns:
  del class_names, images
  if data[:6] != b"\x93NUMPY":
    raise ValueError("not an npy file")
  read_header(io.BytesIO(data), len(data))  # it may lie
  return {_VALUES: np.load(io.BytesIO(data), allow_pickle=False)}


def _safetensors(data: bytes, class_names, images) -> _Columns:
  del class_names, images
  import safetensors.numpy

  return safetensors.numpy.load(data)


def _parquet(data: bytes, class_names, images) -> _Columns:
  return _one_array(parquet.read(data, images, _WIDEST), class_names)


def _csv(data: bytes, class_names, images) -> _Columns:
  del images
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise UserError("not a text file in UTF-8") from error
  header, *lines = [line for line in csv.reader(io.StringIO(text)) if line]
  if all(map(_is_number, header)) and header != _numbered(len(header)):
    header, lines = _numbered(len(header)), [header, *lines]
  if len(set(header)) < len(header):
    raise UserError("two columns have the same name")
  for number, line in enumerate(lines, 2):
    if len(line) != len(header):
      raise UserError(
        f"row {number} has {len(line)} fields, not {len(header)}: cut or"
        " damaged"
      )
  if not lines:
    raise UserError("there is a header and no row")
  columns = {}
  for key, cells in zip(header, zip(*lines, strict=True), strict=True):
    if key in ("id", "ids"):
      columns[key] = np.asarray(cells)
    elif cells[0].startswith("["):
      rows = [json.loads(cell) for cell in cells]
      lengths = np.asarray([len(row) for row in rows])
      flat = np.asarray([value for row in rows for value in row])
      columns[key] = rectangle(flat, lengths, key)
    else:
      bad = next((cell for cell in cells if not _is_number(cell)), None)
      if bad is not None:
        raise UserError(f"column {key!r} holds {bad!r}, which is not a number")
      columns[key] = np.asarray(cells, np.float64)
  return _one_array(columns, class_names)


def _is_number(cell: str) -> bool:
  try:
    float(cell)
  except ValueError:
    return False
  return True


def _numbered(count: int) -> list[str]:
  return [str(number) for number in range(count)]


def _one_array(columns: dict, class_names: Sequence[str]) -> _Columns:
  """Joins one column per class into `values`, in the data set's class order."""
  if any(column.ndim == 2 for column in columns.values()):
    return columns
  ids = {key: columns[key] for key in ("id", "ids") if key in columns}
  keys = [key for key in columns if key not in ids]
  if set(class_names) <= set(keys):
    keys = list(class_names)
  else:
    numbers = {key: re.findall(r"\d+$", key) for key in keys}
    if all(numbers.values()):  # "class_10" stands before "class_2" in a file
      keys.sort(key=lambda key: int(numbers[key][0]))
  if not keys:
    raise UserError("there is no column of answers")
  return ids | {_VALUES: np.stack([columns[key] for key in keys], axis=1)}


_READERS: dict[str, Callable[[bytes, Sequence[str], Any], _Columns]] = {
  ".npz": _npz,
  ".npy": _npy,
  ".parquet": _parquet,
  ".safetensors": _safetensors,
  ".csv": _csv,
}
