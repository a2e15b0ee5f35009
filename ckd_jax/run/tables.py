"""Reads existing answers: a table, a foreign file, an array."""

import numpy as np
from etils import epath

from ckd_jax import table
from ckd_jax.data import Dataset
from ckd_jax.errors import UserError
from ckd_jax.system import hosts
from ckd_jax.table import Subject, Table
from ckd_jax.teacher import Asking


def given_table(asking: Asking, dataset: Dataset) -> Table:
  """Checks the array or the Table of a Python program.

  Args:
    asking: whose `given` is a Table, or float[n, classes] about the training
      images in their order, of its `kind`.
    dataset: whose training images the answers are about.

  Raises:
    UserError: the answers do not fit the data set.
  """
  held = asking.given
  if not isinstance(held, Table):
    values = np.asarray(held)
    if values.ndim and len(values) != len(dataset.train.ids):
      raise UserError(
        f"there are {len(values)} answers for {len(dataset.train.ids)} training"
        f" {dataset.train.kind}: give one for each, in their order, or a Table"
        " with ids"
      )
    held = Table.from_arrays(
      values, ids=list(dataset.train.ids), kind=asking.kind
    )
  fingerprint = held.info["fingerprint"]  # arrays have none
  if fingerprint and fingerprint != dataset.train.fingerprint:
    raise UserError(
      f"answers are a table of {held.info['dataset']}/{held.info['split']}, not"
      f" of these {dataset.name} {dataset.train.kind}"
    )
  subject = Subject(dataset.name, "train", dataset.train, dataset.answer_names)
  found, wanted = table.Form.of(held.info), subject.form()
  if found.classes != wanted.classes:
    raise UserError(
      f"answers have {found.classes} {_columns(dataset)} and the data"
      f" {wanted.classes}"
    )
  _check_positions(found, wanted, "answers")
  if held.kind == "logits" and table.looks_like_probs(held.answers.values):
    table.warn_of_probs("answers", "teacher.kind=probs")
  if len(held.ids) > 1 and table.are_constant(held.answers.values):
    table.warn_of_constants("answers")
  return held


def read_table(
  asking: Asking, split_name: str, dataset: Dataset, workdir: epath.Path
) -> tuple[Table, epath.Path]:
  """A table of ours, or a foreign file that becomes one in `workdir`.

  Args:
    asking: whose `path` (of the split "train") or `test_path` is read.
    split_name: "train" or "test".
    dataset: whose images the answers must be about.
    workdir: where a foreign file's table is kept.

  Returns:
    The table and its folder.

  Raises:
    UserError: there is no table, or it belongs to another data set.
  """
  path = epath.Path(asking.path if split_name == "train" else asking.test_path)
  split = getattr(dataset, split_name)
  if not path.exists():
    raise UserError(f"no table at {path}: check teacher.path and table.*")
  if not path.is_dir():
    subject = Subject(dataset.name, split_name, split, dataset.answer_names)
    path = _imported(asking, path, subject, workdir)
  held = table.read(path)
  subject = Subject(dataset.name, split_name, split, dataset.answer_names)
  found = [held.info["dataset"], held.info["split"]]
  if found != [dataset.name, split_name]:
    _check_fingerprint(held, path, split, dataset)
  # Of the same texts, cut into other tokens: say which.
  if list(held.info["class_names"]) != list(subject.class_names):
    raise UserError(f"{path} has other {_columns(dataset)} than {dataset.name}")
  _check_positions(table.Form.of(held.info), subject.form(), str(path))
  _check_fingerprint(held, path, split, dataset)
  return held, path


def _check_fingerprint(held: Table, path, split, dataset: Dataset) -> None:
  if held.info["fingerprint"] != split.fingerprint:
    raise UserError(
      f"{path} is a table of {held.info['dataset']}/"
      f"{held.info['split']}, not of these {dataset.name} {split.kind}"
    )


def _check_positions(found: table.Form, wanted: table.Form, what: str) -> None:
  if found.positions != wanted.positions:
    counts = (
      f"about {form.positions} tokens of each text"
      if form.positions
      else "about whole rows"
      for form in (found, wanted)
    )
    ours, theirs = counts
    raise UserError(f"{what}: answers {ours}, and the data want them {theirs}")


def _columns(dataset: Dataset) -> str:
  """What the numbers of an answer are about."""
  if dataset.index is not None and not dataset.index.pairs:
    return "dimensions"
  return "classes" if dataset.class_names else "tokens (dataset.text)"


def _imported(asking: Asking, file, subject: Subject, workdir) -> epath.Path:
  """Imports a foreign file into `workdir`, in the first process of several."""
  out = workdir / ("table" if subject.split_name == "train" else "table_test")
  if not hosts.first():
    return out
  if table.exists(out):
    if not table.read_info(out)["teacher"].startswith("file:"):
      raise UserError(
        f"{out} holds answers that were paid for: choose another --workdir for"
        " those of a file"
      )
    out.rmtree()  # the file may have been mended since
  table.import_file(file, subject, out, kind=asking.kind)
  return out
