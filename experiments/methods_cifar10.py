"""What does every method make of the same 1,600 answers?

  python experiments/methods_cifar10.py --data=cifar10_small.npz \
    --teacher=resnet56-4bfd9763.th --jobs=2 \
    --assistants resnet20-12fca82f.th resnet32-d509ac18.th

CIFAR-10, the public ResNet-56 (option A) as teacher, student resnet8, budget
2000, 1,000 steps of 64 rows, one cycle. The teacher is asked once, about one
crop and flip of each of the 1,600 images, and its logits, embeddings and maps
are one table for all. Every method runs with its published weights and seed 1;
the six best on the validation images, and ckd, kd (also with the table's view
of every image alone) and supervised, run with three seeds. Methods of several
teachers have the public ResNet-20 and ResNet-32, too; bss attacks the teacher
inside the step, dml trains a resnet20 beside the student, one gives it
branches. A finished run is one line of results/methods_cifar10.jsonl; the
driver resumes, and `--only` names the labels to run. DATA has x_train, y_train,
x_test and y_test.
"""

import argparse
import pathlib

import study

RESULTS = study.HERE / "results" / "methods_cifar10.jsonl"
FIELDS = ("label", "seed")
BEST, ALWAYS = 6, ("ckd", "kd", "kd, table's view", "supervised")

# What departs from the published default, or has more than one form.
VARIANTS = {
  "ckd": {"ckd": {}, "ckd, all": {"hyper.estimator": "all"}},
  "ckd_features": {
    f"ckd + {features}": {"hyper.features": features}
    for features in ("fitnet", "cc", "vid")
  },
  "crd": {"crd, 1024 negatives": {"hyper.negatives": 1024}},
  # What methods on maps pay for seeing one view of every image, and no other.
  "kd": {"kd": {}, "kd, table's view": {"student_view": "table"}},
  "infoflow": {"infoflow + labels": {"hyper.cross_entropy_weight": 1.0}},
  "dml": {"dml, resnet20": {"peers": '("resnet20",)'}},
  "one": {"one": {"student": "one_resnet8"}},
  # The passes over the rows that 1,000 steps are.
  "bss": {"bss": {"hyper.epochs": 40}},
}


def arms() -> dict[str, tuple[str, dict]]:
  """{label: (method, config keys)}, one or more for every method of images."""
  from ckd_jax import methods

  made = {name: methods.make(name) for name in methods.names()}
  return {
    label: (name, keys)
    for name, method in made.items()
    if method.inputs != "texts" and method.answers != "positions"
    for label, keys in VARIANTS.get(name, {name: {}}).items()
  }


def ask(data_path: str, teacher_path: str, folder: pathlib.Path) -> None:
  """The teacher's answers about all that any run uses, as two tables.

  The seed of a run does not choose its images here: seeds differ in initial
  weights, order and augmentation, and share one table.
  """
  from ckd_jax import data, methods, table, teacher
  from ckd_jax.configs import cifar10

  config = cifar10.get_config()
  dataset = data.load("npz", path=data_path)
  network = teacher.from_torch(
    teacher_path,
    config.teacher.name,
    view=data.ImageView(
      dataset.train.inputs.shape[1:], config.teacher.mean, config.teacher.std
    ),
  )
  chosen = data.select(
    len(dataset.train.labels), budget=2000, val_fraction=0.2, seed=1
  )
  everything = frozenset().union(
    *(methods.make(name).needs for name, _ in arms().values())
  )
  every_row = range(len(dataset.test.labels))
  for split, rows, view, needs in (
    ("train", chosen.train, "augmented", everything),
    ("test", every_row, "clean", frozenset({"logits"})),
  ):
    part = getattr(dataset, split)
    order = teacher.Order(
      table.Subject(dataset.name, split, part, dataset.class_names),
      rows,
      needs=needs,
      view=view,
      view_seed=1,
    )
    teacher.build(network, order, folder / split, budget=len(rows))


