"""A teacher's answers, each beside the stable id of its image.

A table is a folder: `table.json` says what was asked of whom, `part-00000.npz`
and its followers hold ids and answers.

  python -m ckd_jax.table import FILE --dataset=cifar100 --split=train --out=DIR
  python -m ckd_jax.table show DIR
  python -m ckd_jax.table check DIR
"""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ckd_jax import errors
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs
from ckd_jax.table_import import import_file
from ckd_jax.table_store import (
  Table,
  append,
  digest,
  exists,
  fields,
  new_info,
  read,
  read_info,
  require,
  write_info,
)
from ckd_jax.table_values import KINDS, storage_dtype, validate

__all__ = [
  "KINDS",
  "Table",
  "append",
  "check",
  "digest",
  "exists",
  "fields",
  "import_file",
  "main",
  "new_info",
  "read",
  "read_info",
  "require",
  "rows",
  "storage_dtype",
  "validate",
  "write_info",
]


def rows(
  table: Table, ids: Sequence[str], num_classes: int | None = None
) -> Outputs:
  """The answers for `ids`, in their order, as stored.

  Args:
    table: as read.
    ids: str[n].
    num_classes: refuse a table of another number of classes.

  Returns:
    Outputs of NumPy arrays [n, ...]; `logits` holds what `info["kind"]` says.

  Raises:
    UserError: some images have no answer or two, or the classes do not fit.
  """
  position = {str(name): row for row, name in enumerate(table.ids)}
  if len(position) < len(table.ids):
    raise UserError("the table holds an image twice: see `table check`")
  absent = [str(name) for name in ids if str(name) not in position]
  if absent:
    raise UserError(
      f"{len(absent)} of {len(ids)} images have no answer in the table,"
      f" {absent[0]} among them"
    )
  classes = table.outputs.logits.shape[1]
  if num_classes not in (None, classes):
    raise UserError(
      f"the table has {classes} classes and the data set {num_classes}"
    )
  index = np.asarray([position[str(name)] for name in ids], np.int64)
  return jax.tree.map(lambda array: array[index], table.outputs)


def check(
  path: epath.PathLike, split: Any = None
) -> tuple[dict[str, Any], bool]:
  """Looks for what makes a table unfit for training.

  Args:
    path: the table's folder.
    split: its `data.Split`, to compare with the labels; optional.

  Returns:
    A report: rows, missing_ids, duplicate_ids, non_finite_rows (NaN or
    infinite; -inf, a class ruled out, again in ruled_out_rows), agreement
    (of the top answer with the label, in percent; None without a split),
    mean_entropy (nats), digest and parts; and whether it is clean.

  Raises:
    UserError: the table cannot be read or belongs to another data set.
  """
  table = read(path)
  if split is not None:
    require(path, table.info, fingerprint=split.fingerprint)
  logits = table.outputs.logits.astype(np.float32)
  finite = np.isfinite(logits).all(1)
  report = {
    "rows": len(table.ids),
    "missing_ids": len(table.info["missing"]),
    "duplicate_ids": len(table.ids) - len(set(table.ids)),
    "non_finite_rows": int((~finite).sum()),
    "ruled_out_rows": int(np.isneginf(logits).any(1).sum()),
    "agreement": None if split is None else _agreement(table, split),
    "mean_entropy": _mean_entropy(logits, table.info["kind"]),
    "digest": table.info["digest"],
    "parts": {part["file"]: part["sha256"] for part in table.info["parts"]},
  }
  bad = ("missing_ids", "duplicate_ids", "non_finite_rows")
  return report, not any(report[key] for key in bad)


def _agreement(table: Table, split) -> float:
  labels = dict(zip(map(str, split.ids), split.labels, strict=True))
  truth = np.asarray([labels.get(str(name), -1) for name in table.ids])
  return float(100 * (table.outputs.logits.argmax(1) == truth).mean())


