"""BSS: public numbers, a linear teacher's closed form, draws, the method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses, methods
from ckd_jax.errors import UserError
from ckd_jax.methods import Ask, Batch, Outputs, Task
from ckd_jax.numerics import cross_entropy
from tests.helpers.arrays import draw, log_softmax, softmax
from tests.helpers.recorded import near, recorded
from tests.helpers.runs import LINEAR, LINEAR_TEACHER, QUICK, run


def nhwc(x):
  return np.moveaxis(x, 1, -1)


def flat(x):
  """Images as the public code flattens them: channels first."""
  return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


def teacher_of(file):
  if "teacher_k" not in file:
    return lambda x: flat(x) @ file["teacher_w"] + file["teacher_b"][None]

  def apply(x):
    x = jax.lax.conv_general_dilated(
      x,
      file["teacher_k"],
      window_strides=(2, 2),
      padding=((1, 1), (1, 1)),
      dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )
    x = jax.nn.relu(x + file["teacher_kb"][None, None, None]).mean((1, 2))
    return x @ file["teacher_w"] + file["teacher_b"][None]

  return apply


@pytest.fixture(
  scope="module",
  params=["bss_conv", pytest.param("bss_linear", marks=pytest.mark.slow)],
)
def case(request):
  facts, file = recorded(request.param)
  attack = jax.jit(
    lambda x, targets: losses.bss_attack(
      teacher_of(file),
      x,
      targets,
      **{k: facts[k] for k in ("steps", "step_size", "low", "high")},
    )
  )
  return facts, file, attack


def test_the_attack_moves_every_row_as_published(case):
  facts, file, attack = case
  x = nhwc(file["inputs"])
  near(teacher_of(file)(x), file["teacher_logits"])
  found = attack(x, file["all_targets"])
  assert found.shape == x.shape and found.dtype == x.dtype
  np.testing.assert_allclose(
    found, nhwc(file["all_attacked"]), rtol=0, atol=3e-5
  )
  first, last = (teacher_of(file)(y).argmax(1) for y in (x, found))
  assert np.mean(first != last) == facts["crossed"]
  assert np.abs(found).max() <= 2.5


def test_a_row_is_attacked_alone_as_among_others(case):
  _, file, attack = case
  x, targets = nhwc(file["inputs"]), file["all_targets"]
  together = attack(x, targets)
  for row in (0, 7):
    alone = attack(x[row : row + 1], targets[row : row + 1])
    np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=3e-5)


def test_a_whole_step_is_as_published(case):
  facts, file, attack = case
  x, labels = nhwc(file["inputs"]), file["labels"]
  teacher, size = teacher_of(file), facts["base_size"]

  def step(w, b):
    student = lambda x: flat(x) @ w + b[None]  # noqa: E731
    logits, answers = student(x), teacher(x)
    is_base = losses.bss_base(logits, answers, labels, size=size)
    clean, attacked = losses.bss_weights(facts["epoch"] / facts["epochs"])
    targets = jnp.zeros(len(x), int).at[file["rows"]].set(file["row_targets"])
    moved = attack(x, targets)
    of_moved = losses.bss(student(moved), teacher(moved))
    total = cross_entropy(logits, labels).mean()
    total += clean * losses.bss(logits, answers).mean()
    total += attacked * jnp.sum(of_moved * is_base) / jnp.sum(is_base)
    found = {
      "student_logits": logits,
      "base_mask": is_base,
      "weight_clean": clean,
      "weight_attacked": attacked,
      "row_attacked": jnp.moveaxis(moved[file["rows"]], -1, 1),
    }
    return total, found

  (total, found), gradients = jax.jit(
    jax.value_and_grad(step, argnums=(0, 1), has_aux=True)
  )(file["student_w"], file["student_b"])
  for name, value in found.items():
    near(value, file[name], 3e-5)
  near(total, file["total"])
  near(gradients[0], file["grad_w"], 3e-5)
  near(gradients[1], file["grad_b"], 3e-5)


def test_the_term_is_as_published(case):
  _, file, _ = case
  value, gradient = jax.jit(
    jax.value_and_grad(lambda s: losses.bss(s, file["teacher_logits"]).mean())
  )(file["student_logits"])
  near(value, file["loss"])
  near(gradient, file["grad"])


def test_the_weights_are_as_published(case):
  facts, file, _ = case
  progress = file["schedule_epochs"] / facts["epochs"]
  found = jax.jit(losses.bss_weights)(progress)
  near(jnp.stack(found, axis=1), file["weight_schedule"])
  assert [int(weight) for weight in losses.bss_weights(1.0)] == [1, 0]
  assert np.count_nonzero(found[1]) == 59  # none from three quarters on


def test_the_term_is_the_definition():
  student, teacher = draw(5, 6, scale=3), draw(5, 6, seed=1, scale=3)
  teacher[:, 2] = -np.inf
  graded = jax.jit(
    jax.value_and_grad(
      lambda s, t: losses.bss(s, t, temperature=2.0).sum(), argnums=(0, 1)
    )
  )
  expected = -(softmax(teacher / 2) * log_softmax(student / 2)).sum(-1)
  found = losses.bss(student, teacher, temperature=2.0)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  value, (of_student, of_teacher) = graded(student, teacher)
  np.testing.assert_allclose(value, expected.sum(), rtol=1e-5)
  slope = (softmax(student / 2) - softmax(teacher / 2)) / 2
  np.testing.assert_allclose(of_student, slope, rtol=1e-4, atol=1e-6)
  assert not of_teacher.any()


def reference_base(student, teacher, labels, size):
  s, t = softmax(student), softmax(teacher)
  right = [
    i for i, y in enumerate(labels) if s[i].argmax() == y and t[i].argmax() == y
  ]
  gap = [np.delete((t[i] - s[i]) ** 2, labels[i]).sum() for i in right]
  chosen = np.zeros(len(labels), bool)
  chosen[[right[i] for i in np.argsort(gap)[::-1][:size]]] = True
  return chosen


def test_base_rows_are_those_of_largest_gap():
  labels = np.arange(30) % 4
  sure = 2 * np.eye(4, dtype="f4")[labels]
  student, teacher = draw(30, 4) + sure, draw(30, 4, seed=1) + sure
  base = jax.jit(losses.bss_base, static_argnames="size")
  for size in (0, 1, 5, 64):
    found = base(student, teacher, labels, size=size)
    expected = reference_base(student, teacher, labels, size)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)
  assert 5 < expected.sum() < 30
  assert not base(student, -teacher, labels, size=5).any()
  same = [x[:1].repeat(30, 0) for x in (sure, 2 * sure, labels)]
  equal = base(*same, size=5)  # of equals, the first
  np.testing.assert_array_equal(np.flatnonzero(equal), np.arange(5))
  with pytest.raises(ValueError, match="labels"):
    losses.bss_base(student, teacher, labels[:1])


def test_targets_are_drawn_with_the_published_shares():
  facts, file = recorded("bss_targets")
  logits, count = file["teacher_logits"], 40_000
  keys = jax.random.split(jax.random.key(0), count)
  drawn = jax.jit(jax.vmap(losses.bss_targets, (0, None)))(keys, logits)
  assert drawn.dtype == jnp.int32
  shares = np.stack([(drawn == c).mean(0) for c in range(5)], axis=1)
  assert (shares[np.arange(6), logits.argmax(1)] == 0).all()
  spread = 4 * np.sqrt(0.25 / count) + 1 / facts["grid"]
  np.testing.assert_allclose(shares, file["probabilities"], atol=spread)


@pytest.mark.parametrize("scale", [0.0, 1e8, np.inf])
def test_targets_are_never_the_top_class(scale):
  logits = np.zeros((200, 3), "f4")
  logits[:, 1:] = -scale
  drawn = losses.bss_targets(jax.random.key(0), logits)
  assert set(np.asarray(drawn)) == {1, 2} or scale == np.inf
  assert (np.asarray(drawn) > 0).all()


def test_a_linear_teacher_is_crossed_by_steps_of_known_length():
  """Of s (gap + 1e-4), |w| being the length of the difference of weights."""
  weight = draw(6, 2)
  x = draw(9, 6, seed=1, scale=0.3)
  teacher = lambda x: x @ weight  # noqa: E731
  logits = np.float64(x) @ weight
  target = logits.argmin(1)
  gap = np.abs(logits[:, 0] - logits[:, 1])
  slope = weight[:, 1] - weight[:, 0]
  direction = np.where(target[:, None] == 1, slope, -slope)
  attack = jax.jit(
    lambda steps: losses.bss_attack(
      teacher, x, target, steps=steps, step_size=0.5, low=-99.0, high=99.0
    )
  )
  for steps in (0, 1, 3):
    found = attack(steps)
    way = np.zeros_like(gap)
    for _ in range(steps):
      left = gap - way * np.linalg.norm(slope)
      way += np.where(left > 0, 0.5 * (left + 1e-4), 0)
    expected = x + way[:, None] * direction / np.linalg.norm(slope)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_rows_that_have_crossed_stay_and_values_are_clipped():
  """A row that any third class wins stays; so does one without a slope."""
  scale = np.array([[1.0, 1.0], [0.0, 3.0], [0.5, 0.0]], "f4")
  x = np.array([[0.9, 4.0, 0.0]], "f4").repeat(2, 0)
  teacher = lambda x: jnp.concatenate([x @ scale, 2 * x[:, :1]], 1)  # noqa: E731
  found = losses.bss_attack(teacher, x, np.array([1, 0]))
  assert teacher(x).argmax(1).tolist() == [1, 1]
  assert found.max() == 2.5  # the target is the top: no slope, but the clip
  np.testing.assert_allclose(found[0], [0.9, 2.5, 0.0])
  again = losses.bss_attack(teacher, found, np.array([1, 0]))
  assert (again[0] == found[0]).all()


def test_the_attack_is_finite_and_a_constant():
  weight = draw(6, 4)
  targets = np.array([0, 1, 2])

  @jax.jit
  def attack(x, w=weight):
    return losses.bss_attack(lambda x: x @ w.astype(x.dtype), x, targets)

  for scale in (0.0, 1e-8, 1e8):
    for x in (draw(3, 6), np.zeros((3, 6), "f4"), 1e8 * draw(3, 6)):
      found = attack(x, scale * weight)
      assert np.isfinite(found).all() and np.abs(found).max() <= 2.5
  slopes = jax.jit(jax.grad(lambda *x: attack(*x).sum(), argnums=(0, 1)))
  assert not any(leaf.any() for leaf in slopes(draw(3, 6), weight))
  none = losses.bss_attack(lambda x: x @ weight, draw(0, 6), targets[:0])
  assert none.shape == (0, 6)
  half = jax.eval_shape(attack, jnp.asarray(draw(3, 6), jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  with pytest.raises(ValueError, match="normalise"):
    attack(np.zeros((3, 6), np.uint8))


@pytest.mark.slow  # the recorded gradients say the same
def test_the_gradient_is_a_finite_difference():
  student, teacher = draw(5, 6), draw(5, 6, seed=1)
  loss = jax.jit(lambda s: losses.bss(s, teacher))
  check_grads(loss, (student,), 1, ["rev"], 2e-2, 2e-2)


def begun(facts, file, **hyper):
  """(method, memory, batch of the recorded rows as a step prepares it)."""
  method = methods.make("bss", base_size=facts["base_size"], **hyper)
  labels = file["labels"]
  task = Task(len(labels), 4, len(labels), 3, labels)
  index = np.arange(len(labels), dtype=np.int32)[:, None]
  batch = Batch(index, nhwc(file["inputs"])[:, None], labels[:, None])
  _, memory = method.init(None, task, None, None)
  return method, memory, method.prepare(None, batch)


def test_the_method_is_the_public_step(case):
  """The rows that were attacked there; of the others the term is left out."""
  facts, file, _ = case
  method, memory, batch = begun(facts, file, epochs=facts["epochs"])
  moved = batch.inputs[:, 1].at[file["rows"]].set(nhwc(file["row_attacked"]))
  pairs = jnp.stack([batch.inputs[:, 0], moved], axis=1)
  images = pairs.reshape(-1, *pairs.shape[2:])

  def pairwise(logits):
    return Outputs(logits.reshape(*pairs.shape[:2], -1))

  teachers = (pairwise(teacher_of(file)(images)),)
  batch = batch._replace(inputs=pairs, teachers=teachers)

  @jax.jit
  @jax.value_and_grad
  def step(weights, at):
    w, b = weights
    student = pairwise(flat(images) @ w + b[None])
    return method.loss({}, memory, student, batch, None, at)[0]

  # Epochs count from 1, and have three steps here.
  for at in (3 * (facts["epoch"] - 1), 3 * facts["epoch"] - 1):
    total, (of_w, of_b) = step((file["student_w"], file["student_b"]), at)
    near(total, file["total"])
    near(of_w, file["grad_w"], 3e-5)
    near(of_b, file["grad_b"], 3e-5)


def test_the_second_image_is_moved_by_the_live_teacher(case):
  facts, file, attack = case
  method, _, batch = begun(facts, file)
  teacher = teacher_of(file)

  def ask(images):
    return Outputs(teacher(images))

  key = jax.random.key(5)
  made = jax.jit(lambda x: method.compose(key, x, Ask(None, ask)))(batch)
  images = nhwc(file["inputs"])
  targets = losses.bss_targets(key, file["teacher_logits"])
  np.testing.assert_array_equal(made.inputs[:, 0], images)
  near(made.inputs[:, 1], attack(images, targets), 3e-5)
  assert made.asked == 12 * len(images)
  assert (made.labels[:, 1] == -1).all()


def test_without_base_samples_the_term_is_nothing():
  student = Outputs(jnp.zeros((3, 2, 4)).at[..., 1].set(1.0))
  zeros = np.zeros((3, 2), np.int32)
  batch = Batch(zeros, None, zeros, teachers=(student,))
  loss = jax.jit(methods.make("bss").loss)
  memory = {"steps_per_epoch": 1, "asked": 0}
  _, (_, metrics) = loss({}, memory, student, batch, None, 0)
  assert metrics["base_samples"] == metrics["bss_attacked"] == 0


@pytest.mark.slow
def test_a_run_attacks_its_live_teacher_and_counts_it(tmp_path):
  arg = QUICK + "method=bss,teacher.steps=20,hyper.attack_steps=2"
  told = run(tmp_path / "run", LINEAR, LINEAR_TEACHER, arg=arg)
  # Per step 16 images and 16 that were moved, by two passes and two moves.
  assert told["live_calls"] == 20 * (2 * 16 + 4 * 16)
  assert told["teacher_calls"] == 0
  with pytest.raises(UserError, match=r"teacher\.live=True"):
    run(tmp_path / "off", LINEAR, "--config.teacher.live=false", arg=arg)
