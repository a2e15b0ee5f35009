"""Distillation from Python: the command, with objects in place of names."""

import json

import equinox
import flax.linen as nn
import haiku
import jax
import numpy as np
import pytest
from flax import nnx

import ckd_jax
from ckd_jax.errors import UserError
from ckd_jax.student import params_sha256
from tests.helpers.runs import CNN, linear, run
from tests.helpers.texts import oracle, questions, sentences

BAG = "tests.helpers.texts:bag"
SHORT = {"steps": 20, "eval_every": 10, "checkpoint_every": 10, "log_every": 10}


@pytest.fixture(scope="module")
def data(digits):
  """(images, labels) of 120 images to learn from, and 80 to test on."""
  train, test = digits.train, digits.test
  return (
    (train.inputs[:120], train.labels[:120]),
    (test.inputs[:80], test.labels[:80]),
  )


@pytest.fixture(scope="module")
def logits(data):
  """Answers about them that are right more often than not."""
  (_, labels), _ = data
  noise = np.random.default_rng(0).normal(size=(len(labels), 10))
  return (4 * np.eye(10)[labels] + noise).astype(np.float32)


def distil(data, **options):
  return ckd_jax.distill(data=data, **{"batch_size": 32, **SHORT, **options})


class Linen(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(16)(x.reshape(len(x), -1))
    x = nn.BatchNorm(use_running_average=not train)(x)
    x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
    return nn.Dense(10)(x)


class NNX(nnx.Module):
  def __init__(self, rngs):
    self.first = nnx.Linear(64, 16, rngs=rngs)
    self.norm = nnx.BatchNorm(16, rngs=rngs)
    self.dropout = nnx.Dropout(0.1, rngs=rngs)
    self.last = nnx.Linear(16, 10, rngs=rngs)

  def __call__(self, x):
    x = jax.nn.relu(self.norm(self.first(x.reshape(len(x), -1))))
    return self.last(self.dropout(x))


class Equinox(equinox.Module):
  first: equinox.nn.Linear
  norm: equinox.nn.BatchNorm
  dropout: equinox.nn.Dropout
  last: equinox.nn.Linear

  def __init__(self, key):
    first, last = jax.random.split(key)
    self.first = equinox.nn.Linear(64, 16, key=first)
    self.norm = equinox.nn.BatchNorm(16, "batch", mode="batch")
    self.dropout = equinox.nn.Dropout(0.1)
    self.last = equinox.nn.Linear(16, 10, key=last)

  def __call__(self, x, state, *, key=None):
    x, state = self.norm(self.first(x.reshape(-1)), state)
    return self.last(self.dropout(jax.nn.relu(x), key=key)), state


def in_haiku(x, is_training):
  x = haiku.Linear(16)(x.reshape(len(x), -1))
  x = jax.nn.relu(haiku.BatchNorm(True, True, 0.9)(x, is_training))
  if is_training:
    x = haiku.dropout(haiku.next_rng_key(), 0.1, x)
  return haiku.Linear(10)(x)


NETWORKS = {
  "linen": lambda: Linen(),
  "nnx": lambda: NNX(nnx.Rngs(0)),
  "equinox": lambda: equinox.nn.make_with_state(Equinox)(jax.random.key(0)),
  "haiku": lambda: haiku.transform_with_state(in_haiku),
  "model": lambda: linear(10),
}


@pytest.mark.parametrize(
  "framework",
  [
    name if name == "model" else pytest.param(name, marks=pytest.mark.slow)
    for name in NETWORKS
  ],
)
def test_a_network_of_ones_own_is_trained_exported_and_loaded(
  framework, data, logits, tmp_path
):
  from ckd_jax import export

  network = NETWORKS[framework]()
  result = distil(
    data,
    student=network,
    answers=logits,
    method="ckd",
    workdir=tmp_path / "run",
  )
  assert result.path == tmp_path / "run"
  summary = json.loads((result.path / "summary.json").read_text())
  assert summary == result.summary and summary["steps"] == 20
  digest = params_sha256(result.student.params, result.student.state)
  assert digest == summary["params_sha256"]
  images, labels = data[1]
  found = result.student(images)
  assert found.dtype == np.float32 and found.shape == (80, 10)
  accuracy = 100 * (found.argmax(-1) == labels).mean()
  assert summary["test_accuracy"] == pytest.approx(accuracy)
  export.run(result.path, tmp_path / "out")
  again = ckd_jax.load_student(tmp_path / "out", network=NETWORKS[framework]())
  np.testing.assert_array_equal(again(images), found)
  with pytest.raises(UserError, match="give the same one as network="):
    ckd_jax.load_student(tmp_path / "out")
  # The same call with the same folder finds it finished.
  same = distil(
    data,
    student=network,
    answers=logits,
    method="ckd",
    workdir=tmp_path / "run",
  )
  assert same.summary == result.summary


@pytest.mark.slow
def test_batch_statistics_and_dropout_are_those_of_the_network(data):
  """In training they move and drop; in evaluation nothing does."""
  images = np.float32(data[0][0][:8]) / 255
  for framework in ("linen", "nnx", "equinox", "haiku"):
    model = ckd_jax.models.as_model(NETWORKS[framework]())
    params, state = model.init(jax.random.key(0), images)
    first, second = jax.random.split(jax.random.key(1))

    def answer(key, train, model=model, params=params, state=state):
      return model.apply(params, state, images, train=train, key=key)

    one, moved = answer(first, True)
    other, _ = answer(second, True)
    assert not np.allclose(one.logits, other.logits), framework
    assert not all(
      jax.tree.leaves(jax.tree.map(np.array_equal, state, moved))
    ), framework
    still, kept = answer(None, False)
    np.testing.assert_array_equal(still.logits, answer(None, False)[0].logits)
    assert jax.tree.structure(kept) == jax.tree.structure(state)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, state, kept)))


