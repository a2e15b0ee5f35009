"""The teacher's answers that a run learns from, and what they cost."""

from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ckd_jax import methods, table, teacher
from ckd_jax.data import Dataset, count, shown
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs, TopK
from ckd_jax.models import cost
from ckd_jax.run.buying import buy, say_kind, usable, view_of
from ckd_jax.run.opening import open_teacher
from ckd_jax.run.plan import Plan
from ckd_jax.run.rehearsal import answers_of, refusing, rehearse
from ckd_jax.run.tables import given_table, read_table
from ckd_jax.step import Live
from ckd_jax.system import console, hosts
from ckd_jax.table import Table
from ckd_jax.teacher import Asking, Teacher


class Collected(NamedTuple):
  """The teacher's answers about the training rows, and what they cost.

  Attributes:
    teachers: NumPy arrays [train, ...], of the teacher and then of its pruned
      copy, if there is one, or what a method made of the answers of several;
      `Batch.teachers` are rows of them.
    live: teachers that answer inside the step instead.
    teacher: its name, of several the largest one's; "none" without one.
    calls: answers that this run learns from.
    pairs: of a cross encoder's answers, documents that they score.
    experts: of several teachers (name, answers of it), the largest last.
    paid: of these, answers that this run bought, now or before a kill.
    repeated: calls that it made a second time, not counted in `paid`.
    failed: attempts that brought no answer, images each; a service may bill
      them.
    may_buy: calls that may still be made for this table; None where no teacher
      is asked.
    pruned_calls: answers of the pruned copy, which are free.
    view: "clean" or "augmented", what the teacher saw.
    view_seed: seed of the augmented view; None for the clean one.
    view_pad: pixels of black border of the augmented view, or None.
    path: folder of the table; None for answers in memory.
    digest: sha256 of the table.
    test_outputs: answers about the test images, for evaluation alone.
    test_accuracy: the teacher's first figure of the data set's judge; None for
      a black box without a test table.
    evaluation_calls: answers about test images.
    parameters: number of a local teacher's parameters.
    flops: floating-point operations of a local teacher for one image.
  """

  teachers: tuple[Outputs, ...] = ()
  live: Live | None = None
  teacher: str = "none"
  calls: int = 0
  pairs: int = 0
  experts: tuple[tuple[str, int], ...] = ()
  paid: int = 0
  repeated: int = 0
  failed: int = 0
  may_buy: int | None = None
  pruned_calls: int = 0
  view: str = "clean"
  view_seed: int | None = None
  view_pad: int | None = None
  path: str | None = None
  digest: str | None = None
  test_outputs: Outputs | None = None
  test_accuracy: float | None = None
  evaluation_calls: int = 0
  parameters: int | None = None
  flops: float | None = None


def collect(
  asking: Asking,
  dataset: Dataset,
  rows: np.ndarray,
  plan: Plan,
  mesh,
  workdir: epath.Path,
) -> Collected:
  """Reads, imports or asks for the answers about `rows` of the training set.

  Args:
    asking: settings of the teacher.
    dataset: images that the teacher is asked about.
    rows: int[n], the training part of the budget.
    plan: of the run; rehearsed with the shapes of the answers before any call.
    mesh: devices over which a local teacher's batches are sharded.
    workdir: folder of the run, for a table of its own.

  Raises:
    UserError: there are no answers, or they belong to another data set.
  """
  if asking.source == "none" or not plan.method.needs:
    return Collected()
  if asking.source == "table":
    collected = _from_table(asking, dataset, rows, plan, workdir)
    with refusing(plan):
      rehearse(plan, _shapes(collected.teachers[0]))
    return collected
  all_asked = _opened(asking, dataset, plan, mesh)
  asked = all_asked[-1]  # of several the largest
  known = Collected(teacher=asked.name)
  if asked.network is not None:
    known = _about_network(asked, dataset, plan)
  if asking.pruned:
    all_asked.append(teacher.pruned(asked, asking.pruned, mesh=mesh))
  if asking.live:
    network = asked.network
    weights = tuple(
      (one.network.params, one.network.state) for one in all_asked
    )
    live = Live(network.model, weights, network.view)
    return known._replace(live=live)
  bought = buy(all_asked, asking, dataset, rows, plan, workdir)
  pairs = _pairs(bought["teachers"], dataset)
  return known._replace(pairs=pairs, **bought)


def _opened(asking: Asking, dataset: Dataset, plan: Plan, mesh):
  """The teacher, or several of them, the largest last."""
  method = plan.method
  if method.consult is not None and not asking.experts and hosts.first():
    console.note(
      f"method {plan.about.method!r} has one teacher here: teacher.sources"
      " names several"
    )
  opened = [
    open_teacher(
      one, dataset, method.needs, mesh, {one.name, plan.about.student}
    )
    for one in asking.experts or (asking,)
  ]
  names = [one.name for one in opened]
  if twice := next((one for one in names if names.count(one) > 1), None):
    raise UserError(f"teacher.sources names {twice} twice: leave one out")
  return opened


