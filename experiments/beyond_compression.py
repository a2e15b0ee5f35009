"""Nine ways to distil, when labels are wrong, classes unequal, teachers large.

  python experiments/beyond_compression.py --data=cifar10_small.npz \
    [--methods=kd,bss] [--corruptions="clean,noise 0.4"] [--gaps=small] \
    [--seeds=0]

The study of arXiv 2007.01922 on a small scale: 2,500 images of CIFAR-10,
student resnet8, its teacher, or dml's peer, resnet14 (small gap) or resnet32
(large). A teacher is trained once for each gap and corruption, on the same
corrupted images, and answers in every step. supervised and one know no other
network, so they have no gap. A finished cell is one line of
results/beyond_compression.jsonl; the driver resumes. Without --data it prints
the table and draws the picture.
"""

import argparse
import itertools
import pathlib
import statistics
from collections.abc import Sequence

import study

RESULTS = study.HERE / "results" / "beyond_compression.jsonl"
FIELDS = ("method", "label", "budget", "steps", "seed")
TAUGHT = ("kd", "bss", "fitnet", "fsp", "at", "sp", "rkd")
ALONE = ("supervised", "one")
METHODS = ("supervised", *TAUGHT, "dml", "one")
GAPS = {"small": "resnet14", "large": "resnet32"}
SIZES = {"largest": 236, "smallest": 12}  # a twentieth, as published
CORRUPTIONS = {
  "clean": {},
  **{f"noise {p}": {"label_noise.rate": p} for p in (0.2, 0.4, 0.6)},
  **{
    f"imbalance {g}": {
      "imbalance.exponent": g,
      **{f"imbalance.{key}": size for key, size in SIZES.items()},
    }
    for g in (0.2, 0.6, 1, 2)
  },
}
IMAGES, BATCH = 2500, 64  # every class has 236 images or more
Cells = dict[tuple[str, str, str], dict[int, float]]  # see `accuracies`


def rows_of(corruption: str) -> int:
  """How many images are left."""
  from ckd_jax.data.corruption import imbalanced_counts

  exponent = CORRUPTIONS[corruption].get("imbalance.exponent")
  if exponent is None:
    return IMAGES
  return int(imbalanced_counts(10, exponent=exponent, **SIZES).sum())


