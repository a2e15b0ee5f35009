"""Nine ways to distil, when labels are wrong, classes unequal, teachers large.

  python experiments/beyond_compression.py --data=cifar10_small.npz \
    [--corruptions="clean,noise 0.4"] [--gaps=small] [--methods=kd,bss] \
    [--seeds=0]

The study of arXiv 2007.01922 on a small scale: CIFAR-10 at 16 x 16 pixels,
student resnet8, its teacher, or dml's peer, resnet14 (small gap) or resnet32
(large). A teacher is trained once for each corruption, on the same corrupted
images, and answers in every step. supervised and one know no other network, so
they have no gap. A finished cell is one line of
results/beyond_compression.jsonl; the driver resumes. Without --data it prints
the tables and draws the picture.
"""

import argparse
import itertools
import pathlib
from collections.abc import Iterable

import study

RESULTS = study.HERE / "results" / "beyond_compression.jsonl"
FIELDS = ("method", "label", "budget", "steps", "seed")
ALONE = ("supervised", "one")
METHODS = ("supervised", "kd", "bss", "fitnet", "fsp", "at", "sp", "rkd")
METHODS += ("dml", "one")
GAPS = {"small": "resnet14", "large": "resnet32"}
NOISE = {f"noise {rate}": rate for rate in (0.2, 0.4, 0.6)}
IMBALANCE = {f"imbalance {power}": power for power in (0.2, 0.6, 1, 2)}
CORRUPTIONS = ("clean", *NOISE, *IMBALANCE)
IMAGES = 2500  # of the training set, of every class 236 or more
LARGEST, SMALLEST = 236, 12  # a twentieth, as published
BATCH = 32


def keys_of(corruption: str) -> dict:
  """What spoils the training set."""
  if corruption in NOISE:
    return {"dataset.label_noise.rate": NOISE[corruption]}
  if corruption in IMBALANCE:
    return {
      "dataset.imbalance.largest": LARGEST,
      "dataset.imbalance.smallest": SMALLEST,
      "dataset.imbalance.exponent": IMBALANCE[corruption],
    }
  return {}


def rows_of(corruption: str) -> int:
  """How many images are left."""
  from ckd_jax.data import corruption as spoiled

  if corruption not in IMBALANCE:
    return IMAGES
  sizes = {"largest": LARGEST, "smallest": SMALLEST}
  power = IMBALANCE[corruption]
  return int(spoiled.imbalanced_counts(10, **sizes, exponent=power).sum())


