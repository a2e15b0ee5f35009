"""Answers in memory: what a Python program holds of a table."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.table.answers import Answers
from ckd_jax.table.info import new_info
from ckd_jax.table.store import append, exists, read_answers
from ckd_jax.table.values import validate


class Table(NamedTuple):
  """Answers in memory, each beside the id of its image.

    table = Table.from_arrays(logits, ids=["train_0", "train_7"])
    table.write("answers"); Table.read("answers").kind

  Attributes:
    ids: str[rows].
    answers: NumPy arrays [rows, ...] as stored.
    info: what table.json says.
  """

  ids: np.ndarray
  answers: Answers
  info: dict[str, Any]

  @property
  def kind(self) -> str:
    """What the values are: "logits", "log_probs" or "probs"."""
    return self.info["kind"]

  @classmethod
  def read(cls, path: epath.PathLike) -> "Table":
    """Reads a table's folder and checks every part's sha256.

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
    """A table of answers that a program holds.

    Args:
      values: float[rows, classes].
      ids: of the images; default: train_0, train_1, ...
      kind: "logits", "log_probs" or "probs".
      embedding: float[rows, dim], of the teacher, if it is known.
      class_names: in the order of the columns; default: their numbers.
      teacher: who answered.

    Raises:
      UserError: the values cannot be what they are said to be.
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
      raise UserError(
        f"answers are {values.dtype} of shape {values.shape}, not numbers "
        "[images, classes]"
      )
    values = _half_or_single(values)
    names = range(values.shape[1]) if class_names is None else class_names
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
    )
    return cls(np.asarray(ids, str), Answers(values, embedding), info)

  def write(self, path: epath.PathLike) -> None:
    """Writes the table into a folder that holds none yet.

    Args:
      path: the folder, made if absent.

    Raises:
      UserError: the folder holds a table, or cannot be written.
    """
    if exists(path):
      raise UserError(f"{path} already holds a table: choose another folder")
    info = {**self.info, "parts": [], "fields": [], "dtype": None}
    append(path, info, list(self.ids), self.answers)

  def rows(self, ids: Sequence[str]) -> Answers:
    """Looks up answers by image.

    Args:
      ids: str[n].

    Returns:
      NumPy arrays [n, ...] in the order of `ids`; the values are of `kind`.

    Raises:
      UserError: some images have no answer, or two.
    """
    position = {str(name): row for row, name in enumerate(self.ids)}
    if len(position) < len(self.ids):
      raise UserError("the table holds an image twice: see `table check`")
    absent = [str(name) for name in ids if str(name) not in position]
    if absent:
      raise UserError(
        f"{len(absent)} of {len(ids)} images have no answer in the table,"
        f" {absent[0]} among them"
      )
    index = np.asarray([position[str(name)] for name in ids], np.int64)
    return jax.tree.map(lambda array: array[index], self.answers)


def _half_or_single(values: np.ndarray) -> np.ndarray:
  """float16 as it is and anything else in float32: devices hold no float64."""
  return values if values.dtype == np.float16 else values.astype(np.float32)


def read(path: epath.PathLike) -> Table:
  """`Table.read`, for code that has no use for the name of the class."""
  return Table(*read_answers(path))
