"""Ours and two ways in PyTorch, in turn on the same machine.

  python experiments/against_pytorch.py [--students=resnet8,resnet32]
    [--batches=128] [--dtype=float32]
  python experiments/against_pytorch.py --table=DIR [--seeds=1,2,3]

Without a table: images/s of peers/pytorch_ckd.py (`published` at its batch of
64 pairs, `strong` at every batch) and of our step, each in a process of its
own, with the ratios of our closed form (`all`) to everything else. On a GPU
give --dtype=bfloat16, which `strong` has there.

With the table of CIFAR-100 answers (see README) and TFDS_DATA_DIR: each seed of
`published` is trained 2,500 steps, and then we train a whole run that is meant
to be as accurate. Compared are the seconds of training, ours with compilation
where no earlier run has left the program; `total_seconds` are ours with reading
data, validation and test. Needs PyTorch. Lines are appended to
results/against_pytorch.jsonl.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import study

RESULTS = study.HERE / "results" / "against_pytorch.jsonl"
PEER = study.HERE / "peers" / "pytorch_ckd.py"


def last_line(command) -> dict:
  """What a command says at its end, as JSON."""
  ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  lines = [x for x in ended.stdout.splitlines() if x.startswith("{")]
  return json.loads(lines[-1])


def peer(mode: str, **options) -> dict:
  flags = [f"--{key}={value}" for key, value in options.items()]
  return last_line([sys.executable, PEER, f"--mode={mode}", *flags])


def ours(student: str, batch: int, dtype: str, estimator: str) -> dict:
  command = [sys.executable, study.HERE / "throughput.py"]
  command += [f"--students={student}", f"--batches={batch}"]
  return last_line([*command, f"--dtypes={dtype}", f"--estimators={estimator}"])


def keep(row: dict) -> None:
  row = study.stamp() | row
  print(json.dumps({k: v for k, v in row.items() if k != "path"}), flush=True)
  RESULTS.parent.mkdir(exist_ok=True)
  with open(RESULTS, "a") as file:
    file.write(json.dumps(row) + "\n")


def compare_speed(flags) -> None:
  """Prints images/s and ratios, for the best batch of each."""
  table = []
  for student in flags.students.split(","):
    slow = peer("published", student=student, steps=flags.steps)
    keep(slow)
    rates = {"published": [slow["images_per_second"]]}
    for batch in map(int, flags.batches.split(",")):
      fast = peer(
        "strong", student=student, pairs=batch // 2, steps=flags.steps
      )
      keep(fast)
      rates.setdefault("strong", []).append(fast["images_per_second"])
      for estimator in ("all", "groups"):
        row = ours(student, batch, flags.dtype, estimator)
        keep({"peer": f"ours, {estimator}", **row})
        name = f"ours, {estimator}"
        rates.setdefault(name, []).append(row["images_per_second"])
    best = {name: max(values) for name, values in rates.items()}
    table.append(
      [student, *(f"{value:,.0f}" for value in best.values())]
      + [f"{best['ours, all'] / best[name]:.2f}" for name in rates]
    )
  names = ["published", "strong", "ours, all", "ours, groups"]
  heads = [f"{name}, images/s" for name in names]
  ratios = [f"all / {name}" for name in names]
  print(study.markdown(["student", *heads, *ratios], table))


def pack(table_dir: str, seed: int, path: pathlib.Path) -> None:
  """What the peer trains on: the budget that our run of this seed has."""
  import numpy as np

  from ckd_jax import data, table

  dataset = data.load("cifar100")
  chosen = data.select(
    len(dataset.train.labels), budget=2000, val_fraction=0.2, seed=seed
  )
  held = table.read(table_dir).rows(dataset.train.ids[chosen.train])
  np.savez(
    path,
    x_train=dataset.train.inputs[chosen.train],
    y_train=dataset.train.labels[chosen.train],
    teacher=np.asarray(held.values, np.float16),
    x_val=dataset.train.inputs[chosen.validation],
    y_val=dataset.train.labels[chosen.validation],
    x_test=dataset.test.inputs,
    y_test=dataset.test.labels,
  )


def time_to(workdir: pathlib.Path, accuracy: float):
  """The first step whose validation reaches it; seconds of training to it.

  None, None if none does.
  """
  from ckd_jax.run import logger

  summary = json.loads((workdir / "summary.json").read_text())
  for line in logger.read_metrics(workdir / "metrics.jsonl"):
    if line.get("val_accuracy", -1) >= accuracy:
      share = line["step"] / summary["steps"]
      return line["step"], share * summary["train_seconds"]
  return None, None


def train_ours(flags, seed: int, workdir: pathlib.Path) -> dict:
  """Runs the command on the budget of a seed; returns its summary."""
  if workdir.exists():
    sys.exit(f"{workdir} is there: its time is of another moment")
  options = {
    "seed": seed,
    "budget_seed": seed,
    "student": "resnet8",
    "teacher.source": "table",
    "teacher.path": flags.table,
    "schedule": "cosine",
    "steps": flags.our_steps,
    "eval_every": flags.our_steps // 10,
    "batch_size": flags.our_batch,
    "optimizer.learning_rate": flags.our_rate,
    "hyper.estimator": "all",
    "hyper.offset": "fit",
  }
  command = study.main_command("cifar100.py:budget=2000", options)
  subprocess.run(
    [*command, f"--workdir={workdir}"], check=True, stdout=subprocess.DEVNULL
  )
  return json.loads((workdir / "summary.json").read_text())


def compare_accuracy(flags) -> None:
  """Wall time to the accuracy of `published`, seed by seed."""
  runs = flags.runs
  runs.mkdir(parents=True, exist_ok=True)
  ratios = []
  for seed in map(int, flags.seeds.split(",")):
    data = runs / f"budget-{seed}.npz"
    if not data.exists():
      pack(flags.table, seed, data)
    theirs = peer("published", data=data, seed=seed, steps=2500)
    keep(theirs)
    workdir = runs / f"ours-{seed}"
    summary = train_ours(flags, seed, workdir)
    step, seconds = time_to(workdir, theirs["val_accuracy"])
    ratio = summary["train_seconds"] / theirs["train_seconds"]
    hit = summary["test_accuracy"] >= theirs["test_accuracy"]
    ratios.append(ratio if hit else float("inf"))
    keep(
      {
        "peer": "ours, all, offset fitted",
        "student": "resnet8",
        "seed": seed,
        "steps": flags.our_steps,
        "batch": flags.our_batch,
        "learning_rate": flags.our_rate,
        "test_accuracy": summary["test_accuracy"],
        "val_accuracy": summary["val_accuracy"],
        "train_seconds": summary["train_seconds"],
        "total_seconds": summary["total_seconds"],
        "their_test_accuracy": theirs["test_accuracy"],
        "their_train_seconds": theirs["train_seconds"],
        "step_at_their_val_accuracy": step,
        "seconds_at_their_val_accuracy": seconds,
        "share_of_their_time": ratio,
        "as_accurate": hit,
        "devices": summary["devices"],
        "jax": summary["jax"],
      }
    )
  share = statistics.median(ratios)
  print(f"share of the time of `published`, as accurate: median {share}")


def main() -> None:
  """Measures, appends, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--students", default="resnet8")
  parser.add_argument("--batches", default="128")
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--steps", type=int, default=100)
  parser.add_argument("--table", help="DIR of the CIFAR-100 answers")
  parser.add_argument("--seeds", default="1,2,3")
  parser.add_argument("--our_steps", type=int, default=4000)
  parser.add_argument("--our_batch", type=int, default=32)
  parser.add_argument("--our_rate", type=float, default=0.05)
  parser.add_argument("--runs", default="runs/against", type=pathlib.Path)
  flags = parser.parse_args()
  if flags.table:
    compare_accuracy(flags)
  else:
    compare_speed(flags)


if __name__ == "__main__":
  main()
