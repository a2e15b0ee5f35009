"""Unequal classes and wrong labels: which rows, labels and teacher."""

import numpy as np
import pytest

from ckd_jax import config as configuration
from ckd_jax import data
from ckd_jax.errors import UserError
from ckd_jax.run.dataset import load_dataset
from ckd_jax.run.plan import make_plan
from tests.helpers.arrays import draw
from tests.helpers.runs import LINEAR, LINEAR_TEACHER, QUICK, read, run

NOISE = "dataset.label_noise.rate=0.4,dataset.label_noise.kind=symmetric,"
UNEQUAL = "dataset.imbalance.largest=100,dataset.imbalance.smallest=5,"


def plain(arg="", *flags):
  return load_dataset(read(*flags, arg="hyper.offset=none," + arg))


def test_rows_first_then_labels_and_a_clean_test_split(digits):
  spoiled = plain(NOISE + UNEQUAL)
  true = dict(zip(digits.train.ids, digits.train.labels, strict=True))
  rows = spoiled.train
  clean = np.array([true[name] for name in rows.ids])
  counts = data.corruption.imbalanced_counts(
    10, largest=100, smallest=5, exponent=1.0
  )
  kept = data.corruption.imbalanced_rows(digits.train.labels, counts)
  np.testing.assert_array_equal(rows.ids, digits.train.ids[kept])
  np.testing.assert_array_equal(
    rows.labels,
    data.corruption.noisy_labels(
      clean, num_classes=10, rate=0.4, kind="symmetric", seed=0
    ),
  )
  place = {name: row for row, name in enumerate(digits.train.ids)}
  np.testing.assert_array_equal(
    rows.inputs, digits.train.inputs[[place[name] for name in rows.ids]]
  )
  assert spoiled.test.fingerprint == digits.test.fingerprint
  assert spoiled.whole.fingerprint == digits.train.fingerprint
  about = make_plan(read(arg=NOISE + UNEQUAL + QUICK), spoiled).about
  wrong = int((rows.labels != clean).sum())
  assert about.spoiled == (
    f"{counts.sum():,} of 1,438 rows, {wrong:,} of them with a wrong label"
  )


def test_every_kind_of_spoiling_has_a_fingerprint_of_its_own(digits):
  found = [
    plain(arg).train.fingerprint
    for arg in (
      NOISE,
      NOISE + "dataset.label_noise.seed=1,",
      "dataset.label_noise.rate=0.4,",
      UNEQUAL,
      NOISE + UNEQUAL,
    )
  ]
  assert len({*found, digits.train.fingerprint}) == 6
  assert plain(NOISE).train.fingerprint == found[0]
  assert plain().train.fingerprint == digits.train.fingerprint


def test_the_config_of_a_clean_run_is_what_it_was():
  config = read()
  assert configuration.digest(config) == "040ecee6"
  facts = configuration.flatten(configuration.to_json(read(arg=NOISE)))
  assert facts["dataset.label_noise.rate"] == 0.4
  assert "dataset.label_noise.seed" not in facts
  assert not any("imbalance" in key or "sees" in key for key in facts)
  plain = configuration.to_json(config)["dataset"]
  assert not {"label_noise", "imbalance"} & plain.keys()


@pytest.mark.parametrize(
  ("arg", "words"),
  [
    ("dataset.label_noise.rate=1.1", r"label_noise.rate is 1.1"),
    ("dataset.label_noise.kind=pairs", "did you mean 'pairflip'"),
    ("dataset.imbalance.largest=5", "1 <= smallest <= largest"),
    ("dataset.imbalance.exponent=0.0", "exponent is 0.0"),
    ("teacher.sees=clean,teacher.source=none,method=supervised", "sees=same"),
  ],
)
def test_what_cannot_be_is_refused(arg, words):
  with pytest.raises(UserError, match=words):
    read(arg=arg)


def test_classes_that_are_too_small_are_refused():
  with pytest.raises(UserError, match=r"class 0 has .* smaller `largest`"):
    plain("dataset.imbalance.largest=900,dataset.imbalance.smallest=5")


def test_next_tokens_have_no_classes():
  tokens = np.ones((3, 4), np.int32)
  split = data.make_split(tokens, tokens, list("abc"))
  noise = data.LabelNoise(rate=0.5)
  with pytest.raises(UserError, match="language"):
    data.spoil(split, 5, data.Imbalance(), noise)


@pytest.mark.parametrize("sees", ["same", "clean"])
def test_the_teacher_is_trained_on_what_it_sees(sees, digits):
  arg = f"{NOISE}{UNEQUAL}{QUICK}method=kd,teacher.sees={sees}"
  config = read(arg=arg)
  dataset = load_dataset(config)
  training = make_plan(config, dataset).teacher_training
  seen = load_dataset(training.config).train
  expected = digits.train if sees == "clean" else dataset.train
  assert seen.fingerprint == expected.fingerprint
  assert training.config.budget == len(expected.labels)
  assert "sees" not in training.config.teacher


def test_noise_changes_labels_and_no_answer(tmp_path):
  """The same answers of an array, with and without."""
  answers = tmp_path / "answers.npy"
  np.save(answers, draw(1438, 10))
  flags = LINEAR, "--config.teacher.source=table"
  flags += (f"--config.teacher.path={answers}",)
  found = []
  for name, arg in (("clean", ""), ("noisy", NOISE)):
    run(tmp_path / name, *flags, arg=QUICK + "method=kd," + arg)
    with np.load(tmp_path / name / "table/part-00000.npz") as part:
      found.append(dict(part))
  np.testing.assert_equal(*found)


@pytest.mark.slow
def test_a_noisy_run_with_its_own_teacher(tmp_path):
  arg = NOISE + UNEQUAL + QUICK + "method=kd,teacher.steps=50"
  clean = run(
    tmp_path / "a", LINEAR, LINEAR_TEACHER, arg=arg + ",teacher.sees=clean"
  )
  same = run(tmp_path / "b", LINEAR, LINEAR_TEACHER, arg=arg)
  assert clean["teacher_test_accuracy"] > same["teacher_test_accuracy"]
