"""EmbedDistill on Cranfield: what scores and embeddings teach a query encoder.

  python experiments/retrieval.py [--data=../shared/text] [--jobs=2]

The documents are those of an outside encoder (multilingual-e5-small), which
answers 1,259 titles; 139 titles validate, the 225 real queries test. A
symmetric student has its own vectors of documents, up to 128 words. Of each
loss the temperature is the one whose seed 1 has the best validation nDCG@10;
seeds 2 and 3 follow at that one. Runs are lines of results/retrieval.jsonl.
"""

import argparse
import json
import lzma
import pathlib

import numpy as np
import study

RESULTS = study.HERE / "results" / "retrieval.jsonl"
FIELDS = ("label", "seed")
TEMPERATURES = (0.01, 0.02, 0.05, 0.1)
SEEDS = (1, 2, 3)


def _weights(labels: float, scores: float, embeddings: float) -> dict:
  return {
    "hyper.cross_entropy_weight": labels,
    "hyper.score_weight": scores,
    "hyper.weight": embeddings,
  }


QUERIES = {  # a query encoder for the documents of the outside one
  "supervised": {},
  "score": _weights(0.0, 1.0, 0.0),
  "embedding": _weights(0.0, 0.0, 1.0),
  "both": _weights(1.0, 1.0, 1.0),
  "both, embedding times 5": _weights(1.0, 1.0, 5.0),
}
BOTH = {  # a student that reads the documents, too
  "dataset.retrieval.documents": "student",
  "dataset.text.length": 128,
}
ARMS = QUERIES | {
  f"symmetric, {name}": options | BOTH for name, options in QUERIES.items()
}
YARDSTICKS = ("TF-IDF", "the outside encoder")
FIGURES = ("ndcg@10", "mrr@10", "recall@100")


def files(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """The set, and the encoder's vectors."""
  return folder / "cranfield", folder / "teachers" / "cranfield_e5.npz"


def commands(folder: pathlib.Path, keys) -> dict[tuple, list[str]]:
  """The runs of these (arm, temperature, seed), by the values of FIELDS."""
  cranfield, vectors = files(folder)
  found = {}
  for arm, temperature, seed in keys:
    label = f"{arm}, tau {temperature}"
    method = "embed_distill" if "hyper.weight" in ARMS[arm] else "supervised"
    options = {
      "dataset.path": cranfield,
      "dataset.retrieval.embeddings": vectors,
      "dataset.retrieval.temperature": temperature,
      "label": label,
      "seed": seed,
      "budget_seed": seed,
      **ARMS[arm],
    }
    command = study.main_command(f"cranfield.py:method={method}", options)
    found[label, seed] = command
  return found


def temperatures(arm: str) -> tuple[float, ...]:
  """Equations 7 and 8 alone have none."""
  return TEMPERATURES[:1] if arm.endswith("embedding") else TEMPERATURES


def chosen(arm: str, rows: dict) -> float | None:
  """The temperature with the best validation figure of the first seed."""
  val = {
    tau: rows[key]["val_ndcg@10"]
    for tau in temperatures(arm)
    if (key := (f"{arm}, tau {tau}", SEEDS[0])) in rows
  }
  return max(val, key=lambda tau: val[tau]) if val else None


def yardsticks(folder: pathlib.Path) -> list[dict]:
  """Lines of the results: TF-IDF, and the encoder itself."""
  from sklearn.feature_extraction.text import TfidfVectorizer

  from ckd_jax import data

  cranfield, vectors = files(folder)
  found = data.load(
    "retrieval",
    path=str(cranfield),
    text=data.TextOptions(),
    index=data.RetrievalOptions(str(vectors)),
  )
  file = cranfield / "documents.jsonl.xz"
  with lzma.open(file, "rt", encoding="utf-8") as lines:
    documents = [json.loads(line) for line in lines]
  words = TfidfVectorizer(sublinear_tf=True, stop_words="english")
  texts = [f"{row['title']} {row['text']}" for row in documents]
  weights = words.fit_transform(texts)
  asked = words.transform(list(found.test.questions))
  own = np.float32(found.vectors.test) @ found.anchors.T
  rows = []
  for label, scores in zip(
    YARDSTICKS, ((asked @ weights.T).toarray(), own), strict=True
  ):
    figures = found.judge(scores, found.test)
    named = {f"test_{name}": value for name, value in figures.items()}
    rows.append({**study.stamp(), "label": label, "seed": None, **named})
  return rows


def table() -> str:
  """Markdown: test figures at the temperature that validation chose."""
  rows = study.finished(RESULTS, FIELDS)
  lines = []
  for label in YARDSTICKS:
    if (label, None) in rows:
      figures = [rows[label, None][f"test_{name}"] for name in FIGURES]
      lines.append([label, "-", *(f"{x:.3f}" for x in figures), "-"])
  for arm in ARMS:
    tau = chosen(arm, rows)
    keys = [(f"{arm}, tau {tau}", seed) for seed in SEEDS]
    mine = [rows[key] for key in keys if key in rows]
    if not mine:
      continue
    cells = [
      study.describe([row[f"test_{name}"] for row in mine], digits=3)
      for name in FIGURES
    ]
    calls = str(max(row["teacher_calls"] for row in mine))
    one = len(temperatures(arm)) == 1
    lines.append([arm, "-" if one else str(tau), *cells, calls])
  head = ["loss", "temperature", "nDCG@10", "MRR@10", "Recall@100", "calls"]
  return study.markdown(head, lines)


def main() -> None:
  """Runs what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  shared = study.HERE.parents[1] / "shared" / "text"
  parser.add_argument("--data", type=pathlib.Path, default=shared)
  parser.add_argument("--jobs", type=int, default=2)
  parser.add_argument("--runs", default="runs/retrieval", type=pathlib.Path)
  parser.add_argument("--again", action="store_true", help="train all anew")
  flags = parser.parse_args()
  if flags.again:
    study.again(RESULTS)

  if (YARDSTICKS[0], None) not in study.finished(RESULTS, FIELDS):
    with open(RESULTS, "a") as file:
      file.writelines(f"{json.dumps(x)}\n" for x in yardsticks(flags.data))

  def run(keys) -> None:
    study.run_missing(
      commands(flags.data, keys),
      RESULTS,
      FIELDS,
      flags.runs,
      flags.jobs,
    )

  run([(arm, tau, SEEDS[0]) for arm in ARMS for tau in temperatures(arm)])
  rows = study.finished(RESULTS, FIELDS)
  best = {arm: chosen(arm, rows) for arm in ARMS}
  run([(arm, best[arm], seed) for seed in SEEDS[1:] for arm in ARMS])
  print(table())


if __name__ == "__main__":
  main()
