"""A retrieval set of six documents, and the vectors of an encoder."""

import json
import pathlib

import numpy as np

from tests.helpers.arrays import unit

DIM = 4
TITLES = {  # document e has no title, document f nothing at all
  "a": "wing flutter",
  "b": "wing lift",
  "c": "hot plate",
  "d": "cold plate",
  "e": "",
  "f": "",
}
TEXTS = {**{id_: f"about {title}" for id_, title in TITLES.items()}}
TEXTS |= {"e": "nameless lift", "f": " "}
# Query 7 has no relevant document, query 9 no judgement.
QUERIES = {"3": "lift of a wing", "7": "cheese", "8": "plate", "9": "wing"}
QRELS = "query\tdocument\tgrade\n3\tb\t2\n3\ta\t1\n7\tc\t-1\n8\td\t1\n8\tb\t0\n"


def vectors(words: dict[str, str]) -> np.ndarray:
  """float32[n, DIM], of length 1, a function of the words alone."""
  rows = [
    np.sum([_of_word(word) for word in (text.split() or ["-"])], axis=0)
    for text in words.values()
  ]
  return unit(rows).astype(np.float32)


def _of_word(word: str) -> np.ndarray:
  seed = int.from_bytes(word.encode()[:4].ljust(4), "little")
  return np.random.default_rng(seed).normal(size=DIM)


def encode(texts) -> np.ndarray:
  """A black box: texts -> float32[n, DIM]."""
  return vectors(dict(enumerate(texts)))


def folder(path: pathlib.Path, **changes) -> tuple[str, str]:
  """Writes the set and its vectors; returns the paths of both.

  Args:
    path: where to.
    **changes: contents of `documents`, `queries` or `qrels`; or arrays, as
      `vectors`; None leaves a file out.
  """

  def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)

  contents = {
    "documents.jsonl": lines(
      {"id": id_, "title": TITLES[id_], "text": TEXTS[id_]} for id_ in TITLES
    ),
    "queries.jsonl": lines(
      {"id": int(id_), "text": text} for id_, text in QUERIES.items()
    ),
    "qrels.tsv": QRELS,
  }
  for name, content in contents.items():
    content = changes.get(name.partition(".")[0], content)
    if content is not None:
      (path / name).write_text(content)
  arrays = {
    "documents": vectors(TEXTS),
    "titles": vectors(TITLES),
    "queries": vectors(QUERIES),
  }
  file = path / "vectors.npz"
  arrays |= changes.get("vectors", {})
  np.savez(file, **{key: x for key, x in arrays.items() if x is not None})
  return str(path), str(file)
