"""Language models: labels, a table, own texts, SKD, OKD and its two controls.

  python experiments/language.py --teacher=DIR [--jobs=2] [--only=TEXT]

Sums of two numbers of two digits (configs/arithmetic.py): 500 of them, 400 to
learn from, a student of 105,000 parameters and a teacher of 803,000 that knows
all of them. DIR is the teacher's run, once for all:

  python -m ckd_jax.main --config=configs/arithmetic.py:method=supervised \\
    --config.student=lm_small --config.budget=6439 --config.val_fraction=0.1 \\
    --config.teacher.source=none --workdir=DIR

Every run is the ordinary command; a finished run is one line of
results/language.jsonl, an unfinished one is resumed.
"""

import argparse
import pathlib
import statistics

import study

RESULTS = study.HERE / "results" / "language.jsonl"
FIELDS = ("label", "seed")

_OWN = {"method": "on_policy"}
ARMS = {
  "supervised": {"method": "supervised"},
  "kd": {"method": "kd"},
  "on-policy": _OWN | {"hyper.source": "student"},
  "skd": _OWN | {"hyper.source": "skd", "hyper.top_k": 3},
  "okd": {"method": "okd"},
  "okd, teacher still": {"method": "okd", "hyper.rate": 0.0},
  "okd, teacher alone": {"method": "okd", "hyper.mutual_weight": 0.0},
}


def command(arm: str, seed: int, teacher: str) -> list[str]:
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
    "steps": STEPS,
    "eval_every": STEPS // 8,
    "checkpoint_every": STEPS,
  }
  return study.main_command(f"arithmetic.py:method={method}", options)


STEPS = 800


def table_of_results() -> str:
  """Markdown: figures, calls and seconds of every arm."""
  rows = study.finished(RESULTS, FIELDS)
  lines = []
  for arm in ARMS:
    group = [row for key, row in rows.items() if key[0] == arm]
    if not group:
      continue
    cells = [
      study.describe([row[f"test_{name}"] for row in group])
      for name in ("minus_nats_per_token", "exact_match")
    ]
    calls = statistics.mean(row["teacher_calls"] for row in group)
    live = statistics.mean(row["live_calls"] for row in group)
    seconds = statistics.mean(row["processor_seconds"] for row in group)
    lines.append(
      [arm, *cells, f"{calls:.0f}", f"{live:,.0f}", f"{seconds:.0f}"]
    )
  head = ["learns from", "minus nats per token", "exact match %", "calls"]
  return study.markdown([*head, "live calls", "processor seconds"], lines)


def main() -> None:
  """Runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--teacher")
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--only", default="", help="part of 'arm seed'")
  parser.add_argument("--runs", default="runs/language", type=pathlib.Path)
  parser.add_argument("--again", action="store_true", help="train all anew")
  flags = parser.parse_args()
  if flags.again:
    study.again(RESULTS)
  if flags.teacher:
    runs = [(arm, seed) for seed in (1, 2, 3) for arm in ARMS]
    commands = {
      run: command(*run, flags.teacher)
      for run in runs
      if flags.only in " ".join(map(str, run))
    }
    study.run_missing(commands, RESULTS, FIELDS, flags.runs, flags.jobs)
  print(table_of_results())


if __name__ == "__main__":
  main()