def _mean_entropy(values: np.ndarray, kind: str) -> float | None:
  """Of the rows without NaN or +inf, in nats."""
  values = values[~(np.isnan(values) | (values == np.inf)).any(1)]
  if not len(values):
    return None
  if kind != "probs":
    values = np.exp(values - values.max(1, keepdims=True))
  probs = values / values.sum(1, keepdims=True)
  logs = np.log(np.where(probs > 0, probs, 1))
  return float(-(probs * logs).sum(1).mean())


def main(argv: Sequence[str]) -> None:
  """The commands import, show and check."""
  flags = _parser().parse_args(argv)
  flags.run(flags)


def _import(flags) -> None:
  if not flags.out:
    raise UserError("--out names no folder: say --out=DIR")
  dataset = _dataset(flags.dataset, flags)
  split = getattr(dataset, flags.split)
  info = import_file(
    flags.file,
    split,
    flags.dataset,
    flags.split,
    dataset.class_names,
    flags.out,
    array=flags.array,
    kind=flags.kind,
    dtype=flags.dtype,
    teacher=flags.teacher,
  )
  count = sum(part["rows"] for part in info["parts"])
  print(f"{flags.out}: {count} answers of {info['teacher']}, {info['dtype']}")


def _show(flags) -> None:
  info = read_info(flags.table)
  facts = {
    **info,
    "class_names": len(info["class_names"]),
    "missing": len(info["missing"]),
    "rows": sum(part["rows"] for part in info["parts"]),
    "parts": len(info["parts"]),
  }
  _print(facts)


def _check(flags) -> None:
  info = read_info(flags.table)
  try:
    split = getattr(_dataset(info["dataset"], flags), info["split"])
  except UserError as error:
    if flags.dataset_path:
      raise
    print(f"compared with no data set: {error}", file=sys.stderr)
    split = None
  report, is_clean = check(flags.table, split)
  parts = report.pop("parts")
  if split is not None:
    report["agreement"] = f"{report['agreement']:.2f} %"
  _print(report | parts)
  if not is_clean:
    raise SystemExit(1)


def _print(facts: dict) -> None:
  width = max(map(len, facts))
  for key, value in facts.items():
    text = f"{value:.4f}" if isinstance(value, float) else value
    print(f"{key:<{width}}  {text}")


def _dataset(name: str, flags):
  from ckd_jax import data

  return data.load(name, path=flags.dataset_path, image_size=flags.image_size)


class _Parser(argparse.ArgumentParser):
  """Says what is wrong in one line instead of argparse's usage text."""

  def error(self, message: str):
    wrong = re.search(r"invalid choice: '(\w+)' \(choose from (.*)\)", message)
    if wrong:
      choices = re.findall(r"\w+", wrong[2])
      raise UserError(
        f"unknown {wrong[1]!r}: {errors.nearest(wrong[1], choices)}"
      )
    raise UserError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(prog="python -m ckd_jax.table", description=__doc__)
  commands = parser.add_subparsers(required=True, metavar="COMMAND")
  data_flags = _Parser(add_help=False)
  data_flags.add_argument("--dataset_path", help="where the images lie")
  data_flags.add_argument("--image_size", type=int)

  add = commands.add_parser
  command = add("import", parents=[data_flags], help="a file made elsewhere")
  command.set_defaults(run=_import)
  command.add_argument("file")
  command.add_argument("--dataset", required=True)
  command.add_argument("--split", default="train", choices=("train", "test"))
  command.add_argument("--out", required=True, help="the new table's folder")
  command.add_argument("--array", help="the name of the answers in the file")
  command.add_argument("--kind", default="logits", choices=KINDS)
  command.add_argument("--dtype", choices=("float16", "float32"))
  command.add_argument("--teacher", help="who answered")

  command = add("show", help="what a table holds")
  command.set_defaults(run=_show)
  command.add_argument("table")

  command = add("check", parents=[data_flags], help="is it fit for training?")
  command.set_defaults(run=_check)
  command.add_argument("table")
  return parser


if __name__ == "__main__":
  sys.exit(errors.command(main, sys.argv[1:]))
