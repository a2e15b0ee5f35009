"""What does a compiler say about a run on an accelerator that is not here?

  python experiments/compiled.py [--targets=v5e:1x1] [--devices=0]
    [--config=cifar100] [--students=resnet8] [--methods=ckd,icd]
    [--hyper=estimator=all] [--batches=128] [--rows=4096] [--launch=1]
    [--dtype=bfloat16] [--part=loss] [--top=20]

From shapes alone it compiles what a run launches, for a TPU topology (`pip
install -e '.[tpu]'`) or a described GPU (`pip install 'jax[cuda12]'`). Of each
case one line is printed and one appended to results/compiled.jsonl: estimated
cycles of a step (on a GPU the microseconds of its fusions), what the chip's
limits would allow, loops over rows, copies of tables, what has no estimate,
collectives, memory, seconds of compiling. --batches counts images through the
student. --top lists the dearest instructions with their source lines. --part
compiles a method's own part of a step, without the student: "loss", or "stage
1". Everything is an estimate: nothing runs.
"""

import argparse
import ast
import contextlib
import importlib.metadata
import itertools
import json
import os

os.environ["JAX_PLATFORMS"] = "cpu"  # a device of this machine is not asked

import study

from ckd_jax import ahead, methods

RESULTS = study.HERE / "results" / "compiled.jsonl"


def line(row) -> str:
  """A case in one line."""
  unit = "cycles" if "cycles" in row else "microseconds"
  hyper = [f"{key}={value}" for key, value in row["hyper"].items()]
  what = [row["student"], row["method"], *hyper, row["part"], row["dtype"]]
  roof = row["roofline"]
  ratio = f", {roof['ratio']} x the roofline" if "ratio" in roof else ""
  loops = [f"{one['trips']} at {one['source']}" for one in row["row_loops"]]
  copies = [f"{one['table']} ({one['op']})" for one in row["table_copies"]]
  memory = {name: f"{n / 1e6:.1f}" for name, n in row["memory"].items()}
  told = {
    "loops over rows": loops,
    "loops of unknown length": row["endless_loops"],
    "copies of tables": copies,
    "collectives": row["collectives"],
    "no estimate, bytes": row["uncosted"],
    "host": row["host"],
    "float64": row["float64"],
    "MB": memory,
  }
  rest = "; ".join(f"{name} {value}" for name, value in told.items() if value)
  return (
    f"{row['target']} x {row['devices']}, {' '.join(filter(None, what))}, "
    f"{row['images']} images, {row['steps']} steps, {row['rows']} rows: "
    f"{row[unit]:,} {unit} a step in {row['kernels']:,} kernels{ratio}; "
    f"{rest}; compiled in {row['compile_seconds']} s"
  )


def dearest(report, steps: int, top: int) -> str:
  """The dearest instructions, of a step, with their source lines."""
  lines = []
  for one in report.dearest[:top]:
    share = 100 * one.cost / report.cost
    lines.append(
      f"{one.cost / steps:12,.0f} {share:5.1f} % {one.source:28} "
      f"{one.type:24} {one.times:5} x {one.name}  {one.label[-60:]}"
    )
  return "\n".join(lines)


def hyper_of(text: str) -> tuple:
  """ "a=1,b=all" as pairs of names and values."""
  pairs = [item.split("=") for item in filter(None, text.split(","))]

  def value(text):
    try:
      return ast.literal_eval(text)
    except (SyntaxError, ValueError):
      return text

  return tuple((name, value(text)) for name, text in pairs)


def versions() -> dict[str, str]:
  """Of JAX and of the compilers that are here."""
  found = {}
  for name in ("jax", "libtpu", "jax-cuda12-plugin"):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def main() -> None:
  """Compiles, prints, appends."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--targets", default="v5e:1x1")
  parser.add_argument("--devices", type=int, default=0, help="0: all of them")
  parser.add_argument("--config", default="cifar100")
  parser.add_argument("--students", default="resnet8")
  parser.add_argument("--methods", default="ckd", help="names, or all")
  parser.add_argument("--hyper", default="")
  parser.add_argument("--batches", default="128", help="images, of a step")
  parser.add_argument("--rows", default="4096")
  parser.add_argument("--launch", type=int, default=1, help="steps in it")
  parser.add_argument("--dtype", default="bfloat16")
  parser.add_argument("--part", default="")
  parser.add_argument("--top", type=int, default=0)
  flags = parser.parse_args()
  names = flags.methods
  facts = versions() | study.stamp()
  RESULTS.parent.mkdir(exist_ok=True)
  for target, student, method, images, rows in itertools.product(
    flags.targets.split(","),
    flags.students.split(","),
    methods.names() if names == "all" else names.split(","),
    map(int, flags.batches.split(",")),
    map(int, flags.rows.split(",")),
  ):
    case = ahead.Case(
      target=target,
      devices=flags.devices,
      config=flags.config,
      student=student,
      method=method,
      hyper=hyper_of(flags.hyper),
      images=images,
      rows=rows,
      steps=flags.launch,
      dtype=flags.dtype,
      part=flags.part,
    )
    row, report = ahead.compile_case(case)
    print(line(row), flush=True)
    if flags.top:
      print(dearest(report, row["steps"], flags.top), flush=True)
    with open(RESULTS, "a") as file:
      file.write(json.dumps({**row, **facts}) + "\n")


if __name__ == "__main__":
  main()