def _about_network(asked: Teacher, dataset: Dataset, plan: Plan) -> Collected:
  """Rehearses with a local teacher; measures its accuracy and its size."""
  network, needs = asked.network, plan.method.needs
  with refusing(plan):
    weights = network.params, network.state
    rows = count(plan.inputs)
    # The texts of its own training may have been longer.
    shapes = answers_of(network.model, plan.recipe.view, rows, weights)
    given = {
      field
      for field in shapes._fields
      if jax.tree.leaves(getattr(shapes, field))
    }
    kind = plan.recipe.view.kind
    teacher.require(asked.name, frozenset(given), needs, kind)
    rehearse(plan, *(shapes,) * max(len(plan.asking.experts), 1))
  known = Collected(
    teacher=asked.name,
    parameters=cost.parameters(network.params),
    flops=cost.flops(network.model, *weights, shown(network.view)),
  )
  if not len(dataset.test.labels):
    return known
  test = asked.ask(dataset.test.inputs, needs=frozenset({"logits"}))
  tested = _tested(table.to_outputs(test, asked.kind, ()), dataset)
  return known._replace(**tested)


def _shapes(outputs: Outputs) -> Outputs:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), outputs)


def _from_table(
  asking: Asking, dataset: Dataset, rows: np.ndarray, plan: Plan, workdir
) -> Collected:
  """The answers of a table, of a file, or of a program's array or Table."""
  needs, train = plan.method.needs, dataset.train
  if asking.given is None and not asking.path:
    asking = asking._replace(given=_with_data(dataset))
  if asking.given is None:
    held, path = read_table(asking, "train", dataset, workdir)
  else:
    held, path = given_table(asking, dataset), None
  _check_top(held, plan)
  fields = table.given(held.answers)
  if lacking := ", ".join(sorted(needs - fields)):
    work = ", ".join(methods.working_with(fields, plan.recipe.view.kind))
    place = f"the table {path}" if path else "answers"
    raise UserError(
      f"method {plan.about.method!r} needs the teacher's {lacking}, which "
      f"{place} does not hold: these methods work without: {work}"
    )
  say_kind(held)
  tested = {}
  if asking.test_path:
    test, _ = read_table(asking, "test", dataset, workdir)
    kind, ids = dataset.test.kind, dataset.test.ids
    tested = _tested(usable(test, ids, kind), dataset)
  elif dataset.vectors is not None and dataset.vectors.test is not None:
    if not _is_of_pairs(dataset):
      tested = _tested(Outputs(dataset.vectors.test), dataset)
  outputs = usable(held, train.ids[rows], train.kind, needs)
  return Collected(
    teachers=(outputs,),
    teacher=held.info["teacher"],
    **view_of(held.info),
    calls=len(rows),
    pairs=_pairs((outputs,), dataset),
    path=path and str(path),
    digest=table.digest(held.info),
    **tested,
  )


def _is_of_pairs(dataset: Dataset) -> bool:
  return dataset.index is not None and dataset.index.pairs


def _pairs(teachers: tuple[Outputs, ...], dataset: Dataset) -> int:
  """How many pairs of a query and a document were scored."""
  if not _is_of_pairs(dataset):
    return 0
  return sum(
    int(np.isfinite(scores).sum())
    for one in teachers
    for scores in [getattr(one.logits, "log_probs", one.logits)]
  )


def _with_data(dataset: Dataset) -> Table:
  """The answers that came with the data."""
  vectors = dataset.vectors
  if vectors is None or vectors.train is None or _is_of_pairs(dataset):
    raise UserError(
      f"the vectors of {dataset.name} have no titles: put them into the file of"
      " dataset.retrieval.embeddings, or set teacher.path"
    )
  return Table.from_arrays(
    vectors.train, ids=list(dataset.train.ids), teacher=vectors.name
  )


def _check_top(held: Table, plan: Plan) -> None:
  """Refuses the most probable tokens alone where all logits are needed."""
  is_kept = isinstance(held.answers.values, TopK)
  if is_kept and plan.method.needs and not plan.method.takes_top:
    work = methods.working_with(
      frozenset({"logits"}), "texts", answers="positions", top=True
    )
    raise UserError(
      f"method {plan.about.method!r} needs all logits, the table holds some,"
      f" top_k {held.answers.values.ids.shape[-1]}: these methods take them:"
      f" {', '.join(work)}"
    )


def _tested(test: Outputs, dataset: Dataset) -> dict[str, Any]:
  """Accuracy on the test set, and how many answers that took."""
  rows, logits = len(dataset.test.labels), test.logits
  if isinstance(logits, TopK):  # nothing to judge
    return {"test_outputs": test, "evaluation_calls": rows}
  if dataset.index is not None and not dataset.index.pairs:
    index = dataset.index
    logits = np.asarray(index.scores(index.placed(logits), index.anchors))
  figures = dataset.judge(logits, dataset.test)
  return {
    "test_outputs": test,
    "test_accuracy": next(iter(figures.values())),
    "evaluation_calls": rows,
  }
