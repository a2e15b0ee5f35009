"""For tests of relational losses: recorded values, and degenerate batches."""

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.methods import Batch, Outputs
from tests.helpers.arrays import draw


def follows(loss, path, inputs, gradient="grad", rtol=1e-5):
  """Value and gradient are the recorded ones; NCHW there, NHWC here."""
  with np.load(path, allow_pickle=False) as file:
    recorded = {
      name: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
      for name, array in file.items()
    }
  arguments = [recorded[name] for name in inputs]
  value, slope = jax.jit(jax.value_and_grad(loss))(*arguments)
  np.testing.assert_allclose(value, recorded["loss"].squeeze(), rtol=rtol)
  largest = np.abs(recorded[gradient]).max()
  assert largest > 0
  np.testing.assert_allclose(
    slope, recorded[gradient], rtol=0, atol=rtol * largest
  )


def hazards():
  """(name, student, teacher) of six examples, or of one, with five features."""
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  one_student, one_teacher = student[:1].repeat(6, 0), teacher[:1].repeat(6, 0)
  repeated = [0, 1, 2, 2, 0, 5]
  zero = np.array([1, 0, 1, 1, 0, 1], "f4")[:, None]
  return [
    ("plain", student, teacher),
    ("equal", student, student),
    ("opposite", student, -student),
    ("mirrored", np.concatenate([student[:3], -student[:3]]), teacher),
    ("duplicates", student[repeated], teacher[repeated]),
    ("duplicates of the student", student[repeated], teacher),
    ("all identical", one_student, one_teacher),
    ("identical students", one_student, teacher),
    ("identical teachers", student, one_teacher),
    ("zero rows", student * zero, teacher * zero),
    ("zero rows of the student", student * zero, teacher),
    ("all zero", 0 * student, 0 * teacher),
    ("a student of zeros", 0 * student, teacher),
    ("large", 1e3 * student, 1e3 * teacher),
    ("huge", 1e4 * np.sign(student), 1e4 * np.sign(teacher)),
    ("far from the origin", student + 50, teacher + 50),
    ("one example", student[:1], teacher[:1]),
    ("one zero", 0 * student[:1], 0 * teacher[:1]),
  ]


def stays_finite(loss, dtype):
  """Of every hazard: a finite float32 value and a finite gradient."""
  both = jax.jit(jax.value_and_grad(loss))
  for name, student, teacher in hazards():
    value, slope = both(student.astype(dtype), teacher.astype(dtype))
    assert value.shape == () and value.dtype == jnp.float32, name
    assert np.isfinite(value), name
    assert slope.dtype == dtype, name
    assert np.isfinite(np.asarray(slope, np.float32)).all(), name


def no_gradient_reaches_the_teacher(loss, student, teacher):
  both = jax.jit(jax.grad(loss, argnums=(0, 1)))
  of_student, of_teacher = both(student, teacher)
  assert np.abs(of_student).max() > 0
  assert np.abs(of_teacher).max() == 0


def batch_of(size=6, classes=5, dim=7, maps=((4, 3), (2, 4)), seed=0):
  """(student, batch) as the step hands them to a method's loss."""

  def answer(seed):
    return Outputs(
      jnp.asarray(draw(size, 1, classes, seed=seed, scale=3.0)),
      jnp.asarray(draw(size, 1, dim, seed=seed + 1)),
      tuple(
        jnp.asarray(draw(size, 1, side, side, channels, seed=seed + 2))
        for side, channels in maps
      ),
    )

  labels = jnp.arange(size, dtype=jnp.int32)[:, None] % classes
  return answer(seed), Batch(labels, None, labels, teachers=(answer(seed + 9),))
