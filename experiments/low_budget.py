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
import concurrent.futures
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results" / "low_budget.jsonl"

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


def command(schedule: str, arm: str, seed: int, table: str, workdir) -> list:
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
  return [
    sys.executable,
    "-m",
    "ckd_jax.main",
    f"--config={HERE.parent}/configs/cifar100.py:method={method},budget=2000",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in options.items()),
  ]


def finished() -> dict[tuple, dict]:
  """The lines of the results file by (schedule, arm, seed)."""
  lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
  rows = [json.loads(line) for line in lines]
  return {(row["schedule"], row["label"], row["seed"]): row for row in rows}


def run_one(run: tuple, table: str, cores: queue.SimpleQueue, runs_dir) -> None:
  """Runs or resumes one run on a core that is free, and keeps its result."""
  schedule, arm, seed = run
  name = "-".join(
    [schedule, arm.replace(", ", "-").replace(" ", ""), str(seed)]
  )
  workdir = pathlib.Path(runs_dir) / name
  mine = cores.get()
  try:
    with open(f"{workdir}.log", "a") as log:
      subprocess.run(
        command(schedule, arm, seed, table, workdir),
        check=True,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, mine),
      )
  finally:
    cores.put(mine)
  summary = json.loads((workdir / "summary.json").read_text())
  for key in ("table_path", "table_digest", "params_sha256"):
    summary.pop(key)
  row = {"schedule": schedule, **summary, "cores": len(mine)}
  RESULTS.parent.mkdir(exist_ok=True)
  with open(RESULTS, "a") as file:
    file.write(json.dumps(row) + "\n")
  print(f"{name}: {summary['test_accuracy']:.2f} %", flush=True)


def describe(values: list[float]) -> str:
  """Mean and standard deviation, as far as there are any."""
  if len(values) < 2:
    return f"{values[0]:.2f} (n=1)"
  mean, deviation = statistics.mean(values), statistics.stdev(values)
  return f"{mean:.2f} +- {deviation:.2f} (n={len(values)})"


def table_of_results() -> str:
  """Markdown: test accuracy, calls and seconds of every arm."""
  rows = finished()
  lines = [
    "| schedule | loss | test accuracy % | with fitted offset % | "
    "last step % | last step, offset % | calls | seconds | processor seconds |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for schedule in ("constant", "cosine"):
    for arm in ARMS:
      group = [row for key, row in rows.items() if key[:2] == (schedule, arm)]
      if not group:
        continue
      cells = [describe([row["test_accuracy"] for row in group])]
      fits = [row["offset"]["fit"] for row in group if row["offset"]]
      cells.append(describe([fit["test"] for fit in fits]) if fits else "-")
      cells.append(describe([row["last_test_accuracy"] for row in group]))
      cells.append(
        describe([fit["last_test"] for fit in fits]) if fits else "-"
      )
      cells.append(str(max(row["teacher_calls"] for row in group)))
      seconds = statistics.mean(row["train_seconds"] for row in group)
      cells.append(f"{seconds:.0f}")
      spent = [
        row["processor_seconds"] for row in group if "processor_seconds" in row
      ]
      cells.append(f"{statistics.mean(spent):.0f}" if spent else "-")
      lines.append(" | ".join([f"| {schedule} | {arm}", *cells]) + " |")
  return "\n".join(lines)


def main() -> None:
  """Runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--table")
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--only", default="", help="part of 'schedule arm seed'")
  parser.add_argument("--runs", default="runs/low_budget")
  flags = parser.parse_args()
  if flags.table:
    pathlib.Path(flags.runs).mkdir(parents=True, exist_ok=True)
    every_core = sorted(os.sched_getaffinity(0))
    cores = queue.SimpleQueue()
    for job in range(flags.jobs):
      cores.put(set(every_core[job :: flags.jobs]))
    missing = [
      run
      for run in plan()
      if run not in finished() and flags.only in " ".join(map(str, run))
    ]
    pool = concurrent.futures.ThreadPoolExecutor(flags.jobs)
    done = [
      pool.submit(run_one, run, flags.table, cores, flags.runs)
      for run in missing
    ]
    try:
      for future in done:
        future.result()
    except subprocess.CalledProcessError as error:
      print(f"stopped: a run failed, see its .log ({error})", file=sys.stderr)
    finally:  # Ctrl-C too: nothing that has not begun begins
      pool.shutdown(cancel_futures=True)
  print(table_of_results())


if __name__ == "__main__":
  main()