def commands(flags, seeds: tuple[int, ...], labels) -> dict:
  """The ordinary command of every run, by (label, seed)."""
  tables = flags.runs / "tables"
  every = {}
  for seed in seeds:
    for label in labels:
      method, keys = arms()[label]
      options = {
        "dataset.name": "npz",
        "dataset.path": flags.data,
        "label": label,
        "seed": seed,
        "student": "resnet8",
        "teacher.source": "table",
        "teacher.path": tables / "train",
        "table.test_path": tables / "test",
        "schedule": "cosine",
        "optimizer.learning_rate": 0.05,
        "steps": 1000,
        "eval_every": 100,
        "checkpoint_every": 500,
        **keys,
      }
      if method in ("bss", "ces_kd", "dgkd", "r2kd"):
        del options["table.test_path"]
        options |= {"teacher.source": "torch", "teacher.path": flags.teacher}
        options |= {"table.path": tables / "r2kd", "teacher.view": "augmented"}
      if method == "bss":
        del options["table.path"]
        options["teacher.live"] = True
      if method in ("ces_kd", "dgkd"):
        files = [pathlib.Path(x) for x in (*flags.assistants, flags.teacher)]
        sources = [f"torch:{x.name.partition('-')[0]}_a:{x}" for x in files]
        options["teacher.sources"] = tuple(sources)
        options["table.path"] = tables / "experts"
      every[label, seed] = study.main_command(
        f"cifar10.py:method={method},budget=2000", options
      )
  return every


def three_seeds() -> list[str]:
  """The labels that earn more seeds, by validation accuracy at seed 1."""
  rows = study.finished(RESULTS, FIELDS)
  first = {key[0]: row for key, row in rows.items() if key[1] == 1}
  ranked = sorted(first, key=lambda x: -first[x]["val_accuracy"])
  best = [label for label in ranked if label not in ALWAYS][:BEST]
  return [*ALWAYS, *best]


def table_of_results() -> str:
  """Markdown: accuracy, seconds and calls of every arm, best first."""
  rows = study.finished(RESULTS, FIELDS)
  groups = {}
  for (label, _), row in sorted(rows.items()):
    groups.setdefault(label, []).append(row)

  def mean(label, field):
    values = [row[field] for row in groups[label]]
    return sum(values) / len(values)

  lines = []
  for label in sorted(groups, key=lambda x: -mean(x, "test_accuracy")):
    group = groups[label]
    fits = [row["offset"]["fit"] for row in group if row["offset"]]
    lines.append(
      [
        label,
        study.describe([row["test_accuracy"] for row in group]),
        study.describe([fit["test"] for fit in fits]),
        study.describe([row["val_accuracy"] for row in group]),
        "H100" if "H100" in group[0]["devices"] else "CPU core",
        f"{mean(label, 'train_seconds'):.0f}",
        f"{mean(label, 'processor_seconds'):.0f}",
        str(group[0]["teacher_calls"]),
      ]
    )
  head = ["method", "test accuracy %", "with fitted offset %"]
  head += ["validation accuracy %", "device", "seconds"]
  head += ["processor seconds", "calls"]
  return study.markdown(head, lines)


def main() -> None:
  """Asks, runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", help="cifar10_small.npz")
  parser.add_argument("--teacher", help="resnet56-4bfd9763.th")
  parser.add_argument("--assistants", nargs=2, help="of resnet20, resnet32")
  parser.add_argument("--only", help="labels, separated by semicolons")
  parser.add_argument("--jobs", type=int, default=1)
  parser.add_argument("--runs", default="runs/methods", type=pathlib.Path)
  parser.add_argument("--again", action="store_true", help="train all anew")
  flags = parser.parse_args()
  if flags.again:
    study.again(RESULTS)
  if flags.data and flags.teacher and flags.assistants:
    labels = flags.only.split(";") if flags.only else arms()
    ask(flags.data, flags.teacher, flags.runs / "tables")
    where = RESULTS, FIELDS, flags.runs, flags.jobs
    study.run_missing(commands(flags, (1,), labels), *where)
    more = [label for label in three_seeds() if label in labels]
    study.run_missing(commands(flags, (2, 3), more), *where)
  print(table_of_results())


if __name__ == "__main__":
  main()
