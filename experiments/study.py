"""Many ordinary runs, side by side, resumed where they stopped.

A study is a dict from the key of a run, the values that some fields of its
summary.json will have, to its command. What is finished is a line of a .jsonl.
"""

import concurrent.futures
import contextlib
import datetime
import json
import os
import pathlib
import queue
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
RECIPE = ("learning_rate", "batch_size")  # of a run, beside its summary


def main_command(config: str, options: dict) -> list[str]:
  """`python -m ckd_jax.main` for a file of configs/, with these keys."""
  flags = [f"--config.{key}={value}" for key, value in options.items()]
  main = [sys.executable, "-m", "ckd_jax.main"]
  return [*main, f"--config={HERE.parent}/configs/{config}", *flags]


def finished(results: pathlib.Path, fields: tuple[str, ...]) -> dict:
  """The lines of a results file by their values of `fields`."""
  lines = results.read_text().splitlines() if results.exists() else []
  rows = []
  for line in lines:
    with contextlib.suppress(ValueError):  # cut by a kill: that run goes again
      rows.append(json.loads(line))
  return {tuple(row[field] for field in fields): row for row in rows}


def stamp() -> dict[str, str | None]:
  """When, and by which code: the commit, with a + if files differ from it."""
  return {"date": str(datetime.date.today()), "commit": _commit()}


def _commit() -> str | None:
  """None outside a clone."""

  def git(*arguments: str) -> str:
    command = ["git", "-C", HERE.parent, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()

  try:
    # Lines that a study has just written do not change it.
    code = (".", ":!experiments/results", ":!*.md")
    changed = git("status", "--porcelain", "--", *code)
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)
  except (OSError, subprocess.CalledProcessError):
    return None


def result(folder: pathlib.Path) -> dict:
  """The summary of a finished run, and the rate and batch of its config."""
  summary = json.loads((folder / "summary.json").read_text())
  config = json.loads((folder / "config.json").read_text())
  rate = config["optimizer"]["learning_rate"]
  return summary | dict(zip(RECIPE, (rate, config["batch_size"]), strict=True))


def again(results: pathlib.Path) -> None:
  """Moves a results file aside, so that every run is missing."""
  if results.exists():
    results.rename(results.with_suffix(f".{datetime.date.today()}.jsonl"))


def run_missing(
  commands: dict[tuple, list[str]],
  results: pathlib.Path,
  fields: tuple[str, ...],
  runs_dir: pathlib.Path,
  jobs: int,
) -> None:
  """Runs what is not finished, `jobs` at a time, each on cores of its own.

  Args:
    commands: by key, in the order in which they are begun.
    results: to which a line is appended for each.
    fields: of summary.json: what a key consists of.
    runs_dir: a directory for each run, and its log.
    jobs: how many go side by side.
  """
  runs_dir.mkdir(parents=True, exist_ok=True)
  results.parent.mkdir(exist_ok=True)
  every_core = sorted(os.sched_getaffinity(0))
  cores = queue.SimpleQueue()
  for job in range(jobs):
    cores.put(set(every_core[job::jobs]))
  done = finished(results, fields)
  missing = {key: run for key, run in commands.items() if key not in done}
  pool = concurrent.futures.ThreadPoolExecutor(jobs)
  begun = [
    pool.submit(_run, key, command, results, runs_dir, cores)
    for key, command in missing.items()
  ]
  try:
    for future in begun:
      future.result()
  except subprocess.CalledProcessError as error:
    sys.exit(f"stopped: a run failed, see its .log ({error})")
  finally:  # Ctrl-C too: nothing that has not begun begins
    pool.shutdown(cancel_futures=True)


def _run(key: tuple, command: list[str], results, runs_dir, cores) -> None:
  """Runs or resumes one run on cores that are free, and keeps its result."""
  name = "-".join(re.sub(r"[ ,]+", "-", str(part)) for part in key)
  begun, mine = stamp(), cores.get()
  try:
    with open(runs_dir / f"{name}.log", "a") as log:
      subprocess.run(
        [*_on(mine), *command, f"--workdir={runs_dir / name}"],
        check=True,
        stdout=log,
        stderr=subprocess.STDOUT,
      )
  finally:
    cores.put(mine)
  summary = result(runs_dir / name)
  for private in ("table_path", "table_digest", "params_sha256"):
    summary.pop(private)
  cut = results.exists() and not results.read_text().endswith("\n")
  with open(results, "a") as file:
    line = json.dumps({**begun, **summary, "cores": len(mine)})
    file.write("\n" * cut + line + "\n")
  metric = summary["metric"]
  print(f"{name}: {metric} {summary[f'test_{metric}']:.4g}", flush=True)


def _on(cores: set[int]) -> list[str]:
  """What goes before a command that is to use these cores alone."""
  return ["taskset", "--cpu-list", ",".join(map(str, sorted(cores)))]


def describe(values: list[float], digits: int = 2) -> str:
  """Mean and standard deviation, as far as there are any."""
  if not values:
    return "-"
  if len(values) == 1:
    return f"{values[0]:.{digits}f} (n=1)"
  mean, deviation = statistics.mean(values), statistics.stdev(values)
  return f"{mean:.{digits}f} +- {deviation:.{digits}f} (n={len(values)})"


def markdown(head: list[str], rows: list[list[str]]) -> str:
  """A table."""
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