def of_method(method: str, corruption: str, gap: str, flags, epochs) -> dict:
  """What a method wants; its own epochs keep their share of the training."""
  own = {
    "bss": {"hyper.epochs": epochs, "hyper.attack_steps": 5},
    "fsp": {"hyper.stage_epochs": max(1, epochs * 30 // 240)},
    "one": {
      "hyper.ramp_epochs": max(1, epochs * 80 // 300),
      "student": "one_resnet8",
    },
    "dml": {"peers": (GAPS[gap],)},
  }.get(method, {})
  if method not in TAUGHT:
    return {"teacher.source": "none", **own}
  name = f"{gap} {corruption}".replace(" ", "-")
  return {
    "teacher.source": "train",
    "teacher.name": GAPS[gap],
    "teacher.path": flags.runs / "teachers" / name,
    "teacher.sees": "same",
    "teacher.live": True,
    "teacher.steps": 1536,
    "teacher.schedule": "cosine",
    **own,
  }


def commands(flags) -> dict[tuple, list[str]]:
  """The ordinary command of every cell, by FIELDS."""
  every = {}
  for seed, gap, corruption, method in itertools.product(
    flags.seeds, flags.gaps, flags.corruptions, flags.methods
  ):
    budget = min(flags.budget, rows_of(corruption))
    label = corruption if method in ALONE else f"{corruption}, {gap}"
    epochs = max(1, flags.steps * BATCH // (budget - budget // 5))
    spoils = CORRUPTIONS[corruption]
    options = {
      "dataset.name": "npz",
      "dataset.path": flags.data,
      "label": label,
      "seed": seed,
      "budget": budget,
      "budget_seed": seed,
      "student": "resnet8",
      "student_view": "fresh",
      "batch_size": BATCH,
      "steps": flags.steps,
      "eval_every": max(1, flags.steps // 8),
      "checkpoint_every": flags.steps,
      "schedule": "cosine",
      "optimizer.learning_rate": 0.05,
      **{f"dataset.{key}": value for key, value in spoils.items()},
      **of_method(method, corruption, gap, flags, epochs),
    }
    command = study.main_command(f"cifar10.py:method={method}", options)
    every[method, label, budget, flags.steps, seed] = command
  return every


def accuracies(results: pathlib.Path) -> Cells:
  """{(gap, method, corruption): {seed: test accuracy}}, the teachers', too."""
  cells: Cells = {}
  for (method, label, *_, seed), row in study.finished(results, FIELDS).items():
    corruption, _, gap = label.partition(", ")
    mine = cells.setdefault((gap or "-", method, corruption), {})
    mine[seed] = row["test_accuracy"]
    if method == "kd":
      teacher = {0: row["teacher_test_accuracy"]}
      cells[gap, "teacher", corruption] = teacher
  return cells


def ahead(cells: Cells, gap: str, method: str, corruption: str) -> list[float]:
  """Points ahead of supervised with the same seed, images and labels."""
  base = cells.get(("-", "supervised", corruption), {})
  mine = cells.get((gap, method, corruption), {})
  return [value - base[seed] for seed, value in mine.items() if seed in base]


def table(results: pathlib.Path = RESULTS) -> str:
  """Markdown: accuracy and points ahead, by gap, method and corruption."""
  cells, lines = accuracies(results), []
  for gap, method in itertools.product(("-", *GAPS), ("teacher", *METHODS)):
    line = []
    for corruption in CORRUPTIONS:
      found = cells.get((gap, method, corruption), {})
      points = ahead(cells, gap, method, corruption)
      line.append(study.describe(list(found.values()), 1))
      if points and method not in ("supervised", "teacher"):
        line[-1] += f", {statistics.mean(points):+.1f}"
    if set(line) != {"-"}:
      lines.append([gap, method, *line])
  return study.markdown(["gap", "method", *CORRUPTIONS], lines)


def draw(results: pathlib.Path) -> None:
  """Points ahead of supervised against noise and imbalance, for both gaps."""
  import matplotlib.pyplot as plt

  cells = accuracies(results)
  figure, plots = plt.subplots(
    2, 2, figsize=(10, 7), sharey=True, layout="constrained"
  )
  for (gap, kind), plot in zip(
    itertools.product(GAPS, ("noise", "imbalance")), plots.flat, strict=True
  ):
    names = [name for name in CORRUPTIONS if name.startswith(kind)]
    names = ["clean", *names] if kind == "noise" else names
    for number, method in enumerate(METHODS[1:]):
      mine = "-" if method in ALONE else gap
      points = {
        name.removeprefix(f"{kind} "): statistics.mean(found)
        for name in names
        if (found := ahead(cells, mine, method, name))
      }
      if points:
        line = {"marker": "o", "color": f"C{number}", "label": method}
        plot.plot(*zip(*points.items(), strict=True), **line)
    plot.axhline(0, color="black", linewidth=0.8)
    plot.set(title=f"{gap} gap", xlabel=kind, ylabel="points ahead")
    plot.grid(alpha=0.3)
  lines = plots.flat[0].get_legend_handles_labels()  # every method has some
  plots.flat[1].legend(*lines, frameon=False, ncols=3, fontsize="small")
  figure.savefig(results.with_suffix(".png"), dpi=110)


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """The flags; by default the whole grid."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", help="cifar10_small.npz")
  choices = {"methods": METHODS, "corruptions": CORRUPTIONS, "gaps": GAPS}
  for name, known in {**choices, "seeds": "012"}.items():
    parser.add_argument(
      f"--{name}", default=list(known), type=lambda text: text.split(",")
    )
  parser.add_argument("--steps", type=int, default=512)
  parser.add_argument("--budget", type=int, default=IMAGES, help="at most")
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--runs", default="runs/beyond", type=pathlib.Path)
  parser.add_argument("--results", default=RESULTS, type=pathlib.Path)
  flags = parser.parse_args(argv)
  for name, known in choices.items():
    for other in set(getattr(flags, name)) - set(known):
      parser.error(f"--{name}: no {other!r}, choose from {', '.join(known)}")
  flags.seeds = [int(seed) for seed in flags.seeds]
  return flags


def main() -> None:
  """Runs what is missing, then prints the table and draws."""
  flags = parsed()
  if flags.data:
    where = flags.results, FIELDS, flags.runs, flags.jobs
    study.run_missing(commands(flags), *where)
  print(table(flags.results))
  draw(flags.results)


if __name__ == "__main__":
  main()