def keys_for(method: str, corruption: str, gap: str, flags, epochs) -> dict:
  """What one method wants; a schedule keeps its share of the training."""
  keys = {
    "bss": {"hyper.epochs": epochs, "hyper.attack_steps": 5},
    "fsp": {"hyper.stage_epochs": max(1, epochs * 30 // 240)},
    "one": {"hyper.ramp_epochs": max(1, epochs * 80 // 300)},
    "dml": {"peers": (GAPS.get(gap),)},
  }.get(method, {})
  if method == "one":
    keys["student"] = "one_resnet8"
  if method in (*ALONE, "dml"):
    return {"teacher.source": "none", **keys}
  return {
    "teacher.source": "train",
    "teacher.name": GAPS[gap],
    "teacher.path": flags.runs
    / "teachers"
    / f"{gap} {corruption}".replace(" ", "-"),
    "teacher.sees": "same",
    "teacher.live": True,
    "teacher.steps": 500,
    "teacher.schedule": "cosine",
    **keys,
  }


def commands(flags) -> dict[tuple, list[str]]:
  """The ordinary command of every cell, by FIELDS."""
  grid = itertools.product(
    flags.seeds, flags.gaps, flags.corruptions, flags.methods
  )
  every = {}
  for seed, gap, corruption, method in grid:
    budget = min(flags.budget, rows_of(corruption))
    label = corruption if method in ALONE else f"{corruption}, {gap}"
    epochs = max(1, flags.steps * BATCH // (budget - budget // 5))
    options = {
      "dataset.name": "npz",
      "dataset.path": flags.data,
      "dataset.image_size": 16,
      "augment_padding": 2,
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
      **keys_of(corruption),
      **keys_for(method, corruption, gap, flags, epochs),
    }
    every[method, label, budget, flags.steps, seed] = study.main_command(
      f"cifar10.py:method={method}", options
    )
  return every


def accuracies(
  results: pathlib.Path,
) -> dict[tuple[str, str, str], dict[int, float]]:
  """{(gap, method, corruption): {seed: test accuracy}}."""
  cells = {}
  for (method, label, *_, seed), row in study.finished(results, FIELDS).items():
    corruption, _, gap = label.partition(", ")
    place = cells.setdefault((gap or "-", method, corruption), {})
    place[seed] = row["test_accuracy"]
  return cells


def ahead(accuracy: dict) -> dict[tuple[str, str, str], dict[int, float]]:
  """Points ahead of supervised at the same seed, images and corruption."""
  return {
    (gap, method, corruption): {
      seed: value - base[seed] for seed, value in cell.items() if seed in base
    }
    for (gap, method, corruption), cell in accuracy.items()
    if (base := accuracy.get(("-", "supervised", corruption), {}))
    and method != "supervised"
  }


def table(cells: dict | None = None) -> str:
  """Markdown: a row for each gap and method, a column for each corruption."""
  cells = accuracies(RESULTS) if cells is None else cells
  order = list(itertools.product(("-", *GAPS), METHODS))
  lines = [
    [
      *row,
      *(
        study.describe(list(cells.get((*row, c), {}).values()))
        for c in CORRUPTIONS
      ),
    ]
    for row in order
    if any((*row, c) in cells for c in CORRUPTIONS)
  ]
  return study.markdown(["gap", "method", *CORRUPTIONS], lines)


def draw(cells: dict, path: pathlib.Path) -> None:
  """Points ahead of supervised against noise and imbalance, for both gaps."""
  import matplotlib.pyplot as plt

  axes = {"noise rate": {"clean": 0, **NOISE}, "imbalance exponent": IMBALANCE}
  figure, plots = plt.subplots(
    2, 2, figsize=(10, 7), sharey=True, layout="constrained"
  )
  for line, gap in zip(plots, GAPS, strict=True):
    for plot, (name, places) in zip(line, axes.items(), strict=True):
      for method in METHODS[1:]:
        points = {
          x: sum(values.values()) / len(values)
          for c, x in places.items()
          if (
            values := cells.get((gap, method, c)) or cells.get(("-", method, c))
          )
        }
        plot.plot(list(points), list(points.values()), "o-", label=method)
      plot.axhline(0, color="black", linewidth=0.8)
      plot.set(xlabel=name, title=f"{gap} gap", ylabel="points ahead")
      plot.grid(alpha=0.3)
  plots[0, 1].legend(frameon=False, ncols=3, fontsize="small")
  figure.savefig(path, dpi=110)


def parsed(argv: Iterable[str] | None = None) -> argparse.Namespace:
  """The flags; by default the whole grid."""

  def names(text: str) -> list[str]:
    return text.split(",")

  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", help="cifar10_small.npz")
  parser.add_argument("--methods", type=names, default=METHODS)
  parser.add_argument("--corruptions", type=names, default=CORRUPTIONS)
  parser.add_argument("--gaps", type=names, default=tuple(GAPS))
  parser.add_argument(
    "--seeds", type=lambda text: [*map(int, names(text))], default=(0, 1, 2)
  )
  parser.add_argument("--steps", type=int, default=400)
  parser.add_argument("--budget", type=int, default=IMAGES, help="at most")
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--runs", default="runs/beyond", type=pathlib.Path)
  parser.add_argument("--results", default=RESULTS, type=pathlib.Path)
  return parser.parse_args(argv)


def main() -> None:
  """Runs what is missing, then prints the tables and draws."""
  flags = parsed()
  if flags.data:
    where = flags.results, FIELDS, flags.runs, flags.jobs
    study.run_missing(commands(flags), *where)
  cells = accuracies(flags.results)
  print(table(cells), table(ahead(cells)), sep="\n\n")
  draw(ahead(cells), flags.results.with_suffix(".png"))


if __name__ == "__main__":
  main()
