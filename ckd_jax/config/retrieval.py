"""What a config of a retrieval set excludes: answers there are vectors."""

from collections.abc import Iterator

from ckd_jax import methods
from ckd_jax.offset import FIT


def conflicts(config, method: methods.Method) -> Iterator[str]:
  """What cannot be where classes are documents.

  Args:
    config: a ConfigDict with a section `dataset.retrieval`.
    method: built from its method and hyper.
  """
  if method.branches != "none":
    found = methods.working_with(frozenset({"logits", "embedding"}), "texts")
    # Several teachers answer with logits of classes.
    work = ", ".join(x for x in found if methods.make(x).consult is None)
    yield (
      f"method {config.method!r} compares logits of several networks, and what"
      " they give here is vectors: leave peers out, and choose one of"
      f" {work}"
    )
  source, kind = config.teacher.source, config.teacher.kind
  of_pairs = config.dataset.retrieval.answers == "scores"
  if source not in ("callable", "none", "table"):
    yield (
      "a retrieval set is answered by the encoder of its documents:"
      f" teacher.source is {source!r}, choose table or callable"
    )
  if kind != "logits" and not of_pairs:
    yield (
      "the answers of a retrieval set are vectors:"
      f" teacher.kind is {kind!r}, set teacher.kind=logits"
    )
  if config.hyper.get("offset") == FIT:
    yield (
      "hyper.offset='fit' would favour some documents for every query: set"
      " hyper.offset=none"
    )
  if config.batch_norm == "device":
    yield (
      "batch_norm 'device' would average the documents of all devices: set"
      " batch_norm=global"
    )
  if 0 < config.dataset.retrieval.sampled < config.batch_size:
    yield (
      f"dataset.retrieval.sampled is {config.dataset.retrieval.sampled}, and a"
      f" step names up to {config.batch_size} documents: give so many or more,"
      " or 0 for all of them"
    )
  if config.dataset.retrieval.documents == "student":
    yield from _of_symmetric(config)


def come_with_data(config) -> bool:
  """Whether answers may be vectors that came with the documents'."""
  answers = config.dataset.retrieval.answers
  return config.teacher.source == "table" and answers == "vectors"


def _of_symmetric(config) -> Iterator[str]:
  """What cannot be where the student reads the documents, too."""
  if config.dataset.retrieval.sampled:
    yield (
      "a student that reads the documents compares those of its batch: set"
      " dataset.retrieval.sampled=0, or dataset.retrieval.documents=teacher"
    )
  if config.dataset.placement == "stream":
    yield (
      "documents that the student reads lie on the device: set"
      " dataset.placement=device, or dataset.retrieval.documents=teacher"
    )
