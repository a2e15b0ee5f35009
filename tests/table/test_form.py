"""Tables of language models: positions, and the most probable tokens."""

import json

import numpy as np
import pytest

from ckd_jax import table
from ckd_jax.data import Split
from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.table import Form, Subject, Table
from ckd_jax.table.form import top

ROWS, LENGTH, NAMES = 4, 3, ("a", "b", "c", "d", "e")
FORM = Form(len(NAMES), LENGTH, 2)


@pytest.fixture
def values():
  draw = np.random.default_rng(0)
  return draw.normal(size=(ROWS, LENGTH, len(NAMES))).astype(np.float32)


@pytest.fixture
def subject():
  return Subject(
    "texts",
    "train",
    Split(
      inputs=np.ones((ROWS, LENGTH), np.int32),
      labels=np.asarray([[1, 2, -1]] * ROWS, np.int32),
      ids=np.asarray([f"train_{row}" for row in range(ROWS)]),
      fingerprint="f00d",
    ),
    NAMES,
  )


def imported(path, subject, **arrays):
  np.savez(path / "in.npz", **arrays)
  table.import_file(path / "in.npz", subject, path / "out")
  return table.read(path / "out")


def test_the_most_probable_are_kept(values):
  kept = top(values, "logits", 2)
  probs = np.exp(np.float64(values))
  probs /= probs.sum(-1, keepdims=True)
  order = np.argsort(-probs, -1)[..., :2]
  np.testing.assert_array_equal(kept.ids, order)
  wanted = np.take_along_axis(probs, order, -1)
  np.testing.assert_allclose(np.exp(kept.log_probs), wanted, rtol=1e-6)
  np.testing.assert_allclose(kept.rest, 1 - wanted.sum(-1), rtol=1e-6)
  for kind, given in (("probs", probs), ("log_probs", np.log(probs))):
    for found, same in zip(top(given, kind, 2), kept, strict=True):
      np.testing.assert_allclose(found, same, rtol=1e-6)
  FORM.check_kept(kept)


@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_an_answer_is_a_flat_row_and_back(values, k):
  form = FORM._replace(top_k=k)
  given = form.kept(values, "logits")
  flat = form.pack(given)
  assert flat.shape == (ROWS, form.width) and flat.dtype == np.float32
  found = form.unpack(flat)
  for one, other in zip(found, given, strict=True):
    np.testing.assert_array_equal(one, other)
    assert one.dtype == other.dtype


def test_many_numbers_are_sorted_row_by_row(values, monkeypatch):
  whole = top(values, "logits", 2)
  monkeypatch.setattr("ckd_jax.table.form._AT_ONCE", 1)
  for one, other in zip(top(values, "logits", 2), whole, strict=True):
    np.testing.assert_array_equal(one, other)
    assert one.dtype == other.dtype


def test_answers_for_every_position_are_imported(tmp_path, subject, values):
  held = imported(tmp_path, subject, logits=values)
  np.testing.assert_allclose(held.answers.values, values, rtol=1e-3)
  assert Form.of(held.info) == FORM._replace(top_k=0)
  report, is_clean = table.check(tmp_path / "out", subject.split)
  told = values.argmax(-1)[:, :2] == [1, 2]
  assert is_clean and report["agreement"] == pytest.approx(100 * told.mean())


