"""Prepared sets of texts of tensorflow-datasets."""

import numpy as np
import tensorflow_datasets as tfds

from ckd_jax import data
from ckd_jax.data import TextOptions
from tests.helpers.sets import LABEL, error_line, prepare

TEXT = tfds.features.Text()
NUMBER = tfds.features.Scalar(np.int32)
OPTIONS = TextOptions(length=4)


def rows(count, *names):
  return [
    {**{name: f"{name} w{row}" for name in names}, "label": row % 3, "idx": row}
    for row in range(count)
  ]


def stored(tmp_path, splits, *names, **features):
  kinds = {name: TEXT for name in names} | {"label": LABEL} | features
  prepare(tmp_path, "films", splits, **kinds)


def test_rows_are_in_the_published_order(tmp_path):
  """As the numbers in idx; the unlabelled test split is not the test set."""
  hidden = [{**row, "label": -1} for row in rows(3, "sentence")]
  splits = {
    "train": rows(12, "sentence"),
    "validation": rows(5, "sentence"),
    "test": hidden,
  }
  stored(tmp_path, splits, "sentence", idx=NUMBER)
  found = data.load("films", path=tmp_path, text=OPTIONS)
  assert found.train.ids.tolist() == [f"train_{row}" for row in range(12)]
  assert found.train.questions[11] == "sentence w11"
  assert found.train.labels.tolist() == [row % 3 for row in range(12)]
  assert found.class_names == ("cat", "dog", "eel")
  assert found.test.ids[0] == "validation_0" and len(found.test.ids) == 5
  word = found.view.vocabulary.ids("w7")
  assert found.train.inputs[7].tolist() == [3, *word, 0, 0]
  assert found.judge is data.accuracy


def test_pairs_and_a_class_of_another_name(tmp_path):
  examples = rows(4, "a", "b")
  for row in examples:
    row["kind"] = row.pop("label")
    del row["idx"]
  prepare(
    tmp_path,
    "films",
    {"train": examples, "test": examples},
    a=TEXT,
    b=TEXT,
    kind=LABEL,
  )
  assert "no class 'label', only a, b, kind" in error_line(
    "films", path=tmp_path, text=OPTIONS
  )
  options = OPTIONS._replace(label="kind")
  message = error_line("films", path=tmp_path, text=options)
  assert "the texts a, b: name one, or both of a pair" in message
  options = options._replace(columns=("b", "a"))
  found = data.load("films", path=tmp_path, text=options)
  assert sorted(found.train.questions) == [f"b w{n}\ta w{n}" for n in range(4)]
  message = error_line(
    "films", path=tmp_path, text=options._replace(columns=("c",))
  )
  assert "the texts a, b" in message
  causal = options._replace(causal=True, columns=("a",))
  found = data.load("films", path=tmp_path, text=causal)
  assert found.train.labels.shape == (4, 4) and found.class_names == ()


def test_sets_that_are_no_texts(tmp_path, tiny_set):
  message = error_line("tiny_set", path=tmp_path / "tfds", text=OPTIONS)
  assert "the texts id" in message or "has the texts" in message
  message = error_line("films", path=tmp_path, text=OPTIONS)
  assert "unknown dataset 'films'" in message
  assert "holds images" in error_line("digits", text=OPTIONS)
  assert "needs a section dataset.text" in error_line("text", path=tmp_path)
  assert "needs dataset.path" in error_line("text", text=OPTIONS)
  stored(tmp_path, {"train": rows(3, "a")}, "a", idx=NUMBER)
  message = error_line("films", path=tmp_path, text=OPTIONS)
  assert "no labelled test or validation split" in message
  assert "not for image classification" in error_line("films", path=tmp_path)
