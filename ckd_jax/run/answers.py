"""From a config to the teacher's answers that a run may use."""

from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from ckd_jax import methods, table, teacher
from ckd_jax.data import Dataset
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs
from ckd_jax.models import cost
from ckd_jax.run.plan import Plan, answers_of, refusing, rehearse
from ckd_jax.step import Live
from ckd_jax.step.evaluate import percent
from ckd_jax.system import hosts


class Answers(NamedTuple):
  """What the teacher said about the training rows, and what it cost."""

  outputs: tuple[Outputs, ...] = ()
  # NumPy, aligned with the training rows; of the teacher, then of its pruned
  # copy if there is one
  live: Live | None = None  # teachers that answer inside the step instead
  teacher: str = "none"
  calls: int = 0  # answers of the table that this run uses: within the budget
  paid: int = 0  # of them, bought by this run
  repeated: int = 0  # asked again after a kill, outside the budget
  pruned_calls: int = 0  # answers of the pruned copy, which nobody charges for
  view: str = "clean"  # what it was asked about
  view_seed: int | None = None
  view_pad: int | None = None
  path: str | None = None
  digest: str | None = None
  test_outputs: Outputs | None = None  # for evaluation alone
  test_accuracy: float | None = None  # in percent; None for a black box
  evaluation_calls: int = 0
  parameters: int | None = None  # of a local teacher
  flops: float | None = None  # of a local teacher, for one image


def collect(
  config, dataset: Dataset, rows: np.ndarray, settled: Plan, mesh, workdir
) -> Answers:
  """Reads, imports or asks for the answers about `rows` of the training set.

  Args:
    config: of the run; teacher.source says where answers come from.
    dataset: whose images are asked about.
    rows: int[n], the training part of the budget.
    settled: is rehearsed with answers of these shapes before any is asked for.
    mesh: over which a local teacher's batches are sharded.
    workdir: where a table lies that belongs to this run alone.

  Raises:
    UserError: the answers cannot be had, or do not belong to this data set.
  """
  source, needs = config.teacher.source, settled.method.needs
  if source == "none" or not needs:
    return Answers()
  if source == "table":
    answers = _from_table(config, dataset, rows, needs, workdir)
    with refusing(settled):
      rehearse(settled, _shapes(answers.outputs[0]))
    return answers
  asked = _open(config, dataset, needs, mesh)
  known = Answers(teacher=asked.name)
  if asked.model is not None:
    with refusing(settled):
      weights = asked.params, asked.state
      shapes = answers_of(asked.model, settled.images, weights)
      teacher.require(asked.name, shapes, needs)
      rehearse(settled, shapes)
    logits_only = frozenset({"logits"})
    test = asked.ask(dataset.test.images, needs=logits_only)
    shape = dataset.test.images.shape[1:]
    known = known._replace(
      **_tested(test, dataset),
      parameters=cost.parameters(asked.params),
      flops=cost.flops(asked.model, asked.params, asked.state, shape),
    )
  all_asked = [asked]
  if config.teacher.pruned:
    all_asked.append(teacher.pruned(asked, config.teacher.pruned, mesh=mesh))
  if config.teacher.live:
    weights = tuple((one.params, one.state) for one in all_asked)
    live = Live(asked.model, weights, asked.mean, asked.std)
    return known._replace(live=live)
  path = epath.Path(config.table.path or workdir / "table")
  places = [path, path.parent / f"{path.name}-pruned"]
  built = [
    _build(config, one, dataset, rows, needs, place)
    for one, place in zip(all_asked, places, strict=False)
  ]
  answered, paid, repeated = built[0]
  ids = dataset.train.ids[rows]
  return known._replace(
    outputs=tuple(_usable(one, ids, needs) for one, *_ in built),
    **_view(answered.info),
    calls=len(rows),
    paid=paid,
    repeated=repeated,
    pruned_calls=len(rows) * (len(built) - 1),
    path=str(path),
    digest=table.digest(answered.info),
  )


def _shapes(outputs: Outputs) -> Outputs:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), outputs)


def _build(config, asked, dataset, rows, needs, path):
  return teacher.build(
    asked,
    dataset.train,
    rows,
    table_path=path,
    dataset_name=dataset.name,
    class_names=dataset.class_names,
    num_classes=len(dataset.class_names),
    budget=len(rows),
    view=config.teacher.view,
    view_seed=config.budget_seed,
    pad=config.augment_padding,
    needs=needs,
    part_size=config.teacher.part_size,
  )


