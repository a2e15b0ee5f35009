"""The contents of table.json before the first answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ckd_jax.data import Split
from ckd_jax.table.form import Form


class Subject(NamedTuple):
  """The images that a table has answers about.

  Attributes:
    dataset: name of the data set.
    split_name: "train" or "test".
    split: its images, labels, ids and fingerprint, in canonical order.
    class_names: in the data set's order; of a language model its vocabulary.
  """

  dataset: str
  split_name: str
  split: Split
  class_names: Sequence[str]

  def form(self, top_k: int = 0) -> Form:
    """What an answer looks like, with `top_k` tokens kept; 0 is all."""
    labels = self.split.labels
    positions = labels.shape[1] if labels.ndim > 1 else None
    return Form(len(self.class_names), positions, top_k)

  def facts(self) -> dict[str, Any]:
    """The entries of table.json that identify these images."""
    return {
      "dataset": self.dataset,
      "split": self.split_name,
      "fingerprint": self.split.fingerprint,
      "class_names": list(map(str, self.class_names)),
    }


def new_info(
  about: dict[str, Any],
  *,
  teacher: str,
  missing: Sequence[str],
  kind: str = "logits",
  view: str = "clean",
  view_seed: int | None = None,
  view_pad: int | None = None,
  form: Form | None = None,
) -> dict[str, Any]:
  """The `info` of a table without rows.

  Args:
    about: the `facts` of a `Subject`.
    teacher: name of the teacher.
    missing: ids of the images whose answers the table is to hold.
    kind: of the answers, "logits", "log_probs" or "probs".
    view: "clean" or "augmented", what the teacher sees.
    view_seed: seed of the augmented view; None for the clean one.
    view_pad: pixels of black border of the augmented view, or None.
    form: of an answer; None is logits, one row of them.
  """
  facts = {} if form is None else form.facts()
  return {
    **about,
    "teacher": teacher,
    "kind": kind,
    "view": view,
    "view_seed": view_seed,
    "view_pad": view_pad,
    **{key: value for key, value in facts.items() if value is not None},
    "dtype": None,
    "fields": [],
    "calls": 0,
    "repeated_calls": 0,
    "missing": list(map(str, missing)),
    "parts": [],
  }
