"""The contract of every file in ckd_jax/methods; new files are tested, too."""

import ast
import inspect
import pathlib
import re
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ckd_jax import methods
from ckd_jax.methods import Outputs
from tests.helpers.arrays import log_softmax
from tests.helpers.contract import (
  BATCH,
  EXAMPLES,
  Case,
  answer,
  begin,
  contract_case,
)

# Methods whose hyper-parameters change the computation; others need no entry.
VARIANTS = {
  "ckd": [
    {"estimator": "groups", "max_groups": 200},
    {"estimator": "batch_groups", "positives": 2},
    {"estimator": "all", "negatives": 2, "kd_weight": 1.0},
  ],
  "ckd_features": [
    {"features": features, "max_groups": 200}
    for features in ("fitnet", "cc", "vid")
  ],
  "crd": [{"negatives": 16}],
  "cutmix": [{"max_groups": 200}],
  "mixup": [{"max_groups": 200}],
  "mixup3": [{"max_groups": 200}],
  "r2kd": [{}, {"augment": "mixup"}, {"augment": "cutout"}],
  "rrd": [{"rows": 32}, {"rows": 32, "enqueue_at": "before"}],
}
# Leaves that published formulas give no gradient: a constant that is added to
# every similarity, or before a batch norm.
_HEADS = [f"{side}[{i}]" for side in ("query", "key") for i in range(3)]
_BIASES = {f"['heads'].{head}.bias" for head in (*_HEADS, "bilinear")}
UNTRAINED = {"afd": _BIASES, "icd": {"['bias']"}, "rtk": _BIASES}
CASES = [  # a method with stages is one case for each, and one for the rest
  pytest.param((name, hyper, number), marks=pytest.mark.slow if variant else ())
  for name in methods.names()
  for variant, hyper in enumerate(VARIANTS.get(name, [{}]))
  for number in range(len(methods.make(name, **hyper).stages) + 1)
]
ALLOWED = (
  *("jax", "numpy", "optax", "chex"),
  *(f"ckd_jax.{x}" for x in ("numerics", "sampling", "augment", "methods")),
)


@pytest.fixture(
  scope="module",
  params=CASES,
  ids=lambda case: "-".join(map(str, [case[0], *case[1].values(), case[2]])),
)
def case(request) -> Case:
  return contract_case(*request.param)


@pytest.mark.slow  # without jit every operation is compiled on its own
def test_the_same_number_with_and_without_jit(case):
  arguments = case.params, answer(case.batch.inputs, 7), case.batch
  plain, _ = case.loss(*arguments)
  (jitted, _), _ = case.graded(*arguments)
  chex.assert_shape(plain, ())
  assert plain.dtype == jnp.float32
  np.testing.assert_allclose(jitted, plain, rtol=1e-5)


@pytest.mark.parametrize("hazard", ["none", "identical", "equal"])
@pytest.mark.parametrize(
  "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_value_and_gradient_are_finite(case, dtype, hazard):
  batch = case.batch
  if hazard == "identical":
    one = jax.tree.map(
      lambda x: jnp.broadcast_to(x[:1, :1], x.shape), batch.inputs
    )
    batch = batch._replace(inputs=one, teachers=(answer(one, 1),))
  student = answer(batch.inputs, 1 if hazard == "equal" else 7, dtype)
  (value, (state, metrics)), gradient = case.graded(case.params, student, batch)
  chex.assert_tree_all_finite((value, gradient, metrics))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, case.state)
  assert all(leaf.shape == () for leaf in jax.tree.leaves(metrics))
  if hazard == "none":
    assert value > 0
    moves = any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient[1]))
    assert moves == case.trains_student


def test_the_gradient_reaches_every_head_and_no_teacher(case):
  student = answer(case.batch.inputs, 7)
  _, (heads, _, teachers) = case.graded(case.params, student, case.batch)
  for path, leaf in jax.tree_util.tree_leaves_with_path(heads):
    name = jax.tree_util.keystr(path)
    trained = name not in UNTRAINED.get(case.name, ())
    assert bool(jnp.any(leaf != 0)) == trained, path
  if case.method.adapter is None:  # else the teacher learns, too
    assert not any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(teachers))


@pytest.mark.slow  # compiles another loss for every case
def test_kd_and_ckd_join_by_their_weights(case):
  if not {"kd_weight", "ckd_weight"} <= methods.defaults(case.name).keys():
    pytest.skip("takes no weights of KD and CKD")
  if case.stage:
    pytest.skip("the weights join when the stages are over")
  kd_weight = methods.defaults(case.name)["kd_weight"] + 2.0
  hyper = case.hyper | {"kd_weight": kd_weight, "ckd_weight": 3.0}
  both = methods.make(case.name, **hyper)
  student = answer(case.batch.inputs, 7)

  rest = student, case.batch, jax.random.key(4), jnp.int32(0)
  with_both, _ = jax.jit(both.loss)(case.params, case.state, *rest)
  (alone, _), _ = case.graded(case.params, student, case.batch)
  expected = reference_kd_and_ckd(student.logits[:, 0], case.batch)
  np.testing.assert_allclose(with_both - alone, expected, rtol=1e-3)


