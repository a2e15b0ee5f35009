"""Reads the settings of a teacher from a config."""

from ckd_jax.teacher import Asking


def asking(config) -> Asking:
  """The settings as one record.

  Args:
    config: a ConfigDict; the one of a teacher's own training has source "none"
      and lacks the other keys.
  """
  teacher = config.teacher
  sources = teacher.get("sources", ())
  if teacher.source == "none" and not sources:
    return Asking("none")
  one = Asking(
    source=teacher.source,
    name=teacher.name,
    path=teacher.path,
    kind=teacher.kind,
    view=teacher.get("view", "clean"),
    view_seed=config.budget_seed,
    pad=config.get("augment_padding", 0),
    live=teacher.live,
    pruned=teacher.pruned,
    mean=tuple(teacher.get("mean", ())),
    std=tuple(teacher.get("std", ())),
    part_size=teacher.part_size,
    retries=teacher.retries,
    back_off=teacher.back_off,
    concurrency=teacher.concurrency,
    requests_per_second=teacher.requests_per_second,
    request_size=teacher.request_size,
    top_k=teacher.get("top_k", 0),
    timeout=teacher.get("timeout", 0.0),
    max_calls=teacher.get("max_calls"),
    max_attempts=teacher.get("max_attempts"),
    table_path=config.table.path,
    test_path=config.table.test_path,
  )
  experts = tuple(_expert(one, source) for source in sources)
  return one._replace(source="several", experts=experts) if experts else one


def _expert(one: Asking, source: str) -> Asking:
  """The settings of a teacher that is named as in teacher.sources."""
  kind, _, path = source.partition(":")
  if kind != "torch":
    return one._replace(source=kind, path=path)
  name, _, path = path.partition(":")
  return one._replace(source=kind, name=name, path=path)
