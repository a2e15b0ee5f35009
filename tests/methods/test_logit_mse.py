"""Plain logit matching: loops in float64, and the method's two terms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses, methods
from ckd_jax.methods import Batch, Outputs
from tests.helpers import arrays

draw = functools.partial(arrays.draw, scale=3.0)


def reference(student, teacher):
  return [
    sum((float(a) - float(b)) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
    for s, t in zip(student, teacher, strict=True)
  ]


@pytest.mark.parametrize(("n", "classes"), [(6, 10), (1, 10), (1, 2)])
def test_the_formula(n, classes):
  student, teacher = draw(n, classes), draw(n, classes, seed=1)
  value = jax.jit(losses.logit_mse)(student, teacher)
  assert value.shape == (n,) and value.dtype == jnp.float32
  np.testing.assert_allclose(value, reference(student, teacher), rtol=1e-5)


def test_the_gradient_is_twice_the_gap():
  student, teacher = draw(4, 5), draw(4, 5, seed=1)
  gradient = jax.jit(jax.grad(lambda s: losses.logit_mse(s, teacher).sum()))(
    student
  )
  np.testing.assert_allclose(gradient, 2 * (student - teacher) / 5, rtol=1e-5)
  check_grads(
    lambda s: losses.logit_mse(s, teacher), (student,), 1, ["rev"], 2e-2, 2e-2
  )


def test_the_method_adds_teacher_and_labels():
  student, teacher = draw(6, 1, 5), draw(6, 1, 5, seed=1)
  labels = np.arange(6, dtype=np.int32)[:, None] % 5
  batch = Batch(labels, None, labels, teachers=(Outputs(teacher),))
  method = methods.make("logit_mse", teacher_weight=0.3, label_weight=2.0)
  value, (_, metrics) = method.loss(
    {}, {}, Outputs(jnp.asarray(student)), batch, None, 0
  )
  teacher_term = np.mean(reference(student[:, 0], teacher[:, 0]))
  label_term = np.mean(reference(student[:, 0], np.eye(5)[labels[:, 0]]))
  np.testing.assert_allclose(metrics["teacher"], teacher_term, rtol=1e-5)
  np.testing.assert_allclose(metrics["label"], label_term, rtol=1e-5)
  np.testing.assert_allclose(
    value, 0.3 * teacher_term + 2 * label_term, rtol=1e-5
  )
  assert method.offset_target(batch) is None