def test_it_is_the_run_of_the_command(tmp_path):
  """Names in a config give the student that the command would give."""
  keys = {**SHORT, "budget": 100, "batch_size": 16}
  config = ckd_jax.get_config("digits", method="supervised", **keys)
  result = ckd_jax.distill(
    config, tmp_path / "python", **{"teacher.source": "none"}
  )
  arg = ",".join(f"{key}={value}" for key, value in keys.items())
  summary = run(
    tmp_path / "command",
    CNN,
    arg=f"{arg},method=supervised,teacher.source=none",
  )
  assert result.summary["params_sha256"] == summary["params_sha256"]
  assert result.student.classes == tuple("0123456789")


def test_a_function_is_asked_within_the_budget_and_once(data, tmp_path):
  asked = []

  def answer(images):
    asked.extend(image.tobytes() for image in images)
    return images.reshape(len(images), -1)[:, :10] / 255.0

  seen = []
  options = {"student": linear(10), "method": "kd", "budget": 50}
  options |= {"workdir": tmp_path / "run", "answers": answer}
  result = distil(
    data,
    progress=lambda step, numbers: seen.append((step, set(numbers))),
    **options,
  )
  assert len(asked) == len(set(asked)) == 40  # 10 of 50 validate
  assert result.summary["teacher_calls"] == 40
  assert [step for step, _ in seen] == [10, 10, 20, 20]
  assert "loss" in seen[0][1] and "val_accuracy" in seen[1][1]
  distil(data, **options)
  assert len(asked) == 40


@pytest.mark.slow
def test_a_table_is_looked_up_by_ids(data, logits, tmp_path):
  order = np.random.default_rng(1).permutation(120)
  ids = [f"train_{row}" for row in order]
  table = ckd_jax.Table.from_arrays(logits[order], ids=ids)
  table.write(tmp_path / "table")
  found = [
    distil(data, student=linear(10), answers=answers, method="kd").summary
    for answers in (logits, table, ckd_jax.Table.read(tmp_path / "table"))
  ]
  # The file holds float16, which is another teacher by a little.
  assert found[0]["params_sha256"] == found[1]["params_sha256"]
  assert found[1]["val_accuracy"] == pytest.approx(
    found[2]["val_accuracy"], abs=5
  )


def test_nothing_is_printed(data, logits, capfd):
  distil(data, student=linear(10), answers=logits, method="kd")
  assert capfd.readouterr() == ("", "")


def test_a_set_without_test_images_has_no_test_accuracy(data, logits):
  result = distil(data[0], student=linear(10), answers=logits, method="kd")
  assert result.summary["test_accuracy"] is None
  assert result.summary["val_accuracy"] is not None


