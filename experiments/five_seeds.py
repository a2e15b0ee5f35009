"""Which comparison helps most, on an accelerator: five seeds, paired.

  python experiments/five_seeds.py --table=DIR [--data=FILE.npz] [--jobs=10]
    [--seeds=1,2,3,4,5] [--steps=2500] [--how=together] [--only=TEXT]

The setting of low_budget.py with a cosine rate. The seeds of one loss are one
sweep, by default trained by one program; `jobs` losses go side by side. DIR
holds answers about CIFAR-100, or about the images of FILE. Runs are lines of
results/five_seeds.jsonl. The table compares every loss with `logit_mse`, seed
by seed: both see the same images and answers.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess

import low_budget
import study

RESULTS = study.HERE / "results" / "five_seeds.jsonl"
ARMS = {
  **low_budget.ARMS,
  "logit_mse, twice": {
    "method": "logit_mse",
    "batch_size": 128,
    "hyper.teacher_weight": 2.0,
    "hyper.label_weight": 2.0,
  },
}
BASE = "logit_mse"
T_95 = {2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262}  # by degrees of freedom


def sweep(arm: str, flags) -> list[dict]:
  """Trains the seeds of one loss; their summaries."""
  options = dict(ARMS[arm])
  method = options.pop("method")
  options |= {
    "label": arm,
    "student": "resnet8",
    "teacher.source": "table",
    "teacher.path": flags.table,
    "schedule": "cosine",
    "steps": flags.steps,
    "eval_every": max(1, flags.steps // 25),
    "checkpoint_every": flags.steps,
  }
  if flags.data:
    options |= {"dataset.name": "npz", "dataset.path": flags.data}
  command = study.main_command(
    f"cifar100.py:method={method},budget=2000", options
  )
  command[command.index("ckd_jax.main")] = "ckd_jax.sweep"
  folder = flags.runs / arm.replace(", ", "-").replace(" ", "-")
  command += [f"--over=seed+budget_seed={flags.seeds}"]
  command += [f"--how={flags.how}"]
  folder.mkdir(parents=True, exist_ok=True)
  with open(flags.runs / f"{folder.name}.log", "a") as log:
    subprocess.run(
      [*command, f"--workdir={folder}"],
      check=True,
      stdout=log,
      stderr=subprocess.STDOUT,
      # Together they would each take most of an accelerator's memory.
      env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )
  paths = sorted(folder.glob("*/summary.json"))
  return [study.result(path.parent) for path in paths]


def row(summary: dict) -> dict:
  """One line of the results."""
  offset = (summary["offset"] or {}).get("fit") or {}
  kept = ("label", "seed", "steps", "test_accuracy", "val_accuracy")
  kept += ("teacher_calls", "train_seconds", "devices", "jax")
  kept += study.RECIPE
  return {
    **study.stamp(),
    **{key: summary[key] for key in kept},
    "with_offset": offset.get("test"),
  }


def best(line: dict) -> float:
  """Test accuracy, with the offset fitted where the loss leaves it free."""
  return line["with_offset"] or line["test_accuracy"]


def table() -> str:
  """Markdown: means, and differences to BASE with a 95 % interval."""
  rows = study.finished(RESULTS, ("label", "seed"))
  lines = []
  for arm in ARMS:
    mine = {seed: line for (label, seed), line in rows.items() if label == arm}
    if not mine:
      continue
    gaps = [
      best(line) - best(rows[BASE, seed])
      for seed, line in mine.items()
      if (BASE, seed) in rows
    ]
    gap = "-"
    if arm != BASE and len(gaps) - 1 in T_95:
      error = statistics.stdev(gaps) / len(gaps) ** 0.5
      half = T_95[len(gaps) - 1] * error
      gap = f"{statistics.mean(gaps):+.2f} +- {half:.2f}"
    fitted = [x["with_offset"] for x in mine.values() if x["with_offset"]]
    plain = [line["test_accuracy"] for line in mine.values()]
    calls = str(max(line["teacher_calls"] for line in mine.values()))
    cells = [study.describe(plain), study.describe(fitted)]
    lines.append([arm, *cells, gap, calls])
  head = ["loss", "test accuracy %", "with fitted offset %"]
  head += [f"ahead of {BASE}, 95 %", "calls"]
  return study.markdown(head, lines)


def main() -> None:
  """Runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--table", type=pathlib.Path)
  parser.add_argument("--data", type=pathlib.Path)
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--seeds", default="1,2,3,4,5")
  parser.add_argument("--steps", type=int, default=2500)
  parser.add_argument("--how", default="together")
  parser.add_argument("--only", default="", help="part of a loss's name")
  parser.add_argument("--runs", default="runs/five_seeds", type=pathlib.Path)
  parser.add_argument("--again", action="store_true", help="train all anew")
  flags = parser.parse_args()
  if flags.again:
    study.again(RESULTS)
  if flags.table:
    done = {label for label, _ in study.finished(RESULTS, ("label", "seed"))}
    arms = [arm for arm in ARMS if flags.only in arm and arm not in done]
    flags.runs.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(flags.jobs) as pool:
      futures = [pool.submit(sweep, arm, flags) for arm in arms]
      for future in concurrent.futures.as_completed(futures):
        lines = [json.dumps(row(summary)) for summary in future.result()]
        with open(RESULTS, "a") as file:
          file.writelines(line + "\n" for line in lines)
        print(*lines, sep="\n", flush=True)
  print(table())


if __name__ == "__main__":
  main()
