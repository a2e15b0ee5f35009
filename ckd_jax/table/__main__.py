"""What to do with a table of answers, from the command line.

python -m ckd_jax.table import FILE --dataset=cifar100 --split=train --out=DIR
python -m ckd_jax.table show DIR
python -m ckd_jax.table check DIR
"""

import argparse
import re
import sys
from collections.abc import Sequence

from ckd_jax import errors
from ckd_jax.errors import UserError
from ckd_jax.table import KINDS, Subject, check, import_file, read_info


def main(argv: Sequence[str]) -> None:
  """The commands import, show and check."""
  flags = _parser().parse_args(argv)
  flags.run(flags)


def _import(flags) -> None:
  if not flags.out:
    raise UserError("--out names no folder: say --out=DIR")
  dataset = _dataset(flags.dataset, flags)
  subject = Subject(
    flags.dataset,
    flags.split,
    getattr(dataset, flags.split),
    dataset.class_names,
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