def test_the_offset_by_hand_is_the_function(data, logits):
  """Of all offsets it makes the mean square gap to the target least."""
  labels = data[0][1]
  student = np.random.default_rng(3).normal(size=logits.shape).astype("f4")
  offset = ckd_jax.losses.fitted_offset(
    student, logits, labels, teacher_weight=2.0, label_weight=1.0
  )
  one_hot = np.eye(10)[labels]

  def gap(offset):
    moved = student + offset
    to_teacher = np.square(moved - logits).sum(-1).mean()
    return 2 * to_teacher + np.square(moved - one_hot).sum(-1).mean()

  best = gap(np.asarray(offset))
  for change in 0.01 * np.eye(10):
    assert gap(np.asarray(offset) + change) > best
    assert gap(np.asarray(offset) - change) > best
  with pytest.raises(ValueError, match="one for each"):
    ckd_jax.losses.fitted_offset(student, logits, labels[:-1])


def dropping(key, images):
  """`Model.init` that keeps a random key, which no file can hold."""
  return {"weight": jax.numpy.zeros((64, 10)), "key": key}, {}


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"student": object()}, "not a network"),
    ({"student": linear(10)._replace(init=dropping)}, "random key"),
    ({"student": linear(7)}, "7 logits"),
    ({"student": "resnet9"}, "resnet9"),
    ({"method": "kdd"}, "kdd"),
    ({"answers": lambda images: images}, "give budget=.* all 120 images"),
    ({"answers": np.zeros((7, 10))}, "7 answers for 120"),
    ({"answers": np.zeros((120, 9))}, "9 classes"),
    ({"answers": np.full((120, 10), np.nan)}, "NaN"),
    ({"method": "rkd"}, "embedding"),
    ({"stepz": 3}, "stepz"),
    ({"steps": "many"}, "steps"),
    ({"data": 3}, "data must be"),
    ({"data": (np.zeros((4, 8, 8)), np.zeros(4, int))}, "uint8"),
    ({"data": (np.zeros((4, 8, 8), "u1"), np.zeros(3, int))}, "labels"),
  ],
)
def test_mistakes_are_one_line(options, words, data, logits, tmp_path):
  whole = {"data": data, "student": "cnn", "answers": logits, "method": "kd"}
  with pytest.raises(UserError, match=words) as caught:
    distil(**{**whole, "workdir": tmp_path / "a" / "run", **options})
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "a").exists()  # no folder is left behind


def test_texts_in_memory():
  """Lists of str, labels by name, and a function that is asked about texts."""
  questions.clear()
  texts, tests = sentences(40), sentences(10, seed=1)
  result = ckd_jax.distill(
    data=((texts, ["a", "b"] * 20), (tests, ["a", "b"] * 5)),
    answers=oracle,
    budget=30,
    method="kd",
    student=BAG,
    **SHORT,
    **{"dataset.text.length": 6, "optimizer.learning_rate": 0.5},
  )
  assert result.summary["teacher_calls"] == len(questions) == 24
  assert set(questions) <= set(texts)
  assert result.student.classes == ("a", "b")
  assert result.student.view.length == 6
  right = result.student(tests).argmax(1) == np.arange(10) % 2
  assert result.summary["test_accuracy"] == pytest.approx(100 * right.mean())
  assert right.mean() >= 0.8


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"answers": oracle}, "give budget=.* all 4 texts are"),
    ({"data": (["a", 3], [0, 1])}, "a train text is no str"),
    ({"data": (["a", " "], [0, 1])}, "row 1 has an empty text"),
    ({"data": (["a", "b"], [0.5, 1])}, "labels are float64 of shape"),
    ({"data": (["a", "b"], [0])}, r"of shape \(1,\): give one integer or str"),
    ({"data": (["a", "b"], [0, -1])}, "a train label is -1"),
    ({"answers": np.zeros((3, 2))}, "3 answers for 4 training texts"),
    ({"config": "digits"}, "data are texts, and the config is of images"),
  ],
)
def test_mistakes_with_texts_are_one_line(options, words):
  data = (["a", "b", "c d", "d"], [0, 1, 0, 1])
  method = "kd" if "answers" in options else "supervised"
  given = {"data": data, "method": method, "student": BAG} | options
  with pytest.raises(UserError, match=words) as raised:
    ckd_jax.distill(**given)
  assert "\n" not in str(raised.value)
