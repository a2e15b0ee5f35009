"""Traces the first step with shapes only, before any call is paid."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import methods, models
from ckd_jax import offset as offsets
from ckd_jax.data import View, count, shapes, shown, take
from ckd_jax.errors import UserError
from ckd_jax.methods import Model, Outputs, TopK
from ckd_jax.run.plan import Plan
from ckd_jax.step import Examples, finish_stage, init_state, make_step, staged
from ckd_jax.student import check_holdable
from ckd_jax.table import Form


@contextlib.contextmanager
def refusing(plan: Plan):
  """Turns any error of a student or a method into one line.

  Args:
    plan: names the student and the method.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # a student of one's own may raise anything
    reason = f"{type(error).__name__}: {f'{error}'.partition(chr(10))[0]}"
    raise UserError(
      f"student {plan.about.student} with method {plan.about.method} cannot "
      f"make a step: {reason}"
    ) from error


def rehearse_early(plan: Plan) -> None:
  """Traces the first step as far as it does not depend on the teacher."""
  _check_student(plan)
  if not plan.method.needs - {"logits"}:
    rehearse(plan, *(logits_of(plan),) * max(len(plan.asking.experts), 1))
  elif plan.teacher_training is not None:
    future = models.load(
      plan.teacher_training.student,
      plan.recipe.task.num_classes,
      **plan.recipe.view.options(),
    )
    rehearse(plan, answers_of(future, plan.recipe.view, count(plan.inputs)))


def logits_of(plan: Plan) -> Outputs:
  """The shapes of a plan's answers where they are logits alone."""
  task = plan.recipe.task
  form = Form(plan.answer_width, *task.labels.shape[1:])
  form = form._replace(top_k=plan.asking.top_k)
  if form.top_k > form.classes:
    raise UserError(
      f"teacher.top_k is {form.top_k}, and the vocabulary has {form.classes}"
      " tokens: 0 keeps all logits"
    )
  shapes: Any = form.shapes(task.num_examples)
  if not form.top_k:
    return Outputs(jax.ShapeDtypeStruct(shapes, jnp.float16))
  kinds = TopK(jnp.int32, jnp.float32, jnp.float32)
  kept: Any = TopK(*map(jax.ShapeDtypeStruct, shapes, kinds))
  return Outputs(kept)


def answers_of(model: Model, view: View, rows: int, weights=None) -> Outputs:
  """The shapes of a network's answers about so many rows.

  Args:
    model: architecture of the network.
    view: what it is shown of them.
    rows: number of rows.
    weights: (params, state); None takes the shapes of initial ones.
  """

  def answer(inputs, weights):
    params, state = weights or model.init(jax.random.key(0), inputs)
    return model.apply(params, state, inputs, train=False)[0]

  return jax.eval_shape(answer, shown(view, rows), weights)


def _check_student(plan: Plan) -> None:
  """Refuses a student that its file cannot hold, or with too few outputs."""
  model, needs, view = plan.recipe.model, plan.method.needs, plan.recipe.view
  _check_kind(plan)
  check_holdable(*jax.eval_shape(model.init, jax.random.key(0), shown(view)))
  outputs = answers_of(model, view, 1)
  _check_branches(plan, outputs)
  given = {
    field
    for field in outputs._fields
    if jax.tree.leaves(getattr(outputs, field))
  }
  if lacking := sorted(needs - given):
    positions = "positions" if plan.recipe.task.labels.ndim > 1 else "rows"
    work = ", ".join(
      methods.working_with(frozenset(given), view.kind, answers=positions)
    )
    raise UserError(
      f"student {plan.about.student} gives no {' and no '.join(lacking)}, "
      f"which method {plan.about.method!r} compares: choose another student, "
      f"or a method that works without: {work}"
    )
  if plan.recipe.task.labels.ndim > 1 and outputs.logits.ndim < 3:
    raise UserError(
      f"student {plan.about.student} gives one answer about each row, and"
      f" {plan.about.dataset} has one answer for each token"
      " (dataset.text.causal): choose lm_tiny or the like"
    )


