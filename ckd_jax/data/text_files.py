"""Rows of texts in a .tsv or .jsonl, perhaps compressed (.xz, .gz).

A .tsv has a header line; fields are split at the tab alone, quotes are ordinary
characters. Columns, or keys of each object, are `label` and `text`, and `text2`
where rows are pairs; others are not read. A language model's rows need no label
and may be the lines of a .txt.
"""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from ckd_jax.data.lazy import memory
from ckd_jax.errors import DAMAGED, UserError

_FORMATS = ("tsv", "jsonl", "txt")
_PACKED = {"": None, ".xz": lzma.open, ".gz": gzip.open}


class Texts(NamedTuple):
  """Rows of a split as they were read.

  Attributes:
    texts: str[n]; a tab parts a pair.
    labels: str[n]; empty ones of a language model.
    place: of the split, for messages.
    ids: str[n]; None: of rows.
  """

  texts: list[str]
  labels: list[str]
  place: str
  ids: Sequence[str] | None = None


def find(path: str) -> dict[str, Any]:
  """The files of a folder by the name of their split.

  Raises:
    UserError: there is no folder, or a split has two files.
  """
  folder = epath.Path(path)
  if not folder.is_dir():
    raise UserError(f"dataset.path: there is no folder {path}")
  files: dict[str, Any] = {}
  for file in sorted(folder.iterdir(), key=lambda file: file.name):
    stem = file.name.partition(".")[0]
    if not _form(file):
      continue
    if stem in files:
      raise UserError(
        f"{path} has {files[stem].name} and {file.name}: leave one of them"
      )
    files[stem] = file
  return files


def _form(file: Any) -> str:
  """What a file is by its name; "" if it cannot be read."""
  form, dot, packed = file.name.partition(".")[2].partition(".")
  return form if form in _FORMATS and dot + packed in _PACKED else ""


def read_file(file: Any, columns: tuple[str, ...], label: str | None) -> Texts:
  """Reads the rows of a file.

  Args:
    file: one that `find` found, or that a user named.
    columns: names of the text, or of both of a pair; (): `text`, and `text2` in
      the rows that have it.
    label: name of the label; None: rows are those of a language model.

  Raises:
    UserError: it is damaged, or a row lacks its text or its label.
  """
  texts, labels = [], []
  if _form(file) == "txt" and label:
    raise UserError(f"{file}: a .txt has no labels: give a .tsv or a .jsonl")
  for number, row in read_rows(file):
    wanted = columns or ("text", *({"text2"} & row.keys()))
    for key in (*([label] if label else []), *wanted):
      if row.get(key) is None:
        raise UserError(
          f"{file}: line {number} has no {key!r}, only"
          f" {', '.join(map(repr, _given(row))) or 'nothing'}"
        )
    pair = [row[key] for key in wanted]
    if not all(isinstance(text, str) for text in pair):
      raise UserError(f"{file}: the text of line {number} is no string")
    texts.append(joined(pair))
    labels.append(_label(row[label], f"{file}: line {number}") if label else "")
  return Texts(texts, labels, str(file))


def read_rows(file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
  """(number of its line, row) of a file.

  Raises:
    UserError: it is damaged, or its name is of no format.
  """
  rows = {"tsv": _table, "jsonl": _objects, "txt": _lines_alone}
  form = _form(file)
  if not form:
    raise UserError(
      f"{file} is no folder, and no NAME.tsv, .jsonl or .txt, perhaps with .xz"
      " or .gz"
    )
  return rows[form](file)


def _given(row: dict[str, Any]) -> list[str]:
  return sorted(key for key, value in row.items() if value is not None)


def joined(pair: Sequence[str]) -> str:
  """A text, or a pair with a tab between; tabs inside become spaces."""
  return "\t".join(text.replace("\t", " ") for text in pair)


def _label(value: Any, place: str) -> str:
  """A string, or a whole number, as a string."""
  known = isinstance(value, (str, int)) and not isinstance(value, bool)
  if not known or not str(value).strip():
    raise UserError(
      f"{place} has the label {value!r}: give a string or a whole number"
    )
  return str(value)


def _lines(file: Any) -> Iterator[tuple[int, str]]:
  """(number from 1, line) of a file, unpacked as it is read."""
  unpack = _PACKED.get("." + file.name.rpartition(".")[2])
  room = memory() // 8  # texts are kept, and their tokens
  number = 0
  try:
    with file.open("rb") as raw:
      stream: Any = unpack(raw) if unpack else raw
      text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="\n")
      while line := text.readline(room):
        number, room = number + 1, room - len(line)
        if room <= 0:
          raise UserError(f"{file} holds more than this machine's memory")
        yield number, line.removesuffix("\n").removesuffix("\r")
  except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
    raise UserError(f"{file} cannot be read: {error}") from error


def _lines_alone(file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
  for number, line in _lines(file):
    yield number, {"text": line}


def _table(file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
  lines = _lines(file)
  header = next(lines, (1, ""))[1].split("\t")
  if len(set(header)) < len(header) or header == [""]:
    raise UserError(
      f"{file}: the first line is {header[:5]}: it names the columns, `label`,"
      " `text` and perhaps `text2`, with tabs between"
    )
  for number, line in lines:
    fields = line.split("\t")
    if len(fields) != len(header):
      raise UserError(
        f"{file}: line {number} has {len(fields)} fields, the header"
        f" {len(header)}"
      )
    yield number, dict(zip(header, fields, strict=True))


def _objects(file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
  for number, line in _lines(file):
    try:
      row = json.loads(line)
      row.keys()
    except DAMAGED as error:
      raise UserError(
        f"{file}: line {number} is no JSON object ({error})"
      ) from error
    yield number, row
