"""A named source of answers."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from ckd_jax.data import View
from ckd_jax.methods import Model
from ckd_jax.table import Answers
from ckd_jax.teacher.manner import Manner


class Ask(Protocol):
  """Answers a request."""

  def __call__(self, asked: Any, *, needs: frozenset[str]) -> Answers:
    """The answers about n rows: NumPy arrays of [n, ...].

    Args:
      asked: of a network of ours a tree of [n, ...], as stored; of a black box
        uint8[n, h, w, c], or a list of n texts.
      needs: fields of `Outputs` to answer with; a black box gives logits only.
    """
    ...


class AnswerFunction(Protocol):
  """Answers as a user's function gives them."""

  def __call__(self, asked: Any, /) -> np.ndarray:
    """Returns float[n, classes] for uint8[n, h, w, c], or for n texts.

    A row of a list may be None; see `from_function`.
    """
    ...


class Network(NamedTuple):
  """A network with its weights.

  Attributes:
    model: the architecture.
    params: its parameters, a tree of float32 arrays.
    state: its batch statistics, a tree of float32 arrays.
    view: what it was shown of the inputs when it was trained.
    classes: length of its logits; None where only its answers tell.
  """

  model: Model
  params: Any
  state: Any
  view: View
  classes: int | None = None


class Teacher(NamedTuple):
  """A named source of answers.

  Attributes:
    name: identifies it, with a digest of its weights; a table of one teacher is
      never filled by another.
    ask: answers a request; None for a table that is only read.
    network: a local teacher's weights, for use in the step.
    kind: of its answers, "logits", "log_probs" or "probs".
    manner: how a black box is asked; None is a whole part of the table at once.
  """

  name: str
  ask: Ask | None
  network: Network | None = None
  kind: str = "logits"
  manner: Manner | None = None