def _from_table(config, dataset, rows, needs, workdir) -> Answers:
  split = dataset.train
  answered, path = _read(config, config.teacher.path, "train", dataset, workdir)
  held = table.fields(answered.info)
  if lacking := ", ".join(sorted(needs - held)):
    work = ", ".join(methods.working_with(held))
    raise UserError(
      f"method {config.method!r} needs the teacher's {lacking}, which the "
      f"table {path} does not hold: of the methods {work} work without"
    )
  outputs = _usable(answered, split.ids[rows], needs)
  tested = {}
  if config.table.test_path:
    answered_test, _ = _read(
      config, config.table.test_path, "test", dataset, workdir
    )
    tested = _tested(_usable(answered_test, dataset.test.ids), dataset)
  return Answers(
    outputs=(outputs,),
    teacher=answered.info["teacher"],
    **_view(answered.info),
    calls=len(rows),
    path=str(path),
    digest=table.digest(answered.info),
    **tested,
  )


def _read(config, path, split_name, dataset, workdir):
  """A table of ours, or a foreign file that becomes one in `workdir`."""
  path = epath.Path(path)
  split = getattr(dataset, split_name)
  if not path.exists():
    raise UserError(f"no table at {path}: check teacher.path and table.*")
  if not path.is_dir():
    imported = workdir / ("table" if split_name == "train" else "table_test")
    imported_now = not hosts.first()  # by the process that is first
    if not imported_now and table.exists(imported):
      if not table.read_info(imported)["teacher"].startswith("file:"):
        raise UserError(
          f"{imported} holds answers that were paid for: choose another "
          "--workdir for those of a file"
        )
      imported.rmtree()  # the file may have been mended since
    if not imported_now:
      table.import_file(
        path,
        split,
        dataset.name,
        split_name,
        dataset.class_names,
        imported,
        kind=config.teacher.kind,
      )
    path = imported
  answered = table.read(path)
  if answered.info["fingerprint"] != split.fingerprint:
    raise UserError(
      f"{path} is a table of {answered.info['dataset']}/"
      f"{answered.info['split']}, not of these {dataset.name} images"
    )
  if list(answered.info["class_names"]) != list(dataset.class_names):
    raise UserError(f"{path} has other classes than {dataset.name}")
  return answered, path


def _open(config, dataset, needs, mesh) -> teacher.Teacher:
  settings = config.teacher
  if settings.source == "callable":
    return teacher.from_callable(
      settings.path,
      retries=settings.retries,
      back_off=settings.back_off,
      concurrency=settings.concurrency,
      requests_per_second=settings.requests_per_second,
      request_size=settings.request_size,
      kind=settings.kind,
    )
  if settings.source == "torch":
    asked = teacher.from_torch(
      settings.path,
      settings.name,
      mean=settings.mean,
      std=settings.std,
      channels=dataset.train.images.shape[-1],
      mesh=mesh,
      needs=needs,
    )
  else:
    asked = teacher.from_run(settings.path, mesh=mesh, needs=needs)
  if asked.classes != len(dataset.class_names):
    raise UserError(
      f"the teacher {asked.name} knows {asked.classes} classes, "
      f"{dataset.name} has {len(dataset.class_names)}"
    )
  channels = dataset.train.images.shape[-1]
  if len(asked.mean) != channels:
    raise UserError(
      f"the teacher {asked.name} sees {len(asked.mean)} channels, the images "
      f"of {dataset.name} have {channels}"
    )
  return asked


def _usable(answered: table.Table, ids, needs=frozenset()) -> Outputs:
  """The rows of `ids`: logits or their like, and what else is needed.

  Probabilities become their logarithms; logits stay as they are.
  """
  outputs = table.rows(answered, ids)
  fields = {"logits"} | needs
  outputs = Outputs(**{field: getattr(outputs, field) for field in fields})
  if answered.info["kind"] != "probs":
    return outputs
  print("teacher answers are probabilities p: using log(max(p, 1e-8))")
  floor = np.maximum(outputs.logits.astype(np.float32), 1e-8)
  return outputs._replace(logits=np.log(floor))


def _view(info: dict) -> dict:
  return {key: info[key] for key in ("view", "view_seed", "view_pad")}


def _tested(test: Outputs, dataset: Dataset) -> dict:
  """What the teacher is worth on the test set, and what asking it cost."""
  hits = np.argmax(test.logits, axis=-1) == dataset.test.labels
  return {
    "test_outputs": test,
    "test_accuracy": percent(hits),
    "evaluation_calls": len(hits),
  }
