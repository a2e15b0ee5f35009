"""What do texts teach when an outside encoder answers a few questions?

  python experiments/texts.py --set=sst2 --texts=DIR [--seeds=1,2,3]

SST-2 or TREC at budgets of 250, 1,000 and 4,000 texts (a fifth of them to
validate with), transformer_tiny from random weights. DIR holds the set's folder
and `teachers/SET_e5_logits.npz`, answers of multilingual-e5-small with a linear
classifier. Losses marked `trained` have a transformer_small as their teacher,
trained here on all the training texts; live, it answers in every step. The
seeds of one loss at one budget are one sweep, trained by one program where the
teacher is not live; a seed draws the subset, too, and all losses see the same.
Runs are lines of results/texts.jsonl; the driver resumes. Without --texts it
prints the table.
"""

import argparse
import json
import pathlib
import statistics

import study

RESULTS = study.HERE / "results" / "texts.jsonl"
FIELDS = ("dataset", "label", "budget", "seed")
LENGTHS = {"sst2": 32, "trec": 20}  # tokens
STEPS = {250: 150, 1000: 300, 4000: 500}  # of 32 texts
ARMS = {  # as configs/sst2.py has them: ckd of all groups, its offset fitted
  "supervised": "supervised",
  "kd": "kd",
  "ckd, all": "ckd",
  "mixkd, mixed answers": "mixkd",
  "logit_mse": "logit_mse",
}
TRAINED = {
  "kd, trained": {},
  "mixkd, mixed answers, trained": {},
  "mixkd, live, trained": {"hyper.target": "live", "teacher.live": True},
}
ARMS |= {arm: arm.partition(",")[0] for arm in TRAINED}
BASE = "supervised"
T_95 = 4.303  # of two degrees of freedom


def of_teacher(name: str, arm: str, flags) -> dict:
  """Who answers in one arm."""
  if arm in TRAINED:
    path = flags.runs / "teachers" / name
    return {"teacher.source": "train", "teacher.path": path, **TRAINED[arm]}
  if ARMS[arm] == "supervised":
    return {"teacher.source": "none"}
  answers = flags.texts / "teachers" / f"{name}_e5_logits.npz"
  return {
    "teacher.source": "table",
    "teacher.path": answers,
    "table.test_path": answers,
  }


def sweep(name: str, arm: str, budget: int, flags) -> list[dict]:
  """Trains the seeds of one loss at one budget; their summaries."""
  from ckd_jax import sweep as command

  keys = {
    "dataset.path": flags.texts / name,
    "dataset.text.length": LENGTHS[name],
    "label": arm,
    "budget": budget,
    "batch_size": 32,
    "steps": STEPS[budget],
    "eval_every": STEPS[budget] // 5,
    "checkpoint_every": STEPS[budget],
    **of_teacher(name, arm, flags),
  }
  folder = flags.runs / f"{name}-{arm.replace(', ', '-')}-{budget}"
  command.main(
    [
      f"--config={name}.py:method={ARMS[arm]}",
      *(f"--config.{key}={value}" for key, value in keys.items()),
      f"--over=seed+budget_seed={flags.seeds}",
      "--how=together",
      f"--workdir={folder}",
    ]
  )
  paths = sorted(folder.glob("*/summary.json"))
  return [study.result(path.parent) for path in paths]


def row(name: str, summary: dict) -> dict:
  """One line of the results."""
  kept = ("label", "budget", "seed", "steps", "test_accuracy", "val_accuracy")
  kept += ("last_test_accuracy", "offset", "teacher_test_accuracy")
  kept += ("teacher_calls", "live_calls", "train_seconds", "processor_seconds")
  kept += ("jax", *study.RECIPE)
  return {
    **study.stamp(),
    "dataset": name,
    **{key: summary[key] for key in kept},
  }


def table() -> str:
  """Markdown: means over seeds, and paired differences to BASE."""
  rows = study.finished(RESULTS, FIELDS)
  lines = []
  for name in LENGTHS:
    for arm in ARMS:
      cells = []
      for budget in STEPS:
        mine = {
          key[3]: line["test_accuracy"]
          for key, line in rows.items()
          if key[:3] == (name, arm, budget)
        }
        gaps = [
          value - rows[name, BASE, budget, seed]["test_accuracy"]
          for seed, value in mine.items()
          if (name, BASE, budget, seed) in rows
        ]
        cells.append(study.describe(list(mine.values())))
        if arm != BASE and len(gaps) == 3:
          half = T_95 * statistics.stdev(gaps) / 3**0.5
          cells[-1] += f", {statistics.mean(gaps):+.2f} +- {half:.2f}"
      if any(cell != "-" for cell in cells):
        lines.append([name, arm, *cells])
  return study.markdown(["set", "loss", *(f"{n:,}" for n in STEPS)], lines)


def main() -> None:
  """Runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--texts", type=pathlib.Path)
  parser.add_argument("--set", choices=LENGTHS, default="sst2")
  parser.add_argument("--seeds", default="1,2,3")
  parser.add_argument("--only", default="", help="part of 'loss budget'")
  parser.add_argument("--runs", default="runs/texts", type=pathlib.Path)
  flags = parser.parse_args()
  done = {key[:3] for key in study.finished(RESULTS, FIELDS)}
  wanted = [
    (flags.set, arm, budget)
    for budget in STEPS
    for arm in ARMS
    if flags.only in f"{arm} {budget}" and (flags.set, arm, budget) not in done
  ]
  for name, arm, budget in wanted if flags.texts else ():
    summaries = sweep(name, arm, budget, flags)
    with open(RESULTS, "a") as file:
      for summary in summaries:
        file.write(json.dumps(row(name, summary)) + "\n")
  print(table())


if __name__ == "__main__":
  main()
