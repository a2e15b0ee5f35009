"""The plan of a run: mistakes are found before any call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import data
from ckd_jax.errors import UserError
from ckd_jax.methods import Model
from ckd_jax.run.plan import make_plan
from ckd_jax.student import load
from tests.helpers.runs import (
  CNN,
  LINEAR,
  QUICK,
  from_table,
  linear,
  questions,
  read,
  run,
)


@pytest.mark.parametrize("name", ["at", "icd", "ft", "rkd"])
def test_a_student_that_shows_too_little_costs_no_teacher(name, tmp_path):
  with pytest.raises(UserError, match=r"gives no .* works without: .*\bckd\b"):
    run(tmp_path / "run", LINEAR, arg=QUICK + f"method={name}")
  assert not (tmp_path / "run" / "teacher").exists()


def test_a_batch_without_images_costs_no_teacher(tmp_path):
  arg = "method=icd,budget=100,batch_size=500"
  with pytest.raises(UserError, match="batch_size 500 is more than the 80"):
    run(tmp_path / "run", CNN, arg=arg)
  assert not (tmp_path / "run" / "teacher").exists()


@pytest.mark.parametrize("live", [False, True])
def test_a_live_teacher_sees_fresh_images(live):
  """Its maps match whatever the student sees; cached ones match one view."""
  config = read(
    CNN,
    "--config.augment=crop_flip",
    "--config.augment_padding=1",
    f"--config.teacher.live={live}",
    arg=QUICK + "method=fitnet",
  )
  dataset = data.load("digits")
  plan = make_plan(config, dataset)
  images = plan.inputs[:8]
  seen = plan.recipe.view.augment(jax.random.key(0), images)
  assert np.array_equal(seen, images) != live


@pytest.mark.slow
@pytest.mark.parametrize(
  ("arg", "words"),
  [
    ("method=at", "4 maps and the teacher 3"),
    ("method=icd,hyper.ckd_weight=1.0,batch_size=1", "batch of 1 holds no"),
    ("method=icd,hyper.ckd_weight=1.0,batch_size=200", "batch_size 200"),
  ],
)
def test_a_step_that_cannot_be_made_costs_no_call(arg, words, fitted, tmp_path):
  """A local teacher's shapes are known before it is asked."""
  _, teacher = fitted
  with pytest.raises(UserError, match=words):
    run(
      tmp_path / "run",
      "--config.student=resnet8",
      "--config.teacher.source=checkpoint",
      f"--config.teacher.path={teacher}",
      arg=QUICK + arg,
    )
  assert not list(tmp_path.rglob("table*"))


@pytest.mark.parametrize(
  "student", [LINEAR, pytest.param(CNN, marks=pytest.mark.slow)]
)
def test_a_batch_that_the_devices_do_not_divide(
  student, paid, tmp_path, monkeypatch
):
  """Three of four devices for a batch of six; the student is the same."""
  assert len(jax.devices()) == 4
  flags, arg = from_table(paid, student, "--config.batch_size=6")
  three = run(tmp_path / "three", *flags, arg=arg)
  assert three["devices"].startswith("3 x ")
  alone = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *args: alone)
  one = run(tmp_path / "one", *flags, arg=arg)
  assert one["devices"].startswith("1 x ")
  trees = [
    load(tmp_path / name / "student.safetensors")[:2]
    for name in ("three", "one")
  ]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), *trees)
  assert three["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=5.1)


def no_bias(num_classes: int) -> Model:
  """A student whose logits no offset can be folded into."""
  init, apply = linear(num_classes)

  def without(params, *args, **kwargs):
    bias = jnp.zeros_like(params["bias"])
    return apply({**params, "bias": bias}, *args, **kwargs)

  return Model(init, without)


def test_an_offset_that_cannot_be_kept_is_refused_before_the_first_step(
  paid, tmp_path
):
  flags, arg = from_table(
    paid, "--config.student=tests.run.test_plan:no_bias", method="ckd"
  )
  with pytest.raises(UserError, match=r"bias.*hyper\.offset"):
    run(tmp_path, *flags, arg=arg)
  assert not (tmp_path / "metrics.jsonl").exists()


def test_a_student_that_is_no_model_costs_no_call(tmp_path):
  questions.clear()
  for student in ("tests.helpers.runs:nowhere", "math:sqrt"):
    with pytest.raises(UserError, match=student):
      run(
        tmp_path,
        f"--config.student={student}",
        arg=QUICK + "method=kd,teacher.source=callable,"
        "teacher.path=tests.helpers.runs:oracle",
      )
  assert questions == []


def test_a_batch_without_a_group_costs_no_call(tmp_path):
  questions.clear()
  for estimator in ("all", "batch_groups"):
    with pytest.raises(UserError, match="group"):
      run(
        tmp_path,
        LINEAR,
        f"--config.hyper.estimator={estimator}",
        arg=QUICK + "batch_size=1,teacher.source=callable,"
        "teacher.path=tests.helpers.runs:oracle",
      )
  assert questions == []
