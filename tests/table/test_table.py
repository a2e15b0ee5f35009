"""A table in memory: what a Python program makes, writes and looks up."""

import numpy as np
import pytest

import ckd_jax
from ckd_jax import table
from ckd_jax.errors import UserError
from ckd_jax.table import Table
from tests.helpers.answered import NAMES, ROWS
from tests.helpers.arrays import softmax


def test_arrays_go_to_a_folder_and_back(tmp_path, values):
  embedding = values[:, :2] * 2
  ids = [f"pet {row}" for row in range(ROWS)]
  made = Table.from_arrays(
    values, ids=ids, embedding=embedding, class_names=NAMES, teacher="me"
  )
  made.write(tmp_path / "t")
  read = ckd_jax.Table.read(tmp_path / "t")
  assert (read.kind, read.info["teacher"]) == ("logits", "me")
  assert read.info["class_names"] == list(NAMES)
  for held in (made, read):
    found = held.rows(["pet 4", "pet 1"])
    np.testing.assert_array_equal(found.values, values[[4, 1]])
    np.testing.assert_array_equal(found.embedding, embedding[[4, 1]])
  assert table.check(tmp_path / "t")[1]
  with pytest.raises(UserError, match="already holds a table"):
    made.write(tmp_path / "t")
  read.write(tmp_path / "copy")  # what was read can be written elsewhere
  assert table.read(tmp_path / "copy").ids.tolist() == ids


def test_ids_are_rows_unless_told(values):
  made = Table.from_arrays(values)
  assert made.ids.tolist() == [f"train_{row}" for row in range(ROWS)]
  assert made.info["class_names"] == ["0", "1", "2"]


@pytest.mark.parametrize(
  ("dtype", "held"),
  [("f8", "f4"), ("i8", "f4"), ("f4", "f4"), ("f2", "f2")],
)
def test_devices_hold_no_wide_numbers(dtype, held):
  values = np.arange(6).reshape(2, 3).astype(dtype)
  made = Table.from_arrays(values, embedding=values)
  assert made.answers.values.dtype == made.answers.embedding.dtype == held
  np.testing.assert_array_equal(made.answers.values, values)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"values": np.zeros(3)}, r"shape \(3,\), .* shape \[rows, classes\], or"),
    ({"values": np.asarray([["a", "b"]])}, "not numbers"),
    ({"values": np.full((2, 3), np.nan)}, "NaN"),
    ({"kind": "probs"}, r"probs lie in \[0, 1\]"),
    ({"kind": "prob"}, "did you mean 'probs'"),
    ({"ids": ["a"]}, "7 answers need as many different ids"),
    ({"ids": ["a"] * ROWS}, "7 answers need as many different ids"),
    ({"ids": list("abcdefgh")}, "7 answers need as many different ids"),
    ({"class_names": ["a", "b"]}, "3 classes and the data set has 2"),
    ({"embedding": np.zeros((3, 2))}, r"shape \(3, 2\), not \[7, dim\]"),
    ({"embedding": np.zeros(ROWS)}, r"shape \(7,\), not \[7, dim\]"),
  ],
)
def test_arrays_that_are_no_answers(values, change, message):
  arguments = {"values": values} | change
  with pytest.raises(UserError, match=message):
    Table.from_arrays(arguments.pop("values"), **arguments)


def test_logits_of_every_kind(values):
  """What a student learns from: logs of probabilities, the rest as it is."""
  probs = softmax(values)
  probs[0] = [1, 0, 0]
  answers = table.Answers(probs, embedding=values)
  logits = table.to_outputs(answers, "probs", {"logits", "embedding"})
  np.testing.assert_allclose(logits.logits[1:], np.log(probs[1:]), rtol=1e-5)
  np.testing.assert_allclose(logits.logits[0], np.log([1, 1e-8, 1e-8]))
  assert logits.embedding is values and logits.maps == ()
  for kind in ("logits", "log_probs"):
    found = table.to_outputs(table.Answers(values), kind, {"logits"})
    assert found.logits is values


def test_an_embedding_is_imported(tmp_path, importing, split, values, capsys):
  order = np.random.default_rng(0).permutation(ROWS)
  np.savez(
    tmp_path / "in.npz",
    logits=values[order],
    ids=split.ids[order],
    train_embedding=values[order] * 2,
    test_embedding=values[:1],
    maps_0=np.zeros((ROWS, 2, 2, 1)),
  )
  info = importing(tmp_path / "in.npz")
  assert table.fields(info) == {"logits", "embedding"}
  found = table.read(tmp_path / "out").rows(split.ids)
  np.testing.assert_array_equal(found.values, values)
  np.testing.assert_array_equal(found.embedding, values * 2)
  assert capsys.readouterr().err.endswith("in.npz: not used: maps_0\n")


@pytest.mark.parametrize(
  ("embedding", "message"),
  [
    (np.zeros((ROWS, 2, 2)), r"shape \(7, 2, 2\).*\[rows, dim\]"),
    (np.asarray([["a"]] * ROWS), "not numbers"),
    (np.full((ROWS, 2), np.inf), "'embedding' holds NaN or infinite"),
    (np.zeros((ROWS - 1, 2)), "6 embeddings for 7 answers"),
  ],
)
def test_an_embedding_that_is_none(
  tmp_path, importing, values, embedding, message
):
  np.savez(tmp_path / "in.npz", logits=values, embedding=embedding)
  with pytest.raises(UserError, match=message):
    importing(tmp_path / "in.npz")
  assert not (tmp_path / "out").exists()


def test_probabilities_for_logits_are_told(tmp_path, importing, capsys):
  probs = np.eye(3)[np.arange(ROWS) % 3] * 0.7 + 0.1
  np.savez(tmp_path / "in.npz", logits=probs)
  importing(tmp_path / "in.npz", tmp_path / "a")
  assert "look like probabilities" in capsys.readouterr().err
  importing(tmp_path / "in.npz", tmp_path / "b", kind="probs")
  assert capsys.readouterr().err == ""