def test_the_most_probable_tokens_are_imported(tmp_path, subject, values):
  kept = top(values, "logits", 2)
  arrays = {"top_ids": kept.ids, "top_log_probs": kept.log_probs}
  held = imported(tmp_path, subject, **arrays)
  assert held.kind == "log_probs" and Form.of(held.info) == FORM
  found = held.rows(["train_2", "train_0"]).values
  np.testing.assert_array_equal(found.ids, kept.ids[[2, 0]])
  np.testing.assert_array_equal(found.log_probs, kept.log_probs[[2, 0]])
  np.testing.assert_allclose(found.rest, kept.rest[[2, 0]], atol=1e-6)
  report, is_clean = table.check(tmp_path / "out", subject.split)
  told = values.argmax(-1)[:, :2] == [1, 2]
  assert is_clean and report["agreement"] == pytest.approx(100 * told.mean())
  assert table.fields(held.info) == {"logits"}
  # Its form is part of its digest, and a flipped bit of a part is told.
  info = json.loads((tmp_path / "out/table.json").read_text())
  with pytest.raises(UserError, match="changed after it was written"):
    (tmp_path / "out/table.json").write_text(json.dumps(info | {"top_k": 3}))
    table.read(tmp_path / "out")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"top_ids": np.full((ROWS, LENGTH, 2), 5)}, "a token id is 5"),
    ({"top_ids": np.full((ROWS, LENGTH, 2), 1)}, "occurs twice"),
    ({"top_log_probs": np.zeros((ROWS, LENGTH, 2))}, "sum to 1"),
    ({"top_log_probs": np.full((ROWS, LENGTH, 2), np.nan)}, "sum to 1"),
    ({"top_rest": np.full((ROWS, LENGTH), -0.5)}, "sum to 1"),
    ({"top_log_probs": np.zeros((ROWS, LENGTH, 1))}, "have shape"),
    ({"top_ids": np.zeros((ROWS, LENGTH, 2))}, "are integers"),
    ({"logits": np.zeros((ROWS, 2, 5))}, r"not \[rows, 3, 5\]"),
    ({"logits": np.zeros((ROWS, 5))}, r"not \[rows, 3, 5\]"),
    ({"logits": np.zeros((ROWS, LENGTH, 4))}, "4 classes"),
  ],
)
def test_what_makes_no_sense_is_refused(
  tmp_path, subject, values, change, message
):
  kept = top(values, "logits", 2)
  arrays = {"top_ids": kept.ids, "top_log_probs": kept.log_probs} | change
  with pytest.raises(UserError, match=message):
    imported(tmp_path, subject, **arrays)


@pytest.mark.parametrize("part", TopK._fields)
def test_numbers_that_do_not_fit_are_refused_without_a_warning(values, part):
  kept = top(values, "logits", 2)
  for wrong in (1e43, 1e30, np.nan):
    given = {part: np.full(getattr(kept, part).shape, wrong)}
    with pytest.raises(UserError):
      FORM.check_kept(table.as_numbers(kept._replace(**given)))


def test_what_is_wrong_with_scores_is_told_of_documents():
  form, half = Form(5, None, 2), np.log(np.full((1, 2), 0.5))
  for ids, log_probs, words in (
    ([1, 5], half, "a document id is 5, and those of the data set are 0 to 4"),
    ([1, 1], half, "a document occurs twice"),
    ([1, 2], 2 * half, "most probable documents"),
  ):
    with pytest.raises(UserError, match=words):
      form.check_kept(TopK(np.array([ids]), log_probs, np.zeros(1)))


def test_a_part_of_another_form_is_refused(tmp_path, values):
  made = Table.from_arrays(values, class_names=NAMES)
  made.write(tmp_path / "t")
  assert Form.of(table.read(tmp_path / "t").info).positions == LENGTH
  info = table.read_info(tmp_path / "t")
  table.write_info(tmp_path / "t", info | {"positions": 2})
  with pytest.raises(UserError, match="holds no answers that ckd_jax wrote"):
    table.read(tmp_path / "t")


def test_nothing_but_the_form_tells_two_tables_apart(tmp_path, subject):
  info = table.new_info(subject.facts(), teacher="t", missing=[])
  table.write_info(tmp_path, info)
  table.require(tmp_path, info, positions=None, top_k=None)
  with pytest.raises(UserError, match="has top_k None and this run 2"):
    table.require(tmp_path, info, top_k=2)


def test_answers_alike_are_told(values):
  same = np.broadcast_to(values[:1], values.shape)
  assert table.are_constant(same) and not table.are_constant(values)
  kept = top(values, "logits", 1)
  assert not table.are_constant(kept)
  assert table.are_constant(TopK(*(np.repeat(x[:1], 2, 0) for x in kept)))
