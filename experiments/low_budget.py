"""Which comparison helps most when the teacher answers 1,600 questions?

  python experiments/low_budget.py --table=DIR [--jobs=2] [--only=TEXT]

CIFAR-100, an outside table of a ResNet-20's answers, student resnet8, budget
2000, 2,500 steps of 128 images. Every run is the ordinary command; a finished
run is one line of results/low_budget.jsonl, an unfinished one is resumed, so
the driver may be stopped and started at will. TABLE is what
`python -m ckd_jax.table import` wrote. With --jobs=2 two runs go side by side,
each on a core of its own, and the seconds are those of one core.
"""

import argparse
import pathlib
import statistics

import study

RESULTS = study.HERE / "results" / "low_budget.jsonl"
FIELDS = ("schedule", "label", "seed")

# The family is divided by the factor 1/p + 1/n = 2 of pairs, or it would
# differ from plain logit matching in the size of their steps as well.
_HALF = {"hyper.teacher_weight": 0.5, "hyper.label_weight": 0.5}
_ALL = {"method": "ckd", "hyper.estimator": "all", "batch_size": 128}
ARMS = {
  "groups": {"method": "ckd", "batch_size": 64},
  "batch_groups": _ALL | {"hyper.estimator": "batch_groups"},
  "all": _ALL,
  "all, mean_weight 0": _ALL | _HALF,
  "all, mean_weight 0.1": _ALL | _HALF | {"hyper.mean_weight": 0.1},
  "all, mean_weight 1": _ALL | _HALF | {"hyper.mean_weight": 1.0},
  "logit_mse": {"method": "logit_mse", "batch_size": 128},
  "kd": {"method": "kd", "batch_size": 128},
  "supervised": {"method": "supervised", "batch_size": 128},
}


def plan() -> list[tuple[str, str, int]]:
  """(schedule, arm, seed) of every run, the most telling ones first."""
  runs = [("constant", "groups", seed) for seed in (1, 2, 3)]
  runs += [("cosine", arm, 1) for arm in ARMS]
  runs += [("constant", arm, 1) for arm in ARMS if arm != "groups"]
  runs += [("cosine", arm, seed) for seed in (2, 3) for arm in ARMS]
  return runs


def command(schedule: str, arm: str, seed: int, table: str) -> list[str]:
  """The ordinary command of one run."""
  options = dict(ARMS[arm])
  method = options.pop("method")
  options |= {
    "label": arm,
    "seed": seed,
    "budget_seed": seed,  # as published, the seed also draws the subset
    "student": "resnet8",
    "teacher.source": "table",
    "teacher.path": table,
    "schedule": schedule,
    "steps": 2500,
    "eval_every": 100,
    "checkpoint_every": 500,
  }
  return study.main_command(f"cifar100.py:method={method},budget=2000", options)


def table_of_results() -> str:
  """Markdown: test accuracy, calls and seconds of every arm."""
  rows = study.finished(RESULTS, FIELDS)
  lines = []
  for schedule in ("constant", "cosine"):
    for arm in ARMS:
      group = [row for key, row in rows.items() if key[:2] == (schedule, arm)]
      if not group:
        continue
      fits = [row["offset"]["fit"] for row in group if row["offset"]]
      spent = [
        row["processor_seconds"] for row in group if "processor_seconds" in row
      ]
      seconds = statistics.mean(row["train_seconds"] for row in group)
      cells = [
        study.describe(values)
        for values in (
          [row["test_accuracy"] for row in group],
          [fit["test"] for fit in fits],
          [row["last_test_accuracy"] for row in group],
          [fit["last_test"] for fit in fits],
        )
      ]
      calls = str(max(row["teacher_calls"] for row in group))
      processor = f"{statistics.mean(spent):.0f}" if spent else "-"
      lines.append([schedule, arm, *cells, calls, f"{seconds:.0f}", processor])
  head = ["schedule", "loss", "test accuracy %", "with fitted offset %"]
  head += ["last step %", "last step, offset %", "calls", "seconds"]
  return study.markdown([*head, "processor seconds"], lines)


def main() -> None:
  """Runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--table")
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--only", default="", help="part of 'schedule arm seed'")
  parser.add_argument("--runs", default="runs/low_budget", type=pathlib.Path)
  parser.add_argument("--again", action="store_true", help="train all anew")
  flags = parser.parse_args()
  if flags.again:
    study.again(RESULTS)
  if flags.table:
    commands = {
      run: command(*run, flags.table)
      for run in plan()
      if flags.only in " ".join(map(str, run))
    }
    study.run_missing(commands, RESULTS, FIELDS, flags.runs, flags.jobs)
  print(table_of_results())


if __name__ == "__main__":
  main()
