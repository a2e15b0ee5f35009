"""Which values of a config exclude each other."""

from collections.abc import Iterator
from typing import Any

from ckd_jax import methods, models
from ckd_jax.config import retrieval
from ckd_jax.config.positions import of_positions
from ckd_jax.config.rules import (
  SOURCES,
  check_choice,
  check_values,
  is_own_code,
  is_retrieval,
  is_text,
)
from ckd_jax.errors import UserError
from ckd_jax.offset import FIT


def check_together(config, method: methods.Method) -> None:
  """Refuses values that exclude each other.

  Args:
    config: a ConfigDict whose values are all in range.
    method: built from the config's method and hyper.
  """
  for conflict in _conflicts(config, method):
    raise UserError(conflict)
  for peer in config.peers:
    if ":" not in peer:
      check_choice("peers", peer, models.names)
  if config.teacher.sources:
    for source in config.teacher.sources:
      kind, name, *_ = source.split(":")
      if kind == "torch":
        check_choice("teacher.sources", name, models.names)
  elif config.teacher.source in ("torch", "train"):
    key, name = "teacher.name", config.teacher.name
    if not is_own_code(key, name):
      check_choice(key, name, models.names)


def _conflicts(config, method) -> Iterator[str]:
  # Several teachers stand in the place of the one.
  source = "several" if config.teacher.sources else config.teacher.source
  yield from _of_experts(config, method)
  yield from _of_spoiled(config)
  if is_retrieval(config):
    yield from retrieval.conflicts(config, method)
  held_out = int(config.budget * config.val_fraction)
  if config.schedule == "plateau" and not held_out:
    kind = "texts" if is_text(config) else "images"
    yield (
      "schedule 'plateau' watches the validation accuracy, and there are no"
      f" validation {kind}: raise val_fraction or the budget"
    )
  if source == "gpt2" and not (is_text(config) and config.dataset.text.causal):
    yield "teacher.source 'gpt2' needs dataset.text.causal=True"
  if method.needs and source == "none":
    others = ", ".join(name for name in SOURCES if name != "none")
    yield (
      f"method {config.method!r} needs a teacher: set teacher.source to one of"
      f" {others}"
    )
  with_data = is_retrieval(config) and retrieval.come_with_data(config)
  if source in ("callable", "checkpoint", "gpt2", "table", "torch") and (
    not config.teacher.path and not with_data
  ):
    yield f"teacher.source {source!r} needs teacher.path"
  if source == "table" and config.table.path:
    yield (
      "table.path keeps the answers of a teacher that is asked, and"
      " teacher.source 'table' asks none: set teacher.path alone"
    )
  if config.teacher.live and config.hyper.get("offset") == FIT:
    yield (
      "hyper.offset='fit' needs the answers of a table: a live teacher's are"
      " not kept, set hyper.offset=none"
    )
  if method.live and not config.teacher.live:
    other = ", or hyper.target=mixed_answers for those of a table"
    yield (
      f"method {config.method!r} asks a teacher in every step: set"
      f" teacher.live=True{other if 'target' in config.hyper else ''}"
    )
  if is_text(config):
    yield from of_positions(config, method)
  if config.teacher.pruned and method.max_teachers < 2:
    yield (
      f"method {config.method!r} has one teacher: teacher.pruned makes a second"
      " one for r2kd, set teacher.pruned=0.0"
    )
  if config.teacher.pruned and source not in ("checkpoint", "torch", "train"):
    yield (
      "teacher.pruned copies a local teacher without its smallest weights:"
      f" {source!r} has no weights here, set teacher.pruned=0.0"
    )
  if config.teacher.live and source in ("callable", "table"):
    yield (
      f"teacher.live needs a local teacher: {source!r} cannot answer in a step"
    )


def _of_experts(config, method: methods.Method) -> Iterator[str]:
  sources = config.teacher.sources
  if not sources:
    return
  if method.consult is None:
    made = {name: methods.make(name) for name in methods.names()}
    several = ", ".join(name for name in made if made[name].consult)
    yield (
      f"method {config.method!r} learns from one teacher: leave teacher.sources"
      f" out, or choose one that learns from several: {several}"
    )
  if len(set(sources)) < max(len(sources), 2):
    yield (
      "teacher.sources names two or more different teachers, the largest last,"
      f" not {tuple(sources)}: for one there is teacher.source"
    )
  if config.teacher.live or config.teacher.pruned:
    key = "live" if config.teacher.live else "pruned"
    yield (
      "teacher.sources are asked before training, for tables of their answers:"
      f" set teacher.{key}={False if key == 'live' else 0.0}"
    )
  if is_retrieval(config) or config.teacher.get("top_k"):
    yield (
      "teacher.sources answer with logits of classes, all of them: leave"
      " dataset.retrieval and teacher.top_k out"
    )


def _of_spoiled(config) -> Iterator[str]:
  largest, smallest, _ = (
    config.dataset.imbalance[key] for key in ("largest", "smallest", "exponent")
  )
  if not (largest == smallest == 0 or 1 <= smallest <= largest):
    yield (
      f"dataset.imbalance keeps {largest} rows of the largest class and"
      f" {smallest} of the smallest: choose 1 <= smallest <= largest, or 0 and"
      " 0 to keep all"
    )
  is_trained = config.teacher.source == "train" and not config.teacher.sources
  if config.teacher.sees == "clean" and not is_trained:
    yield (
      "teacher.sees='clean' is about a teacher that is trained here, and"
      f" teacher.source is {config.teacher.source!r}: set teacher.sees=same"
    )


def check(config: Any) -> None:
  """Refuses a config that can never run, before anything is loaded or paid.

  Args:
    config: a complete ConfigDict.

  Raises:
    UserError: a value is out of range, or two exclude each other.
  """
  check_values(config)
  try:
    method = methods.make(config.method, **config.hyper)
  except (TypeError, ValueError) as error:
    raise UserError(f"method {config.method}: {error}") from error
  check_together(config, method)