def _check_branches(plan: Plan, outputs: Outputs) -> None:
  """Refuses peers that nothing trains, and a method that has none."""
  about, wanted = plan.about, plan.method.branches
  if about.peers and wanted != "any":
    raise UserError(
      f"method {about.method!r} trains no peers: leave peers out, or choose dml"
    )
  if wanted == "any" and not outputs.branches:
    raise UserError(
      f"method {about.method!r} trains several students: name the others,"
      f" --config.peers='(\"{about.student}\",)'"
    )
  if wanted == "ensemble" and len(outputs.branches) < 2:
    advice = "choose one_resnet8 or the like"
    if plan.recipe.view.kind == "texts":
      advice = "bring one that has (docs/students.md), or choose another method"
    raise UserError(
      f"method {about.method!r} trains branches and their ensemble, and student"
      f" {about.student} has none: {advice}"
    )


def _check_kind(plan: Plan) -> None:
  """Refuses a method that changes pixels where there are none."""
  kind, about = plan.recipe.view.kind, plan.about
  answers = "positions" if plan.recipe.task.labels.ndim > 1 else "rows"
  logits = frozenset({"logits"})
  work = methods.working_with(logits, kind, answers=answers)
  if plan.method.inputs not in ("any", kind):
    raise UserError(
      f"method {about.method!r} needs {plan.method.inputs}, and the inputs of"
      f" {about.dataset} are {kind}: these methods work with answers alone:"
      f" {', '.join(work)}"
    )
  if plan.method.answers not in ("any", answers):
    wanted = {
      "rows": "one answer about each row",
      "positions": "one answer for each token (dataset.text.causal)",
    }
    if answers == "positions":
      work = [*work, "ckd with hyper.estimator=all"]
    raise UserError(
      f"method {about.method!r} compares {wanted[plan.method.answers]}, and"
      f" {about.dataset} has {wanted[answers]}: these methods work:"
      f" {', '.join(work)}"
    )


def rehearse(plan: Plan, *answers: Outputs) -> None:
  """Traces the first step, with shapes in place of numbers.

  Args:
    plan: gives the recipe, and shapes of inputs and labels.
    *answers: shapes [rows, ...] of each teacher's answers; those of maps and
      embeddings are known only once there is a teacher.
  """
  recipe = plan.recipe
  examples = Examples(
    shapes(plan.inputs),
    shapes(recipe.task.labels),
    answers if plan.method.needs else (),
  )

  def first_step(key, examples):
    state = init_state(key, recipe, examples)
    # The number of rows is known here, so a sampler can refuse it.
    recipe.method.sample(key, 0, recipe.task, state.method)
    for stage in recipe.method.stages:
      state, _ = make_step(staged(recipe, stage))(state, examples, key)
      state = finish_stage(stage, state, recipe.transform)
    return make_step(recipe)(state, examples, key)

  jax.eval_shape(first_step, jax.random.key(0), examples)


def find_bias(plan: Plan) -> tuple[str, ...]:
  """Path of the classifier's bias, into which an offset is folded."""
  recipe = plan.recipe
  inputs = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), shown(recipe.view, 4)
  )
  params, state = jax.jit(recipe.model.init)(jax.random.key(0), inputs)
  probe = recipe.view(None, take(plan.inputs, slice(4)))

  def logits(params):
    outputs, _ = recipe.model.apply(params, state, probe, train=False)
    return np.asarray(outputs.logits, np.float32)

  return offsets.find_bias(logits, params)


def rehearsed(plan: Plan) -> Plan:
  """Traces the first step as far as it does not depend on the teacher.

  Args:
    plan: of the run, without the bias.

  Returns:
    The plan, with the bias that will take up a fitted offset.

  Raises:
    UserError: the student, the method and the batch do not fit together.
  """
  with refusing(plan):
    rehearse_early(plan)
    if plan.offset.mode == offsets.FIT:
      bias = find_bias(plan)
      plan = plan._replace(offset=plan.offset._replace(bias=bias))
  return plan
