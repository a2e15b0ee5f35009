"""The shapes of a teacher's answers, before it is asked or even trained."""

import jax
import numpy as np

from ckd_jax import gpt2_weights, models, student, table, teacher
from ckd_jax.data import shown
from ckd_jax.methods import Model, Outputs
from ckd_jax.run import Plan, answers_of, logits_of
from ckd_jax.step import Live

_STORED = np.float16  # a table's default


def expected(plan: Plan) -> tuple[tuple[Outputs, ...], Live | None]:
  """What the step of a run will be given by its teachers, as shapes.

  Args:
    plan: whose teacher is a network that is known, or gives logits only.

  Returns:
    The answers [rows, ...] of each teacher in a table; and the teachers that
    answer inside the step instead, if they do.

  Raises:
    UserError: the method compares what this teacher does not give.
  """
  needs, asking = plan.method.needs, plan.asking
  if not needs or asking.source == "none":
    return (), None
  network = _network(plan)
  count = 2 if asking.pruned else 1
  if network is not None and asking.live:
    view = plan.recipe.view
    weights = jax.eval_shape(network.init, jax.random.key(0), shown(view))
    live = Live(network, (weights,) * count, view)
    return (), live
  if asking.top_k or asking.experts:
    return (logits_of(plan),) * max(len(asking.experts), 1), None
  if network is not None:
    told = answers_of(network, plan.recipe.view, 1)
  else:
    told = _told(plan)
  given = {
    field for field in told._fields if jax.tree.leaves(getattr(told, field))
  }
  named, kind = asking.path or asking.name or "given", plan.recipe.view.kind
  teacher.require(named, given, needs, kind)
  kept = {field: getattr(told, field) for field in {"logits", *needs}}
  rows = plan.recipe.task.num_examples
  stored = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), _STORED),
    Outputs(**kept),
  )
  return (stored,) * count, None


def _network(plan: Plan) -> Model | None:
  """A local teacher's network, without its weights."""
  asking, classes = plan.asking, plan.recipe.task.num_classes
  if plan.teacher_training is not None:
    options = plan.recipe.view.options()
    return models.load(plan.teacher_training.student, classes, **options)
  if asking.source == "torch":
    return models.load(asking.name, classes)
  if asking.source == "gpt2":
    return gpt2_weights.read_sizes(asking.path).model(classes)
  if asking.source == "checkpoint":
    file = f"{asking.path}/{student.STUDENT}"
    named = {asking.name, plan.about.student}
    return student.open_student(file, named=named)[0]
  return None


def _told(plan: Plan) -> Outputs:
  """Of a table the shapes of its arrays; others give logits only."""
  path = plan.asking.path
  if plan.asking.source == "table" and path and table.exists(path):
    held = table.read(path)
    fields = table.given(held.answers)
    return table.to_outputs(held.answers, held.kind, fields)
  return logits_of(plan)
