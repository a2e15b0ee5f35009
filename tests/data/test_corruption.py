"""Unequal classes and wrong labels: public counts, matrices and shares."""

import numpy as np
import pytest

from ckd_jax.data import corruption
from ckd_jax.errors import UserError
from tests.helpers.recorded import recorded

KINDS = ("uniform", "symmetric", "pairflip")
LABELS = np.arange(60_000) % 10


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_public_counts(name):
  facts, file = recorded("harness")
  totals = []
  for exponent, expected in zip(
    facts["exponents"], file[f"counts_{name}"], strict=True
  ):
    found = corruption.imbalanced_counts(
      len(expected), **facts[name], exponent=exponent
    )
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64
    totals.append(found.sum())
  assert (
    totals
    == {
      "cifar10": [8662, 9390, 10421, 14402],
      "cifar100": [4282, 5759, 8072, 15214],
    }[name]
  )


def test_the_public_rows():
  facts, file = recorded("harness")
  counts = corruption.imbalanced_counts(6, **facts["small"])
  np.testing.assert_array_equal(counts, file["small_counts"])
  rows = corruption.imbalanced_rows(file["small_labels"], counts)
  np.testing.assert_array_equal(rows, np.sort(file["small_rows"]))


@pytest.mark.parametrize("classes", [2, 3, 1000])
@pytest.mark.parametrize("exponent", [0.01, 1, 50])
def test_counts_begin_and_end_as_asked_and_never_rise(classes, exponent):
  counts = corruption.imbalanced_counts(
    classes, largest=700, smallest=1, exponent=exponent
  )
  assert (counts[0], counts[-1], len(counts)) == (700, 1, classes)
  assert (np.diff(counts) <= 0).all()


def test_equal_counts_are_equal():
  for classes in (1, 4):
    found = corruption.imbalanced_counts(
      classes, largest=9, smallest=9, exponent=1.0
    )
    assert found.tolist() == [9] * classes


def test_rows_are_the_first_of_each_class_in_order():
  labels = np.random.default_rng(0).integers(0, 4, 200)
  counts = np.array([9, 0, 20, 1])
  rows = corruption.imbalanced_rows(labels, counts)
  seen, expected = [0] * 4, []
  for row, label in enumerate(labels):
    if seen[label] < counts[label]:
      expected.append(row)
    seen[label] += 1
  assert rows.tolist() == expected and len(rows) == counts.sum()


@pytest.mark.parametrize("kind", ["symmetric", "pairflip"])
def test_the_public_matrices(kind):
  facts, file = recorded("harness")
  found = corruption.noise_matrix(10, rate=facts["matrix_rate"], kind=kind)
  np.testing.assert_allclose(found, file[f"matrix_{kind}"], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.2, 0.6, 1.0])
def test_labels_are_drawn_by_the_matrix(kind, rate):
  found = corruption.noisy_labels(
    LABELS, num_classes=10, rate=rate, seed=3, kind=kind
  )
  shares = np.zeros((10, 10))
  np.add.at(shares, (LABELS, found), 10 / len(LABELS))
  matrix = corruption.noise_matrix(10, rate=rate, kind=kind)
  np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
  np.testing.assert_allclose(shares, matrix, atol=4 * (0.25 / 6000) ** 0.5)
  assert ((shares > 0) == (matrix > 0)).all()


def test_the_public_share_of_changed_labels():
  """A uniform draw may give the true class: p (1 - 1 / classes) change."""
  facts, file = recorded("harness")
  for rate, expected in zip(
    facts["noise_rates"], file["share_changed"], strict=True
  ):
    found = corruption.noisy_labels(LABELS, num_classes=10, rate=rate, seed=0)
    share = np.mean(found != LABELS)
    np.testing.assert_allclose(expected, share, atol=4 * (0.25 / 6e4) ** 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_depends_on_the_seed_alone(kind):
  def noisy(labels, rate=0.4, seed=1):
    return corruption.noisy_labels(
      labels, num_classes=10, rate=rate, seed=seed, kind=kind
    )

  labels = LABELS[:500].astype(np.uint8)
  kept = labels.copy()
  labels.setflags(write=False)
  found = noisy(labels)
  assert found.dtype == np.uint8 and found.base is None
  np.testing.assert_array_equal(found, noisy(labels))
  np.testing.assert_array_equal(labels, kept)
  assert (found != noisy(labels, seed=2)).any()
  np.testing.assert_array_equal(noisy(labels[:100]), found[:100])
  np.testing.assert_array_equal(noisy(labels, rate=0), labels)
  more = noisy(labels, rate=0.8)
  assert (more[found != labels] == found[found != labels]).all()
  square = noisy(labels.reshape(50, 10))
  np.testing.assert_array_equal(square, found.reshape(50, 10))
  assert noisy(labels[:0]).shape == (0,)


def test_many_classes_fit_in_a_byte():
  for kind in KINDS:
    narrow, wide = (
      corruption.noisy_labels(
        np.arange(200, dtype=dtype), num_classes=200, rate=1, seed=0, kind=kind
      )
      for dtype in (np.uint8, np.int64)
    )
    np.testing.assert_array_equal(narrow, wide)
    assert kind == "uniform" or (wide != np.arange(200)).all()
  assert corruption.noise_matrix(1, rate=0.5).tolist() == [[1.0]]


def count(**change):
  return corruption.imbalanced_counts(
    **{"num_classes": 5, "largest": 9, "smallest": 2, "exponent": 1.0} | change
  )


def noise(labels=(0, 1), **change):
  hyper = {"num_classes": 3, "rate": 0.5, "seed": 0} | change
  return corruption.noisy_labels(np.array(labels), **hyper)


@pytest.mark.parametrize(
  ("mistake", "told"),
  [
    (lambda: count(num_classes=0), "num_classes is 0"),
    (lambda: count(num_classes=1), "one class"),
    (lambda: count(smallest=0), "smallest is 0"),
    (lambda: count(largest=1), "largest is 1"),
    (lambda: count(largest=5.5), "largest is 5.5"),
    (lambda: count(smallest=float("nan")), "smallest is nan"),
    (lambda: count(exponent=0), "exponent is 0"),
    (lambda: count(exponent=float("nan")), "exponent is nan"),
    (lambda: corruption.imbalanced_rows([0, 1, 1], [1, 3]), "class 1 has 2"),
    (lambda: corruption.imbalanced_rows([0, 2], [1, 1]), "label is 2"),
    (lambda: corruption.imbalanced_rows([0, 1], [1, -1]), r"are \[1, -1\]"),
    (lambda: corruption.imbalanced_rows([0, 1], [1, 0.5]), r"are \[1.0, 0.5"),
    (lambda: noise(rate=1.1), "rate is 1.1"),
    (lambda: noise(rate=float("nan")), "rate is nan"),
    (lambda: noise(kind="flip"), "'flip': choose one of uniform"),
    (lambda: noise(seed=-1), "seed is -1"),
    (lambda: noise((0, 3)), "label is 3"),
    (lambda: noise((0.5,)), "float64 are no classes"),
    (lambda: noise((0,), num_classes=1, kind="symmetric"), "needs 2"),
    (lambda: corruption.noise_matrix(3, rate=-1), "rate is -1"),
  ],
)
def test_a_mistake_is_one_line(mistake, told):
  with pytest.raises(UserError, match=told) as raised:
    mistake()
  assert "\n" not in str(raised.value)