def reference_kd_and_ckd(student, batch) -> float:
  """2 KD + 3 CKD over all pairs, against answers and labels, by loops."""
  student, answers = np.float64(student), np.float64(batch.teachers[0].logits)
  weights = np.eye(1, answers.shape[1]).repeat(len(student), 0)
  if batch.weights is not None:
    weights = np.float64(batch.weights)

  total, pairs = 0.0, len(student) * (len(student) - 1)
  for i, own in enumerate(student):
    mine = log_softmax(own / 4)
    for weight, logits in zip(weights[i], answers[i], strict=True):
      theirs = log_softmax(logits / 4)
      divergence = np.exp(theirs) @ (theirs - mine)
      total += 2 * weight * 16 * divergence / len(student)
  for values in (answers, np.eye(student.shape[1])[batch.labels]):
    target = np.einsum("ng,ngc->nc", weights, values)
    for i in range(len(student)):
      for j in range(len(student)):
        gap = (student[i] - student[j]) - (target[i] - target[j])
        total += 3 * np.square(gap).mean() / pairs
  return total


@pytest.mark.slow  # compiles once more what the case began with
def test_the_number_of_examples_may_be_traced(case):
  @jax.jit
  def start():
    params, state = begin(case.method, case.task)
    index = case.method.sample(jax.random.key(0), 0, case.task, state)
    return params, state, index

  params, state, index = start()
  chex.assert_trees_all_close(
    (case.params, case.state), (params, state), rtol=1e-6
  )
  np.testing.assert_array_equal(case.batch.index, index)


def test_a_group_holds_distinct_images_of_the_table(case):
  drawn = [case.sample(EXAMPLES, step, case.state) for step in range(12)]
  drawn = np.stack(drawn)
  chex.assert_shape(drawn, (12, BATCH, None))
  assert drawn.dtype == np.int32
  assert drawn.min() >= 0 and drawn.max() < EXAMPLES
  assert len(np.unique(drawn)) == EXAMPLES
  shown = jax.tree.leaves(case.batch.inputs)[0].shape[1]
  assert not case.method.passes or sum(case.method.passes) == shown
  if drawn.shape[-1] == 1:  # the batch is the set that is compared
    drawn = drawn.swapaxes(1, 2)
  rising = np.sort(drawn, axis=-1)
  assert (rising[..., 1:] > rising[..., :-1]).all()


def test_three_steps_are_traced_once(case):
  state, traces = case.state, []
  for step in range(3):
    batch = case.show(case.sample(EXAMPLES, step, state))
    student = answer(batch.inputs, 7)
    rest = case.params, student, batch, state, step
    (value, (state, _)), _ = case.graded(*rest)
    traces.append(len(case.traces))
    assert jnp.isfinite(value)
  assert traces == traces[:1] * 3


@pytest.mark.slow  # compiles the gradient once more
def test_four_devices_give_the_number_of_one(case):
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  whole = NamedSharding(mesh, PartitionSpec())
  student = answer(case.batch.inputs, 7)
  (alone, (state, _)), gradient = case.graded(case.params, student, case.batch)
  student, batch = jax.device_put((student, case.batch), rows)
  params = jax.device_put(case.params, whole)
  (value, (after, _)), shared = case.graded(params, student, batch)
  assert len(student.logits.sharding.device_set) == 4
  np.testing.assert_allclose(value, alone, rtol=1e-5)
  shared, gradient = jax.device_get((shared, gradient))
  # A small number beside large ones is rounded as they are.
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
  chex.assert_trees_all_close(
    shared, gradient, rtol=1e-4, atol=1e-5 + 1e-6 * largest
  )
  chex.assert_trees_all_close(*jax.device_get((after, state)), rtol=1e-5)


@pytest.mark.parametrize("name", methods.names())
def test_hyper_parameters_are_keywords_with_plain_defaults(name):
  for parameter in inspect.signature(
    methods.get(name).make
  ).parameters.values():
    assert parameter.kind is parameter.KEYWORD_ONLY, parameter
    assert type(parameter.default) in (int, float, bool, str, tuple), parameter
  assert methods.make(name).needs <= set(Outputs._fields)


@pytest.mark.parametrize("name", methods.names())
def test_make_names_its_paper(name):
  text = methods.get(name).make.__doc__
  assert re.search(r"\b\d{4}\.\d{4,5}\b|\bNo paper\b", text), text


@pytest.mark.parametrize("name", methods.names())
def test_imports_keep_to_the_allowed_list(name):
  source = pathlib.Path(methods.get(name).__file__).read_text()
  for module in imported(ast.parse(source)):
    root = module.split(".")[0]
    assert root in sys.stdlib_module_names or any(
      module == allowed or module.startswith(f"{allowed}.")
      for allowed in ALLOWED
    ), f"{name} imports {module}"


def imported(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)
