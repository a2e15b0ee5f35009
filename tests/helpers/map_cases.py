"""For tests of white-box losses: recorded cases, hazards, reference code."""

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.methods import Batch, Outputs, Task
from tests.helpers.arrays import log_softmax

LABELS = np.arange(6, dtype=np.int32) % 3
TASK = Task(6, 3, 6, 1, LABELS)
HAZARDS = {
  "plain": lambda s, t: (s, t),
  "one example": lambda s, t: (s[:1], t[:1]),
  "duplicates": lambda s, t: (s.at[1].set(s[0]), t.at[1].set(t[0])),
  "student zero": lambda s, t: (s.at[0].set(0), t),
  "all zero": lambda s, t: (0 * s, 0 * t),
  "dead channel": lambda s, t: (s.at[..., 0].set(0), t.at[..., 0].set(0)),
  "equal": lambda s, t: (t, t),
  "huge": lambda s, t: (2e4 * s, -2e4 * t),
  "tiny": lambda s, t: (1e-7 * s, 1e-7 * t),
}
DTYPES = ("float32", "bfloat16", "float16")


def uniform(*shape, seed=0):
  """Within +-3, so that 2e4 times it is still a float16."""
  return np.random.default_rng(seed).uniform(-3, 3, shape).astype("f4")


def recorded(golden, name):
  """The arrays of a golden file, its maps turned from NCHW to NHWC."""
  with np.load(golden / "losses" / f"{name}.npz") as file:
    return {
      key: np.moveaxis(x, 1, -1) if x.ndim == 4 else x
      for key, x in file.items()
    }


def check_recorded(golden, name, losses):
  """Values and gradients follow the public implementation's.

  `losses` takes the students' and the teachers' maps and gives a scalar for
  each recorded one.
  """
  case = recorded(golden, name)
  students, teachers = (
    [case[key] for key in sorted(case) if key.startswith(who)]
    for who in ("student", "teacher")
  )

  @jax.jit
  def evaluate(students):
    values, pull = jax.vjp(lambda x: losses(x, teachers), students)
    return values, *pull([jnp.ones(())] * len(values))

  values, gradients = evaluate(students)
  np.testing.assert_allclose(values, case["loss"], rtol=1e-5)
  for i, gradient in enumerate(gradients):
    expected = case[f"grad_{i}"]
    largest = np.abs(expected).max()
    gap = np.abs(gradient - expected).max()
    print(f"{name} {i}: gradient {gap / largest:.1e} of its largest")
    np.testing.assert_allclose(
      gradient, expected, rtol=1e-4, atol=1e-5 * largest
    )
  print(f"{name}: value {np.abs(values / case['loss'] - 1).max():.1e}")


def check_hazards(loss, student, teacher):
  """Values [n] and gradients of every hazard in every precision are finite.

  `loss` takes two maps; `student` and `teacher` are draws of one shape.
  """

  @jax.jit
  def evaluate(student, teacher):
    value, pull = jax.vjp(loss, student, teacher)
    return value, pull(jnp.ones_like(value))

  for dtype in DTYPES:
    for name, hazard in HAZARDS.items():
      if name == "one example" and dtype != "float32":
        continue  # a shape of its own is compiled again
      pair = hazard(*(jnp.asarray(x, dtype) for x in (student, teacher)))
      pair = [x.astype(dtype) for x in pair]
      value, (gradient, of_teacher) = evaluate(*pair)
      assert value.dtype == jnp.float32 and value.shape == pair[0].shape[:1]
      assert np.isfinite(value).all(), (dtype, name)
      assert jnp.isfinite(gradient).all(), (dtype, name)
      assert not of_teacher.any(), "the teacher's answers carry no gradient"


def outputs(shapes, seed, field="maps"):
  """Outputs of six images, [6, 1, ...], with maps of these shapes."""
  maps = tuple(
    jnp.asarray(uniform(6, 1, *shape, seed=(seed, i)))
    for i, shape in enumerate(shapes)
  )
  return Outputs(jnp.asarray(uniform(6, 1, 3, seed=seed)), **{field: maps})


