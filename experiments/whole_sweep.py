"""How long does the published sweep of one student take?

  python experiments/whole_sweep.py --table=DIR [--student=resnet32]
    [--sizes=2,3] [--budgets=2000,6000] [--how=auto] [--at_once=9]
    [--max_epochs=1000] [--dtype=float32]

8 budgets x 3 rates x 3 seeds x 2 sizes of group are 144 runs of the plateau
protocol (arXiv 2311.02253). For each size the nine of each of `budgets` are
trained by `python -m ckd_jax.sweep`; the other budgets are extrapolated: as
many simulated epochs as the measured ones had, whose steps grow with the
budget, a step of a student as dear. DIR holds answers about CIFAR-100 (see
README). With fewer --max_epochs the runs are cut and the full number is
assumed. One line a size is appended to results/whole_sweep.jsonl.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time

import study

RESULTS = study.HERE / "results" / "whole_sweep.jsonl"
BUDGETS = (2000, 2500, 3000, 3500, 4000, 4500, 5000, 6000)
RATES, SEEDS = (0.1, 0.05, 0.025), (1, 2, 3)
MOST_EPOCHS, BATCH, TRAIN_SHARE = 1000, 64, 0.8


def epoch(budget: int) -> int:
  """Steps of a simulated epoch."""
  return math.ceil(int(TRAIN_SHARE * budget) / BATCH)


def train(flags, size: int, budget: int) -> tuple[float, list[dict], str]:
  """Nine runs; wall seconds, their summaries, and how they were trained."""
  name = f"{flags.student}-{size}-{budget}-{flags.max_epochs}"
  folder = flags.runs / name
  if folder.exists():
    sys.exit(f"{folder} is there: a resumed sweep would measure a part of it")
  options = {
    "student": flags.student,
    "budget": budget,
    "steps": MOST_EPOCHS * epoch(budget),
    "teacher.source": "table",
    "teacher.path": flags.table,
    "hyper.negatives": size // 2,
    "hyper.positives": size - size // 2,
    "schedule_hyper.max_epochs": flags.max_epochs,
    "dtype": flags.dtype,
  }
  command = study.main_command("cifar100.py", options)
  command[command.index("ckd_jax.main")] = "ckd_jax.sweep"
  command += [f"--over=seed+budget_seed={','.join(map(str, SEEDS))}"]
  command += [f"--over=optimizer.learning_rate={','.join(map(str, RATES))}"]
  command += [f"--how={flags.how}", f"--at_once={flags.at_once}"]
  began = time.perf_counter()
  said = subprocess.run(
    [*command, f"--workdir={folder}"], stdout=subprocess.PIPE, text=True
  ).stdout
  wall = time.perf_counter() - began
  if not any(folder.glob("*/summary.json")):  # some may diverge, not all
    sys.exit("no run has ended: see above")
  chosen = [line for line in said.splitlines() if "student's launch" in line]
  return (
    wall,
    [json.loads(path.read_text()) for path in folder.glob("*/summary.json")],
    "; ".join(chosen) or flags.how,
  )


def measure(flags, size: int) -> dict:
  """One line of the results."""
  budgets = [int(budget) for budget in flags.budgets.split(",")]
  parts = [train(flags, size, budget) for budget in budgets]
  wall = sum(part[0] for part in parts)
  runs = [run for part in parts for run in part[1]]
  worked = sum(  # without compiling, which a longer run does not do again
    run["steps"] * run["step_milliseconds"] / 1e3 + run["evaluation_seconds"]
    for run in runs
  )
  steps = sum(run["steps"] for run in runs)
  seen = statistics.mean(run["steps"] / epoch(run["budget"]) for run in runs)
  cut = flags.max_epochs < MOST_EPOCHS
  epochs = MOST_EPOCHS if cut else seen
  each = len(RATES) * len(SEEDS)
  all_steps = sum(each * epochs * epoch(budget) for budget in BUDGETS)
  begun = (wall - worked) / len(budgets)  # reading, compiling, testing
  seconds = begun * len(BUDGETS) + all_steps * worked / steps
  return {
    **study.stamp(),
    "student": flags.student,
    "dtype": flags.dtype,
    "group": size,
    "how": [part[2] for part in parts],
    "budgets": budgets,
    "at_once": flags.at_once,
    "students": len(runs),
    "diverged": each * len(budgets) - len(runs),
    "wall_seconds": round(wall, 1),
    "working_seconds": round(worked, 1),
    "student_steps": steps,
    "milliseconds_a_student_step": round(1e3 * worked / steps, 4),
    "epochs_seen": round(seen, 1),
    "epochs_assumed": round(epochs, 1),
    "test_accuracy": round(
      statistics.mean(run["test_accuracy"] for run in runs), 2
    ),
    "hours_of_72_runs": round(seconds / 3600, 3),
    "device": runs[0]["devices"],
    "jax": runs[0]["jax"],
  }


def main() -> None:
  """Measures, appends, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--table", required=True)
  parser.add_argument("--student", default="resnet32")
  parser.add_argument("--sizes", default="2,3")
  parser.add_argument("--budgets", default="2000,6000")
  parser.add_argument("--how", default="auto")
  parser.add_argument("--at_once", type=int, default=9)
  parser.add_argument("--max_epochs", type=int, default=MOST_EPOCHS)
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--runs", default="runs/whole_sweep", type=pathlib.Path)
  flags = parser.parse_args()
  rows = []
  for size in map(int, flags.sizes.split(",")):
    row = measure(flags, size)
    print(json.dumps(row), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "a") as file:
      file.write(json.dumps(row) + "\n")
    rows.append(row)
  hours = sum(row["hours_of_72_runs"] for row in rows)
  print(f"{72 * len(rows)} runs, extrapolated: {hours:.2f} hours")


if __name__ == "__main__":
  main()
