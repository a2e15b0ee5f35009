"""Opens a teacher: a network on this machine, or a function."""

from collections.abc import Iterable
from typing import Any

from jax.sharding import Mesh

from ckd_jax import teacher
from ckd_jax.data import Dataset, ImageView
from ckd_jax.errors import UserError
from ckd_jax.teacher import Asking, Teacher


def open_teacher(
  asking: Asking,
  dataset: Dataset,
  needs: frozenset[str],
  mesh: Mesh,
  named: Iterable[str],
) -> Teacher:
  """Opens a teacher; refuses one of other classes or inputs.

  Args:
    asking: its settings; the source is a network or a function.
    dataset: images that it will be asked about.
    needs: fields of `Outputs` that it answers with.
    mesh: devices over which a local teacher's batches are sharded.
    named: networks of one's own that may be made, beside those of the zoo.

  Raises:
    UserError: there is no such teacher, or it cannot answer.
  """
  view = dataset.shown()
  if asking.source == "callable":
    return _black_box(asking)
  if asking.source == "torch":
    if not isinstance(view, ImageView):
      raise UserError(
        f"teacher.source 'torch' reads networks for images, and the inputs of"
        f" {dataset.name} are {view.kind}: choose another source"
      )
    asked = teacher.from_torch(
      asking.path,
      asking.name,
      view=view._replace(mean=asking.mean, std=asking.std),
      mesh=mesh,
      needs=needs,
    )
  elif asking.source == "gpt2":
    asked = teacher.from_gpt2(asking.path, view=view, mesh=mesh, needs=needs)
  else:
    asked = teacher.from_run(asking.path, named=named, mesh=mesh, needs=needs)
  network = asked.network
  if network.classes != dataset.num_classes:
    raise UserError(
      f"the teacher {asked.name} has {network.classes} classes, "
      f"{dataset.name} has {dataset.num_classes}"
    )
  if reason := network.view.mismatch(view):
    raise UserError(f"the teacher {asked.name} {reason}: {dataset.name}")
  return asked


def _black_box(asking: Asking) -> Teacher:
  how: dict[str, Any] = {
    "retries": asking.retries,
    "back_off": asking.back_off,
    "concurrency": asking.concurrency,
    "requests_per_second": asking.requests_per_second,
    "timeout": asking.timeout,
    "request_size": asking.request_size,
    "kind": asking.kind,
  }
  if asking.given is None:
    return teacher.from_callable(asking.path, **how)
  return teacher.from_function(asking.given, f"callable:{asking.path}", **how)
