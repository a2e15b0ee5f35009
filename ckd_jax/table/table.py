"""A table in memory."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.table.answers import Answers
from ckd_jax.table.form import Form
from ckd_jax.table.info import new_info
from ckd_jax.table.store import append, exists, read_answers
from ckd_jax.table.values import validate


class Table(NamedTuple):
  """Answers in memory, each with the id of its image.

    table = Table.from_arrays(logits, ids=["train_0", "train_7"])
    table.write("answers"); Table.read("answers").kind

  Attributes:
    ids: str[rows], ids of the images.
    answers: NumPy arrays [rows, ...], as stored.
    info: contents of table.json.
  """

  ids: np.ndarray
  answers: Answers
  info: dict[str, Any]

  @property
  def kind(self) -> str:
    """The kind of the values: "logits", "log_probs" or "probs"."""
    return self.info["kind"]

  @classmethod
  def read(cls, path: epath.PathLike) -> "Table":
    """Reads a table and checks the sha256 of every part.

    Args:
      path: folder of the table.

    Raises:
      UserError: there is no table or no row, or a file is missing or damaged.
    """
    return read(path)

  @classmethod
  def from_arrays(
    cls,
    values: np.ndarray,
    *,
    ids: Sequence[str] | None = None,
    kind: str = "logits",
    embedding: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    teacher: str = "arrays",
  ) -> "Table":
    """Makes a table of arrays.

    Args:
      values: float[rows, classes], the answers; of a language model
        float[rows, length, vocabulary].
      ids: str[rows], ids of the images; default: train_0, train_1, ...
      kind: of the values, "logits", "log_probs" or "probs".
      embedding: float[rows, dim], the teacher's embeddings, if known.
      class_names: in the order of the columns; default: their numbers.
      teacher: name of the teacher.

    Raises:
      UserError: the values are not of this kind, or shapes do not match.
    """
    values = np.asarray(values)
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiu":
      raise UserError(
        f"answers are {values.dtype} of shape {values.shape}, not numbers of"
        " shape [rows, classes], or [rows, length, vocabulary] of a language"
        " model: give one row for each image or text"
      )
    values = _half_or_single(values)
    names = range(values.shape[-1]) if class_names is None else class_names
    validate(values.astype(np.float32), kind, len(names))
    if ids is None:
      ids = [f"train_{row}" for row in range(len(values))]
    if len(ids) != len(values) or len(set(map(str, ids))) < len(ids):
      raise UserError(f"{len(values)} answers need as many different ids")
    if embedding is not None:
      embedding = _half_or_single(np.asarray(embedding))
      if embedding.ndim != 2 or len(embedding) != len(values):
        raise UserError(
          f"embedding has shape {embedding.shape}, not"
          f" [{len(values)}, dim]: one row for each answer"
        )
    info = new_info(
      {
        "dataset": "arrays",
        "split": "train",
        "fingerprint": "",
        "class_names": [str(name) for name in names],
      },
      teacher=teacher,
      missing=[],
      kind=kind,
      form=Form(len(names), *values.shape[1:-1]),
    )
    return cls(np.asarray(ids, str), Answers(values, embedding), info)

  def write(self, path: epath.PathLike) -> None:
    """Writes the table to disk.

    Args:
      path: folder without a table, made if absent.

    Raises:
      UserError: the folder holds a table, or cannot be written.
    """
    if exists(path):
      raise UserError(f"{path} already holds a table: choose another folder")
    info = {**self.info, "parts": [], "fields": [], "dtype": None}
    append(path, info, list(self.ids), self.answers)

  def rows(self, ids: Sequence[str], kind: str = "images") -> Answers:
    """Looks up answers by image or text.

    Args:
      ids: str[n], ids of the rows.
      kind: what the rows are, "images" or "texts", for messages.

    Returns:
      NumPy arrays [n, ...] in the order of `ids`; the values are of `kind`.

    Raises:
      UserError: some rows have no answer, or two.
    """
    position = {str(name): row for row, name in enumerate(self.ids)}
    if len(position) < len(self.ids):
      one = {"images": "an image", "texts": "a text"}[kind]
      raise UserError(f"the table holds {one} twice: see `table check`")
    absent = [str(name) for name in ids if str(name) not in position]
    if absent:
      raise UserError(
        f"{len(absent)} of {len(ids)} {kind} have no answer in the table,"
        f" {absent[0]} among them"
      )
    index = np.asarray([position[str(name)] for name in ids], np.int64)
    found = jax.tree.map(lambda array: array[index], self.answers)
    numbers = jax.tree.leaves(found.values)
    bad = np.zeros(len(ids), bool)
    for array in numbers:  # one, or those of a TopK
      wrong = np.isnan(array) | (array == np.inf)
      bad |= wrong.any(tuple(range(1, array.ndim)))
    if bad.any():
      raise UserError(
        f"{bad.sum()} of {len(ids)} answers hold NaN or +inf, that of"
        f" {ids[int(bad.argmax())]} among them: see `table check`"
      )
    return found


def _half_or_single(values: np.ndarray) -> np.ndarray:
  """float16 unchanged, other types as float32: devices hold no float64."""
  return values if values.dtype == np.float16 else values.astype(np.float32)


def read(path: epath.PathLike) -> Table:
  """Same as `Table.read`."""
  return Table(*read_answers(path))