def batch(teacher):
  index = np.arange(6, dtype=np.int32)[:, None]
  return Batch(index, None, jnp.asarray(LABELS[:, None]), teachers=(teacher,))


def begin(method, student, teacher):
  """(params, state) as the set-up asks for them: from one example."""
  first = jax.tree.map(lambda x: x[:1], (student, teacher))
  return method.init(jax.random.key(0), TASK, *first)


def graded(loss, params, state, student, teacher):
  """((value, metrics), (of the heads, of the student, of the teacher))."""

  def call(params, student, teacher):
    value, (_, metrics) = loss(
      params, state, student, batch(teacher), jax.random.key(1), 0
    )
    return value, metrics

  of_all = jax.jit(jax.value_and_grad(call, argnums=(0, 1, 2), has_aux=True))
  return jax.jit(of_all)(params, student, teacher)


def is_zero(tree):
  """The same tree, True where a leaf is all zeros."""
  return jax.tree.map(lambda x: not np.any(x), tree)


def reaches_all(tree):
  leaves = jax.tree.leaves(is_zero(tree))
  return bool(leaves) and not any(leaves)


def reference_cross_entropy(student):
  rows = log_softmax(student.logits[:, 0])
  return -rows[np.arange(6), LABELS].mean()


def reference_pool(x, size):
  """Adaptive average pooling by loops, as PyTorch documents its bins."""
  n, h, w, c = x.shape
  y = np.zeros((n, *size, c))
  for i in range(size[0]):
    for j in range(size[1]):
      rows = slice(i * h // size[0], -(-(i + 1) * h // size[0]))
      columns = slice(j * w // size[1], -(-(j + 1) * w // size[1]))
      y[:, i, j] = x[:, rows, columns].mean((1, 2))
  return y


def reference_same_size(*maps):
  size = tuple(np.min([x.shape[1:3] for x in maps], axis=0))
  return [reference_pool(np.asarray(x, np.float64), size) for x in maps]


def reference_attention(x, power):
  rows = (x**power).mean(-1).reshape(len(x), -1)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference_conv(params, x, stride=1, padding=0):
  """Conv2d by loops over the kernel's positions."""
  weight, bias = np.float64(params["weight"]), np.float64(params.get("bias", 0))
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  rows, columns = weight.shape[:2]
  h = (x.shape[1] - rows) // stride + 1
  w = (x.shape[2] - columns) // stride + 1
  y = np.zeros((len(x), h, w, weight.shape[-1])) + bias
  for a in range(rows):
    for b in range(columns):
      part = x[:, a : a + stride * h : stride, b : b + stride * w : stride]
      y += part[:, :h, :w] @ weight[a, b]
  return y


def reference_deconv(params, x, stride=1, padding=0):
  """ConvTranspose2d by loops: every input pixel stamps the kernel."""
  weight, bias = np.float64(params["weight"]), np.float64(params.get("bias", 0))
  n, h, w, _ = x.shape
  rows, columns, outputs, _ = weight.shape
  y = np.zeros(
    (n, (h - 1) * stride + rows, (w - 1) * stride + columns, outputs)
  )
  for i in range(h):
    for j in range(w):
      for a in range(rows):
        for b in range(columns):
          y[:, stride * i + a, stride * j + b] += x[:, i, j] @ weight[a, b].T
  inside = slice(padding, -padding or None)
  return y[:, inside, inside] + bias


def reference_norm(x):
  return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)


def reference_regress(params, x, teacher):
  """The regressor, before a ReLU, as it begins: batch norm scales by 1."""
  x = np.float64(x)
  if teacher[0] == 2 * x.shape[1]:
    return reference_norm(reference_deconv(params["conv"], x, 2, 1))
  if x.shape[1] == 2 * teacher[0]:
    return reference_norm(reference_conv(params["conv"], x, 2, 1))
  return reference_norm(reference_conv(params["conv"], x))
