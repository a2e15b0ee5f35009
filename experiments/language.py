"""Language models: labels, a table, own texts, SKD, OKD and its two controls.

  python experiments/language.py --dataset=names --teacher=DIR [--only=TEXT]

500 names, or sums, 400 of them to learn from; a student of 105,000 parameters,
and a teacher of 803,000 that was trained on all. DIR is the teacher's run, once
for every student of a data set:

  python -m ckd_jax.main --config=configs/names.py:method=supervised \\
    --config.student=lm_small --config.budget=6453 --config.val_fraction=0.1 \\
    --config.teacher.source=none --config.steps=700 \\
    --config.optimizer.learning_rate=0.0005 --workdir=DIR

(arithmetic.py has a budget of 6439, 3,000 steps, and its own rate.) Every run
is the ordinary command; a finished run is one line of results/language.jsonl,
an unfinished one is resumed.
"""

import argparse
import pathlib
import statistics

import study

RESULTS = study.HERE / "results" / "language.jsonl"
FIELDS = ("dataset", "label", "seed")
STEPS = {"arithmetic": 800, "names": 200}

_OWN = {"method": "on_policy"}
ARMS = {
  "supervised": {"method": "supervised"},
  "kd": {"method": "kd"},
  "kd, no labels": {"method": "kd", "hyper.cross_entropy_weight": 0.0},
  "ckd, all": {"method": "ckd", "hyper.estimator": "all"},
  "live, the data": _OWN | {"hyper.source": "data"},
  "on-policy": _OWN | {"hyper.source": "student"},
  "skd": _OWN | {"hyper.source": "skd", "hyper.top_k": 3},
  "okd": {"method": "okd"},
  "okd, teacher still": {"method": "okd", "hyper.rate": 0.0},
  "okd, teacher alone": {"method": "okd", "hyper.mutual_weight": 0.0},
}


def command(dataset: str, arm: str, seed: int, teacher: str) -> list[str]:
  """The ordinary command of one run."""
  options = dict(ARMS[arm])
  method = options.pop("method")
  options |= {
    "label": arm,
    "seed": seed,
    "budget": 500,
    "budget_seed": seed,
    "teacher.source": "checkpoint",
    "teacher.path": teacher,
    "steps": STEPS[dataset],
    "eval_every": STEPS[dataset] // 8,
    "checkpoint_every": STEPS[dataset],
  }
  return study.main_command(f"{dataset}.py:method={method}", options)


def table_of_results() -> str:
  """Markdown: figures, calls and seconds of every arm."""
  rows = study.finished(RESULTS, FIELDS)
  lines = []
  for dataset, arm in ((name, arm) for name in STEPS for arm in ARMS):
    group = [row for key, row in rows.items() if key[:2] == (dataset, arm)]
    if not group:
      continue
    cells = [
      study.describe([row[f"test_{name}"] for row in group])
      for name in ("minus_nats_per_token", "exact_match")
    ]
    calls = statistics.mean(row["teacher_calls"] for row in group)
    live = statistics.mean(row["live_calls"] for row in group)
    seconds = statistics.mean(row["processor_seconds"] for row in group)
    costs = [f"{calls:.0f}", f"{live:,.0f}", f"{seconds:.0f}"]
    lines.append([dataset, arm, *cells, *costs])
  head = ["data", "learns from", "minus nats per token", "exact match %"]
  return study.markdown(
    [*head, "calls", "live calls", "processor seconds"], lines
  )


def main() -> None:
  """Runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--dataset", choices=STEPS, default="names")
  parser.add_argument("--teacher")
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--only", default="", help="part of 'data arm seed'")
  parser.add_argument("--runs", default="runs/language", type=pathlib.Path)
  parser.add_argument("--again", action="store_true", help="train all anew")
  flags = parser.parse_args()
  if flags.again:
    study.again(RESULTS)
  if flags.teacher:
    runs = [(flags.dataset, arm, seed) for seed in (1, 2, 3) for arm in ARMS]
    commands = {
      run: command(*run, flags.teacher)
      for run in runs
      if flags.only in " ".join(map(str, run))
    }
    study.run_missing(commands, RESULTS, FIELDS, flags.runs, flags.jobs)
  print(table_of_results())


if __name__ == "__main__":
  main()
