"""Figures of answers, against hand-made ones and scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from ckd_jax.data.judges import accuracy, likelihood, matthews, ranking
from ckd_jax.data.split import Split
from ckd_jax.errors import UserError


def split(labels, ids=None) -> Split:
  labels = np.asarray(labels, np.int32)
  names = np.array(ids or [f"row_{row}" for row in range(len(labels))])
  return Split(np.zeros((len(labels), 1), np.int32), labels, names, "")


@pytest.mark.parametrize("classes", [2, 5])
def test_matthews(classes):
  random = np.random.default_rng(classes)
  labels = random.integers(0, classes, 40)
  answers = random.normal(size=(40, classes)) + 2 * np.eye(classes)[labels]
  found = matthews(answers, split(labels))
  assert list(found) == ["matthews", "accuracy"]
  told = answers.argmax(1)
  expected = 100 * metrics.matthews_corrcoef(labels, told)
  assert found["matthews"] == pytest.approx(expected)
  assert found["accuracy"] == 100 * metrics.accuracy_score(labels, told)
  assert accuracy(answers, split(labels))["accuracy"] == found["accuracy"]


def test_matthews_of_one_class():
  answers = np.tile([1.0, 0.0], (3, 1))
  assert matthews(answers, split([0, 1, 0]))["matthews"] == 0
  assert matthews(np.eye(2), split([0, 0]))["matthews"] == 0


def test_likelihood():
  """Two rows, three counted tokens; the padded position counts nowhere."""
  probs = np.array(
    [
      [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]],
      [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]],
    ]
  )
  labels = [[0, 1], [1, -1]]
  for shift in (0.0, 1e4):  # no overflow
    found = likelihood(
      (np.log(probs) + shift).astype(np.float64), split(labels)
    )
    nats = -np.log([0.5, 0.8, 0.3]).mean()
    assert found["minus_nats_per_token"] == pytest.approx(-nats)
    assert found["exact_match"] == 50.0
  right = likelihood(np.log(probs), split([[0, 1], [0, -1]]))
  assert right["exact_match"] == 100.0
  nothing = likelihood(np.log(probs), split([[-1, -1], [-1, -1]]))
  assert set(nothing.values()) == {0.0}  # no match, and no warning
  half = likelihood(np.log(probs), split([[-1, -1], [1, -1]]))
  assert half["exact_match"] == 0  # of the second row alone


# Document c is the best of q1, which also has a; q2 has d alone; q3 has none.
JUDGEMENTS = {"q1": {"a": 1, "c": 3, "b": -1}, "q2": {"d": 4}, "q3": {"a": -1}}
SCORES = np.array(
  [[0.9, 0.8, 0.7, 0.6], [0.4, 0.3, 0.2, 0.1], [9.0, 0.0, 0.0, 0.0]]
)


@pytest.mark.parametrize("graded", [False, True])
def test_ranking(graded):
  judge = ranking(JUDGEMENTS, list("abcd"), graded=graded, depth=3)
  found = judge(SCORES, split([0, 0, 0], ["q1", "q2", "q3"]))
  assert list(found) == ["ndcg@10", "mrr@10", "recall@3"]
  third, fourth, second = 1 / np.log2(4), 1 / np.log2(5), 1 / np.log2(3)
  gain = 3 if graded else 1
  first = (1 + gain * third) / (gain + second)
  assert found["ndcg@10"] == pytest.approx((first + fourth) / 2)
  assert found["mrr@10"] == pytest.approx((1 + 1 / 4) / 2)
  assert found["recall@3"] == pytest.approx((1 + 0) / 2)


def test_ranking_of_many_documents():
  random = np.random.default_rng(0)
  scores = random.normal(size=(6, 30)).astype(np.float32)
  grades = random.integers(-2, 4, (6, 30))
  grades[:, 0] = 1
  names = [f"d{place}" for place in range(30)]
  rows = [dict(zip(names, map(int, row), strict=True)) for row in grades]
  judgements = {f"q{number}": row for number, row in enumerate(rows)}
  queries = split(np.zeros(6), list(judgements))
  for graded in (False, True):
    found = ranking(judgements, names, graded=graded)(scores, queries)
    gains = np.maximum(grades, 0)
    gains = gains if graded else gains > 0
    expected = metrics.ndcg_score(gains, scores, k=10)
    assert found["ndcg@10"] == pytest.approx(expected)
    assert found["recall@100"] == 1


def test_a_first_hit_beyond_ten_counts_for_the_recall_alone():
  names = [f"d{place}" for place in range(12)]
  judge = ranking({"q": {"d11": 1}}, names)
  found = judge(-np.arange(12.0)[None], split([0], ["q"]))
  assert found == {"ndcg@10": 0, "mrr@10": 0, "recall@100": 1}


def test_equal_scores_rank_by_document():
  scores = np.random.default_rng(0).integers(0, 3, 1000)
  names = [f"d{place}" for place in range(1000)]
  order = sorted(range(1000), key=lambda place: -scores[place])
  for rank in (1, 20, 500):
    judgements = {"q": {names[order[rank]]: 1}}
    for depth, found in ((rank, 0), (rank + 1, 1)):
      judge = ranking(judgements, names, depth=depth)
      figures = judge(scores[None].astype(float), split([0], ["q"]))
      assert figures[f"recall@{depth}"] == found


def test_queries_that_nobody_judged_are_judged_by_their_labels():
  judge = ranking(JUDGEMENTS, list("abcd"))
  found = judge(SCORES[:2], split([0, 1], ["title_1", "title_2"]))
  assert found["mrr@10"] == pytest.approx((1 + 1 / 2) / 2)


def test_judgements_of_unknown_documents():
  with pytest.raises(UserError, match="query q2 name the document d"):
    ranking(JUDGEMENTS, list("abc"))
