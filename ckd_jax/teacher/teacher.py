"""Somebody who can be asked about images."""

import threading
from typing import Any, NamedTuple, Protocol

import numpy as np

from ckd_jax.methods import Model
from ckd_jax.table import Answers


class Ask(Protocol):
  """Answers a request."""

  def __call__(self, images: np.ndarray, *, needs: frozenset[str]) -> Answers:
    """The answers about uint8[n, h, w, c]: NumPy arrays of [n, ...].

    Args:
      images: as they are shown to the teacher.
      needs: fields of `Outputs` that are wanted; a black box gives no more than
        its logits.
    """
    ...


class Failures:
  """Counts requests that failed, the ones that were sent again included."""

  def __init__(self) -> None:
    self.count = 0
    self._guard = threading.Lock()

  def add(self) -> None:
    with self._guard:
      self.count += 1


class Network(NamedTuple):
  """A network with its weights.

  Attributes:
    model: the network.
    params: its parameters.
    state: its batch statistics.
    mean: of its training images, per channel, in units of pixel / 255.
    std: standard deviation of these, in the same units.
    classes: how many it knows; None where only its answers tell.
  """

  model: Model
  params: Any
  state: Any
  mean: tuple[float, ...]
  std: tuple[float, ...]
  classes: int | None = None


class Teacher(NamedTuple):
  """Somebody who can be asked about images.

  Attributes:
    name: who answers, down to the digest of the weights; a table of one
      teacher is never filled by another.
    ask: answers a request; None for a table that is only read.
    network: of a local teacher, for use in the step.
    kind: what its answers are: "logits", "log_probs" or "probs".
    request_size: images of one request; None: a whole part of the table.
    concurrency: requests that may be under way at once.
    failures: of a teacher whose requests can fail; else None.
  """

  name: str
  ask: Ask | None
  network: Network | None = None
  kind: str = "logits"
  request_size: int | None = None
  concurrency: int = 1
  failures: Failures | None = None
