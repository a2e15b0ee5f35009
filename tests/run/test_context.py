"""What lies on the devices: each split its own images, and the right view."""

from types import SimpleNamespace

import numpy as np
import pytest

from ckd_jax import data, teacher
from ckd_jax.run import context, feed
from ckd_jax.run.answers import Collected
from ckd_jax.run.plan import make_plan
from ckd_jax.step import make_mesh
from tests.helpers.runs import LINEAR, QUICK, read


def in_batches(images) -> np.ndarray:
  return np.concatenate([np.asarray(x) for x in images.batches])[: images.count]


def test_every_split_has_its_own_images_and_labels(digits):
  plan = make_plan(read(LINEAR, arg=QUICK + "method=supervised"), digits)
  mesh = make_mesh(16)
  splits = context._splits(plan, digits)
  placed = context._placed(plan, splits, mesh, False, None)
  chosen = data.select(1438, budget=100, val_fraction=0.2, seed=0)
  assert not set(chosen.train) & set(chosen.validation)
  for name, split, rows in (
    ("train", digits.train, chosen.train),
    ("validation", digits.train, chosen.validation),
    ("test", digits.test, np.arange(359)),
  ):
    np.testing.assert_array_equal(in_batches(placed[name]), split.inputs[rows])
    np.testing.assert_array_equal(splits[name].labels, split.labels[rows])
    np.testing.assert_array_equal(splits[name].ids, split.ids[rows])


def test_images_that_do_not_fill_a_batch_are_a_step_of_an_epoch(digits):
  for size, steps in ((16, 5), (32, 3), (79, 2), (80, 1)):
    config = read(
      LINEAR,
      f"--config.batch_size={size}",
      arg=QUICK + "method=supervised,schedule=plateau",
    )
    plan = make_plan(config, digits)
    assert plan.recipe.task.steps_per_epoch == steps
    assert plan.intervals.evaluate == steps


@pytest.mark.parametrize("view", ["clean", "augmented"])
@pytest.mark.parametrize("student_view", ["fresh", "table"])
def test_a_student_with_the_tables_view_sees_what_the_teacher_saw(
  student_view, view
):
  draw = np.random.default_rng(0)
  images = draw.integers(0, 256, (20, 6, 6, 3), np.uint8)
  ids = np.asarray([f"train_{row}" for row in range(20)])
  plan = SimpleNamespace(student_view=student_view)
  answers = Collected(view=view, view_seed=7, view_pad=2)
  seen = feed.student_inputs(plan, images, ids, answers)
  same = view == "clean" or student_view == "fresh"
  wanted = images if same else teacher.augmented(images, ids, seed=7, pad=2)
  np.testing.assert_array_equal(seen, wanted)
  assert (seen != images).any() != same
