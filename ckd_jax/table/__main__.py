"""The command `ckd-jax table`: imports, shows and checks a table."""

import sys
from collections.abc import Sequence
from typing import Any

from ckd_jax import errors
from ckd_jax.config import Parser, from_flags
from ckd_jax.errors import UserError
from ckd_jax.table import KINDS, Subject, check, import_file, read_info


def main(argv: Sequence[str]) -> None:
  """Imports, shows or checks, as the first argument says."""
  flags = _parser().parse_args(argv)
  flags.run(flags)


_TABLE = """\
Imports, shows and checks a table of a teacher's answers.

  ckd-jax table import FILE --dataset=cifar100 --split=train --out=DIR
  ckd-jax table show DIR
  ckd-jax table check DIR

(The same: python -m ckd_jax.table.)
"""
_IMPORT = """\
Makes a table from answers that another tool wrote: .npz, .npy, .parquet,
.safetensors or .csv, never a pickle.

  ckd-jax table import answers.npz --dataset=cifar100 --out=table
  ckd-jax table import answers.npz --config=configs/names.py --out=table
  ckd-jax table import probs.csv --kind=probs --dataset=npz \\
    --dataset_path=set.npz --out=table

Arrays of the file, or columns:
  logits, SPLIT_logits, values
                              [rows, classes], answers of any --kind;
                              of a language model [texts, length, vocabulary]
  top_ids, top_log_probs      [texts, length, k], the most probable tokens of a
                              language model; top_rest [texts, length], the
                              probability of all others, or what is left of 1
  ids, SPLIT_ids              names of the images, or the numbers in them;
                              without ids rows are in the data set's own order
  embedding, SPLIT_embedding  [rows, dim], optional, for icd, rkd and the like
In .parquet and .csv also one column per class, named as the class or numbered.
"""
_SHOW = """\
Prints what table.json says: who was asked, about what, how much it cost.

  ckd-jax table show runs/NAME/table
"""
_CHECK = """\
Reads every byte and compares with the data set. Prints rows, missing and
duplicate ids, rows that are not finite, agreement with the labels, mean entropy
and digests; exits with 0 only if the table is fit for training.

  ckd-jax table check runs/NAME/table
  ckd-jax table check runs/NAME/table --config=configs/names.py
"""


def _import(flags) -> None:
  if not flags.out:
    raise UserError("--out names no folder: set --out=DIR")
  if bool(flags.dataset) == bool(flags.config):
    raise UserError(
      "name the data set: --dataset=NAME, or --config=FILE of the run"
    )
  dataset = _dataset(flags.dataset, flags)
  subject = Subject(
    dataset.name,
    flags.split,
    getattr(dataset, flags.split),
    dataset.answer_names,
  )
  info = import_file(
    flags.file,
    subject,
    flags.out,
    array=flags.array,
    kind=flags.kind,
    dtype=flags.dtype,
    teacher=flags.teacher,
  )
  count = sum(part["rows"] for part in info["parts"])
  fields = ", ".join(info["fields"])
  print(
    f"{flags.out}: {count} answers of {info['teacher']}, {info['dtype']}"
    f" ({fields})"
  )


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
    hint = "" if flags.config else "; or name --config=FILE of the run"
    print(f"not compared with a data set: {error}{hint}", file=sys.stderr)
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

  if flags.config:
    config: Any = from_flags([f"--config={flags.config}"])[0]
    section = config.dataset
    text = section.get("text")
    return data.load(
      section.name,
      path=flags.dataset_path or section.path,
      image_size=section.get("image_size"),
      text=None if text is None else data.TextOptions(**text),
    )
  # Tokens do not matter: answers are about the texts themselves.
  text = data.TextOptions() if name == "text" else None
  return data.load(
    name, path=flags.dataset_path, image_size=flags.image_size, text=text
  )


def _parser() -> Parser:
  parser = Parser("ckd-jax table", _TABLE)
  commands = parser.add_subparsers(required=True, metavar="COMMAND")
  data_flags = Parser(add_help=False)
  flag = data_flags.add_argument
  flag(
    "--config",
    metavar="FILE",
    help="whose data set it is; wanted where a language model's tokens count",
  )
  flag("--dataset_path", metavar="PATH", help="dataset.path of the config")
  flag(
    "--image_size",
    type=int,
    metavar="PIXELS",
    help="dataset.image_size of the config",
  )

  add = commands.add_parser
  command = add(
    "import",
    parents=[data_flags],
    help="makes a table from a file of another tool",
    description=_IMPORT,
  )
  _add_import(command)
  command = add("show", help="prints what table.json says", description=_SHOW)
  command.set_defaults(run=_show)
  command.add_argument("table", metavar="DIR", help="the table's folder")
  command = add(
    "check",
    parents=[data_flags],
    help="checks whether it is fit for training",
    description=_CHECK,
  )
  command.set_defaults(run=_check)
  command.add_argument("table", metavar="DIR", help="the table's folder")
  return parser


def _add_import(command: Parser) -> None:
  command.set_defaults(run=_import)
  flag = command.add_argument
  flag("file", metavar="FILE", help="the file of answers")
  flag("--dataset", help="dataset.name of the config")
  flag(
    "--split",
    default="train",
    choices=("train", "test"),
    help="which images the answers are about (default: train)",
  )
  flag("--out", required=True, metavar="DIR", help="the new table's folder")
  flag("--array", metavar="NAME", help="name of the answers, if not as above")
  flag(
    "--kind",
    default="logits",
    choices=KINDS,
    help="what the answers are: logits (default), natural logarithms of"
    " probabilities, or probabilities",
  )
  flag(
    "--dtype",
    choices=("float16", "float32"),
    help="what is stored (default: float16 where that is precise enough)",
  )
  flag(
    "--teacher",
    metavar="NAME",
    help="who answered (default: the file and its sha256)",
  )


if __name__ == "__main__":
  sys.exit(errors.command(main, sys.argv[1:]))
