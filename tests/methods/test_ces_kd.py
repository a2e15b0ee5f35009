"""CES-KD: who is hard, who is asked, what a row learns from at each step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from ckd_jax.methods.ces_kd import SCORES, SELECTIONS, difficulty, strata
from tests.helpers.arrays import draw, log_softmax, softmax

ROWS, CLASSES = 31, 4
LABELS = np.arange(ROWS) % CLASSES


def experts_of(count=3, rows=ROWS, dtype=np.float16):
  """(experts, what each was asked about, all of their answers)."""
  answers = [
    (3 * draw(rows, CLASSES, seed=seed)).astype(dtype) for seed in range(count)
  ]
  asked = [[] for _ in answers]

  def expert(number):
    def answer(some):
      asked[number].extend(some.tolist())
      return Outputs(answers[number][some])

    return answer

  return [expert(number) for number in range(count)], asked, answers


def consulted(labels=LABELS, count=3, **hyper):
  """(layers, the last first; asked; answers)."""
  experts, asked, answers = experts_of(count, len(labels))
  method = methods.make("ces_kd", **hyper)
  return method.consult(experts, labels), asked, answers


def hardness(answers, score):
  """float[rows], by loops."""
  values = []
  for row, label in enumerate(LABELS):
    each = [x[row].astype(np.float64) for x in answers]
    if score == "count":
      values.append(sum(x.argmax() != label for x in each))
    else:
      losses = [-log_softmax(x[None])[0, label] for x in each]
      values.append(losses[0] if score == "smallest" else np.mean(losses))
  return np.array(values)


@pytest.mark.parametrize("score", SCORES)
def test_the_difficulty_is_that_of_loops(score):
  _, _, answers = experts_of()
  found = difficulty(answers, LABELS, score)
  np.testing.assert_allclose(found, hardness(answers, score), rtol=1e-9)


def test_what_is_ruled_out_is_hardest():
  logits = np.array([[0.0, -np.inf], [-np.inf, 0.0], [5.0, 4.0]])
  found = difficulty([logits], np.array([0, 0, 0]), "smallest")
  np.testing.assert_allclose(found, [0, np.inf, np.log1p(np.exp(-1))])
  assert strata(found, 3).tolist() == [0, 2, 1]


@pytest.mark.parametrize("rows", [1, 2, 3, 30, 31, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_strata_are_equal_and_of_equals_the_first_row_is_first(rows, count):
  scores = np.random.default_rng(rows).integers(0, 4, rows)
  found = strata(scores, count)
  sizes = np.bincount(found, minlength=count)
  assert sizes.max() - sizes.min() <= 1 and len(sizes) == count
  order = sorted(range(rows), key=lambda row: (scores[row], row))
  assert (np.diff(found[order]) >= 0).all()


@pytest.mark.parametrize("pacing", [0.0, 0.5])
@pytest.mark.parametrize("score", SCORES)
def test_everybody_is_asked_what_the_formula_says(score, pacing):
  labels = LABELS[:30]
  _, asked, _ = consulted(labels, score=score, pacing=pacing)
  counts = [len(x) for x in asked]
  assert all(len(set(x)) == len(x) for x in asked)
  if score == "smallest":
    assert counts == ([30, 20, 10] if pacing else [30, 10, 10])
  else:
    assert counts == [30, 30, 30]


@pytest.mark.parametrize(
  ("select", "pacing", "counts"),
  [
    ("reversed", 0.5, [30, 20, 10]),
    ("random", 0.5, [30, 20, 10]),
    ("random", 0.0, [10, 10, 10]),
    ("largest", 0.5, [0, 0, 30]),
    ("smallest", 0.5, [30, 0, 0]),
  ],
)
def test_the_controls_ask_no_more_than_they_need(select, pacing, counts):
  _, asked, _ = consulted(LABELS[:30], select=select, pacing=pacing)
  assert [len(x) for x in asked] == counts


def chosen_by_hand(answers, select, score, ceiling):
  """int[rows], the expert of each row, by loops."""
  values = hardness(answers, score)
  if select in ("largest", "smallest"):
    return np.full(ROWS, 2 if select == "largest" else 0)
  if select == "random":
    values = np.zeros(ROWS)
  sign = -1 if select == "reversed" else 1
  order = sorted(range(ROWS), key=lambda row: (sign * values[row], row))
  found = np.zeros(ROWS, int)
  for place, row in enumerate(order):
    found[row] = min(3 * place // ROWS, ceiling)
  return found


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("pacing", [0.0, 0.5])
def test_the_layers_are_the_answers_of_the_chosen_experts(
  select, score, pacing
):
  layers, _, answers = consulted(score=score, select=select, pacing=pacing)
  assert len(layers) == (3 if pacing and "est" not in select else 1)
  for place, layer in enumerate(layers):
    experts = chosen_by_hand(answers, select, score, 2 - place)
    wanted = np.stack([answers[e][row] for row, e in enumerate(experts)])
    np.testing.assert_array_equal(layer.logits, wanted)


def test_no_answer_that_was_not_asked_for_is_anywhere():
  """Whatever else the larger experts would have said, the layers are equal."""
  experts, asked, answers = experts_of()
  method = methods.make("ces_kd")
  before = method.consult(experts, LABELS)
  for number, rows in enumerate(asked):
    others = np.setdiff1d(np.arange(ROWS), rows)
    answers[number][others] = 7.0 * number
  assert not np.array_equal(answers[2], experts_of()[2][2])
  after = method.consult(experts, LABELS)
  for one, other in zip(before, after, strict=True):
    np.testing.assert_array_equal(one.logits, other.logits)


def test_a_harder_row_never_gets_a_smaller_expert():
  _, asked, answers = consulted()
  largest = np.zeros(ROWS, int)  # that was asked about a row
  for number, rows in enumerate(asked):
    largest[rows] = number
  order = np.argsort(hardness(answers, "smallest"))
  assert (np.diff(largest[order]) >= 0).all() and set(largest) == {0, 1, 2}


def test_fewer_rows_than_experts():
  layers, asked, _ = consulted(LABELS[:2])
  assert len(layers) == 2 and [len(x) for x in asked] == [2, 1, 0]


def test_half_and_single_precision_lie_in_one_table():
  (small, _, _), _, _ = experts_of()
  (_, large), _, _ = experts_of(2, dtype=np.float32)
  layers = methods.make("ces_kd").consult([small, large], LABELS)
  assert {layer.logits.dtype for layer in layers} == {np.dtype("f4")}


def step_of(method, teachers, student, step, steps=60):
  """(loss, its gradients to the student and to the teachers)."""
  n = len(student)
  index = np.arange(n, dtype=np.int32)[:, None]
  labels = jnp.asarray(LABELS[:n], jnp.int32)
  task = Task(n, CLASSES, n, 1, labels, steps=steps)
  _, state = method.init(None, task, None, None)

  def loss(student, teachers):
    outputs = tuple(Outputs(x[:, None]) for x in teachers)
    batch = Batch(index, None, labels[:, None], teachers=outputs)
    return method.loss({}, state, Outputs(student[:, None]), batch, None, step)[
      0
    ]

  graded = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  return graded(student, teachers)


def reference(student, teacher):
  """.1 CE + .9 KD at temperature 4, in float64."""
  student, teacher = np.float64(student), np.float64(teacher)
  labels = LABELS[: len(student)]
  entropy = -log_softmax(student)[np.arange(len(student)), labels].mean()
  p, q = softmax(teacher / 4), softmax(student / 4)
  return 0.1 * entropy + 0.9 * 16 * (p * np.log(p / q)).sum(1).mean()


def test_the_ceiling_rises_and_nobody_else_is_read():
  method = methods.make("ces_kd", pacing=0.5)
  teachers = tuple(3 * draw(8, CLASSES, seed=seed) for seed in (1, 2, 3))
  student = 2 * draw(8, CLASSES, seed=9)
  # 60 steps, half of them paced: the ceiling is 0, 1, 2 from steps 0, 10, 20.
  for step, expert in ((0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (59, 2)):
    place = 2 - expert  # the last layer comes first
    value, (gradient, others) = step_of(method, teachers, student, step)
    np.testing.assert_allclose(
      value, reference(student, teachers[place]), rtol=1e-5
    )
    assert gradient.any() and not any(x.any() for x in others)
    moved = tuple(
      x if at == place else x + 5 * draw(8, CLASSES, seed=4)
      for at, x in enumerate(teachers)
    )
    again, (same, _) = step_of(method, moved, student, step)
    assert again == value
    np.testing.assert_array_equal(same, gradient)
    moved = tuple(2 * x if at == place else x for at, x in enumerate(teachers))
    assert step_of(method, moved, student, step)[0] != value


@pytest.mark.parametrize("teachers", [1, 3])
def test_one_teacher_or_equal_ones_are_kd_bit_for_bit(teachers):
  weights = {"cross_entropy_weight": 0.1, "kd_weight": 0.9}
  kd = methods.make("kd", **weights)
  answers, student = 3 * draw(8, CLASSES), 2 * draw(8, CLASSES, seed=9)
  wanted, (slope, _) = step_of(
    kd._replace(init=lambda *_: ({}, {})), (answers,), student, 0
  )
  for step in (0, 30):
    found, (gradient, _) = step_of(
      methods.make("ces_kd", pacing=0.0), (answers,) * teachers, student, step
    )
    assert found == wanted
    np.testing.assert_array_equal(gradient, slope)


def test_names_are_checked():
  for key in ("score", "select"):
    with pytest.raises(ValueError, match=f"{key} must be one of .*not 'x'"):
      methods.make("ces_kd", **{key: "x"})
