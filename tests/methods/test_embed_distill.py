"""EmbedDistill: the public numbers, the definitions in float64, the method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses, methods
from ckd_jax.methods import Task
from ckd_jax.methods.embed_distill import DISTANCES
from tests.helpers.arrays import draw, log_softmax, unit
from tests.helpers.dtypes import every_dtype
from tests.helpers.recorded import near, recorded
from tests.helpers.relational import batch_of

EVERY = {
  distance: functools.partial(losses.embedding_match, distance=distance)
  for distance in DISTANCES
}


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_public_values_and_gradients(distance):
  _, file = recorded("embed_distill")
  sides = ("query", "document")

  def step(query, document, projection):
    terms = []
    for x, side in ((query, "query"), (document, "document")):
      x = x @ projection + file["projection_bias"][None]
      terms.append(EVERY[distance](x, file[f"teacher_{side}"]).mean())
    return sum(terms) / 2, terms[0]

  names = (*sides, "projection")
  (value, of_query), gradients = jax.jit(
    jax.value_and_grad(step, argnums=(0, 1, 2), has_aux=True)
  )(*(file[name] for name in names))
  near(value, file[f"loss_{distance}"])
  near(of_query, file[f"loss_query_{distance}"])
  for name, gradient in zip(names, gradients, strict=True):
    near(gradient, file[f"grad_{name}_{distance}"])


def reference(distance, student, teacher):
  s, t = np.float64(student), np.float64(teacher)
  if distance == "l2":
    return np.linalg.norm(s - t, axis=-1)
  if distance == "mse":
    return ((s - t) ** 2).mean(-1)
  return 1 - (unit(s) * unit(t)).sum(-1)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_definition(distance):
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  found = jax.jit(EVERY[distance])(student, teacher)
  assert found.shape == (6,) and found.dtype == jnp.float32
  np.testing.assert_allclose(
    found, reference(distance, student, teacher), rtol=1e-5
  )
  with pytest.raises(ValueError, match="same shape"):
    EVERY[distance](student, teacher[:1])


@every_dtype
@pytest.mark.parametrize("distance", DISTANCES)
def test_hazards(distance, dtype):
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  graded = jax.jit(
    jax.value_and_grad(lambda s, t: EVERY[distance](s, t).sum(), argnums=(0, 1))
  )
  for s, t in (
    (student, teacher),
    (student, student),
    (0 * student, teacher),
    (student, 0 * teacher),
    (0 * student, 0 * teacher),
    (1e4 * student, -1e4 * student),
    (1e-6 * student, 1e-6 * teacher),
  ):
    value, (of_student, of_teacher) = graded(s.astype(dtype), t.astype(dtype))
    assert np.isfinite(value) and np.isfinite(of_student).all()
    assert not of_teacher.any()
    if s is t:
      assert value == 0 and not of_student.any()
  assert graded(student.astype(dtype), teacher.astype(dtype))[0] > 0


def test_a_zero_embedding_has_no_direction():
  zero, other = np.zeros((2, 3), "f4"), draw(2, 3)
  match = jax.jit(EVERY["cosine"])
  for pair in ((zero, other), (other, zero), (zero, zero)):
    assert match(*pair).tolist() == [1, 1]


@pytest.mark.parametrize("wide", [False, True])
def test_the_method_adds_its_three_terms(wide):
  student, batch = batch_of()
  (teacher,) = batch.teachers
  if wide:
    wider = jnp.asarray(draw(6, 1, 9, seed=5))
    teacher = teacher._replace(embedding=wider)
    batch = batch._replace(teachers=(teacher,))
  method = methods.make(
    "embed_distill", weight=5.0, score_weight=2.0, cross_entropy_weight=0.5
  )
  task = Task(6, 5, 6, 1, batch.labels[:, 0])
  params, state = method.init(jax.random.key(0), task, student, teacher)
  assert method.needs == {"logits", "embedding"}
  ours = np.float64(student.embedding[:, 0])
  assert bool(params) == wide
  if wide:
    layer = params["projection"]
    assert layer["weight"].shape == (7, 9)
    ours = ours @ np.float64(layer["weight"]) + np.float64(layer["bias"])
  value, (_, metrics) = jax.jit(method.loss)(
    params, state, student, batch, jax.random.key(1), 0
  )
  mine, theirs = log_softmax(student.logits), log_softmax(teacher.logits)
  expected = {
    "embedding": reference("l2", ours, teacher.embedding[:, 0]).mean(),
    "score": (np.exp(theirs) * (theirs - mine)).sum(-1).mean(),
    "cross_entropy": -mine[np.arange(6), 0, batch.labels[:, 0]].mean(),
  }
  for name, term in expected.items():
    np.testing.assert_allclose(metrics[name], term, rtol=1e-5, err_msg=name)
  total = np.dot([5.0, 2.0, 0.5], list(expected.values()))
  np.testing.assert_allclose(value, total, rtol=1e-5)


def test_a_student_that_is_the_teacher_has_labels_left():
  student, batch = batch_of()
  method = methods.make("embed_distill")
  batch = batch._replace(teachers=(student,))
  _, (_, metrics) = jax.jit(method.loss)({}, {}, student, batch, None, 0)
  assert metrics["embedding"] == metrics["score"] == 0
  assert metrics["cross_entropy"] > 0


def test_an_unknown_distance_is_refused_in_one_line():
  with pytest.raises(ValueError, match="'l1': choose one of l2, mse, cosine"):
    methods.make("embed_distill", distance="l1")
  with pytest.raises(ValueError, match="l1"):
    losses.embedding_match(draw(2, 3), draw(2, 3), distance="l1")


@pytest.mark.slow  # the recorded gradients say the same
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_is_a_finite_difference(distance):
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  loss = jax.jit(lambda s: EVERY[distance](s, teacher))
  check_grads(loss, (student,), 1, ["rev"], 2e-2, 2e-2)
