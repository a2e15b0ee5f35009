"""DML: the public numbers by the method, and a cohort's whole run."""

import jax
import numpy as np
import pytest

import ckd_jax
from ckd_jax import methods, models
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Outputs
from ckd_jax.models import cohort, member
from ckd_jax.student import load
from tests.helpers.arrays import draw
from tests.helpers.recorded import near, recorded
from tests.helpers.runs import (
  LINEAR,
  LINEAR_TEACHER,
  QUICK,
  interrupt_after,
  linear,
  run,
)

PEERS = f"--config.peers={('tests.helpers.runs:linear',) * 2}"
ARG = QUICK + "method=dml,teacher.source=none"


def graded(method, logits, labels):
  """(value, metrics) and the gradient for [members, n, classes]."""
  index = np.arange(len(labels), dtype=np.int32)[:, None]
  batch = Batch(index, None, labels[:, None])

  @jax.jit
  def loss(logits):
    branches = tuple(logits[:, :, None])
    student = Outputs(branches[0], branches=branches)
    value, (_, metrics) = method.loss({}, {}, student, batch, None, 0)
    return value, metrics

  return jax.value_and_grad(loss, has_aux=True)(logits)


@pytest.mark.parametrize(
  "name", ["dml_2", pytest.param("dml_3", marks=pytest.mark.slow)]
)
def test_the_public_values_and_gradients(name):
  _, file = recorded(name)
  (value, _), gradient = graded(
    methods.make("dml"), file["member_logits"], file["labels"]
  )
  near(value, file["loss"].sum())
  near(gradient, file["grad"])


def test_equal_members_learn_from_labels_alone():
  logits = draw(5, 4)[None].repeat(3, 0)
  labels = np.arange(5) % 4
  (_, metrics), gradient = graded(methods.make("dml"), logits, labels)
  assert metrics["mutual"] == 0
  _, alone = graded(methods.make("dml", weight=0.0), logits, labels)
  np.testing.assert_allclose(gradient, alone, rtol=1e-5, atol=1e-7)


def test_a_cohort_is_its_members():
  networks = [linear(10), models.get("cnn", 10)]
  joined = cohort(networks)
  images, key = draw(4, 8, 8, 1), jax.random.key(3)
  params, state = jax.jit(joined.init)(key, images)
  outputs, after = joined.apply(params, state, images, train=False)
  for number, one in enumerate(networks):
    own = member(params, number), member(state, number)
    alone, _ = one.apply(*own, images, train=False)
    np.testing.assert_allclose(
      outputs.branches[number], alone.logits, rtol=1e-5, atol=1e-6
    )
  assert outputs.logits is outputs.branches[0] and outputs.embedding is None
  first, _ = networks[0].init(key, images)
  np.testing.assert_array_equal(member(params, 0)["weight"], first["weight"])
  assert jax.tree.structure(after) == jax.tree.structure(state)


def test_the_first_member_is_the_student_and_all_are_told(tmp_path, digits):
  told = run(tmp_path / "run", LINEAR, PEERS, arg=ARG)
  each = told["branches_test_accuracy"]
  assert len(each) == 3 and len(set(each)) > 1  # they began differently
  assert each[0] == told["test_accuracy"]
  assert told["mean_branch_test_accuracy"] == pytest.approx(np.mean(each))
  assert told["teacher_calls"] == told["live_calls"] == 0
  student = ckd_jax.load_student(
    tmp_path / "run", network="tests.helpers.runs:linear"
  )
  assert set(student.params) == {"weight", "bias"}
  assert told["student_parameters"] == 650
  logits = student(digits.test.inputs)
  hits = 100 * np.mean(logits.argmax(1) == digits.test.labels)
  assert hits == pytest.approx(told["test_accuracy"])


def test_a_cohort_resumes_bit_for_bit(tmp_path, monkeypatch):
  whole = run(tmp_path / "whole", LINEAR, PEERS, arg=ARG)
  with monkeypatch.context() as patch:
    interrupt_after(patch, 12)
    with pytest.raises(KeyboardInterrupt, match="resumes at step 10"):
      run(tmp_path / "cut", LINEAR, PEERS, arg=ARG)
  again = run(tmp_path / "cut", LINEAR, PEERS, arg=ARG)
  for key in ("params_sha256", "branches_test_accuracy"):
    assert again[key] == whole[key]


@pytest.mark.slow  # three runs
def test_without_what_others_say_the_student_is_alone(tmp_path):
  flags = LINEAR, "--config.optimizer.momentum=0.0"
  arg = QUICK + "teacher.source=none,method="
  alone = run(tmp_path / "alone", *flags, arg=arg + "supervised")
  beside = run(
    tmp_path / "beside", *flags, PEERS, arg=arg + "dml,hyper.weight=0.0"
  )
  assert beside["test_accuracy"] == alone["test_accuracy"]
  with_others = run(tmp_path / "with", *flags, PEERS, arg=arg + "dml")
  assert with_others["params_sha256"] != beside["params_sha256"]


@pytest.mark.parametrize(
  ("flags", "arg", "words"),
  [
    ((), "method=dml", "name the others"),
    ((PEERS,), "method=supervised", "trains no peers"),
    (("--config.peers=('resnet9',)",), "method=dml", "unknown peers 'resnet9'"),
  ],
)
def test_a_cohort_that_cannot_be_is_refused(flags, arg, words, tmp_path):
  with pytest.raises(UserError, match=words):
    run(tmp_path, LINEAR, *flags, arg=QUICK + "teacher.source=none," + arg)


@pytest.mark.slow  # two runs, and other programs for other devices
@pytest.mark.parametrize("method", ["bss", "dml"])
def test_a_run_on_four_devices_is_that_on_one(method, tmp_path, monkeypatch):
  flags = (PEERS,) if method == "dml" else ("--config.teacher.steps=20",)
  flags += LINEAR, LINEAR_TEACHER
  arg = f"{QUICK}method={method}"
  four = run(tmp_path / "four", *flags, arg=arg)
  alone = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *args: alone)
  if method == "bss":  # its teacher would be trained with other last digits
    flags += (f"--config.teacher.path={tmp_path / 'four/teacher'}",)
  one = run(tmp_path / "one", *flags, arg=arg)
  assert [told["devices"][0] for told in (four, one)] == ["4", "1"]
  trees = [
    load(tmp_path / name / "student.safetensors")[0] for name in ("four", "one")
  ]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), *trees)
