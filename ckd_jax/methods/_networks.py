"""The seam `Model`: a network gives `Outputs`."""

from typing import Any, NamedTuple, Protocol

import jax


class TopK(NamedTuple):
  """The k most probable answers, in place of all logits.

  Attributes:
    ids: int32[..., k], different ones.
    log_probs: float[..., k], natural logarithms, -inf for what is ruled out.
    rest: float32[...], the probability of all others together.
  """

  ids: Any
  log_probs: Any
  rest: Any


class Outputs(NamedTuple):
  """What a network outputs for its inputs; a black box fills logits only.

  Attributes:
    logits: float[..., classes]; of a language model one vector for each
      position, float[..., length, vocabulary]. A table's may be a `TopK`.
    embedding: float[..., dim], pooled features before the classifier.
    maps: stage outputs, float[..., h, w, c] each, in RepDistiller's order.
    preactivations: the same maps before their ReLU.
    branches: logits, float[..., classes] each, of students that are trained as
      one; of a network with an ensemble of its branches, the ensemble's last.
  """

  logits: jax.Array
  embedding: jax.Array | None = None
  maps: tuple = ()
  preactivations: tuple = ()
  branches: tuple = ()


class Mixed(NamedTuple):
  """Texts mixed in pairs, as a network of words sees them.

  A network mixes its own word embeddings by the weights, before it adds
  positions; a position counts where a part of positive weight has a token.

  Attributes:
    parts: int32[..., 2, length], the tokens of both, 0 for padding.
    weights: float32[..., 2], their shares, which sum to 1.
  """

  parts: jax.Array
  weights: jax.Array


class ModelInit(Protocol):
  """Makes a network's weights."""

  def __call__(self, key: jax.Array, inputs: Any, /) -> tuple[Any, Any]:
    """Returns (params, state): what is trained, and batch statistics.

    Args:
      key: random key for initial values.
      inputs: as in `ModelApply`; only shapes and types count.
    """
    ...


class ModelApply(Protocol):
  """Runs a network."""

  def __call__(
    self,
    params: Any,
    state: Any,
    inputs: Any,
    /,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, Any]:
    """Returns Outputs of [n, ...] and the next batch statistics.

    Args:
      params: the network's parameters, from `ModelInit`.
      state: its batch statistics; returned unchanged if `train` is false.
      inputs: float[n, h, w, c], normalised images; or int32[n, length], tokens.
      train: whether to update batch statistics and apply dropout.
      key: random key for dropout; None without dropout.
    """
    ...


class Model(NamedTuple):
  """A network as pure functions over nested dicts of arrays.

  Attributes:
    init: makes parameters and batch statistics: (key, inputs) -> (params,
      state).
    apply: runs the network: (params, state, inputs, *, train, key=None) ->
      (Outputs, state).
  """

  init: ModelInit
  apply: ModelApply


class Network(Protocol):
  """A network with its weights, in evaluation mode."""

  def __call__(self, inputs: Any, /) -> Outputs:
    """Returns Outputs of [n, ...].

    Args:
      inputs: a tree of [n, ...], as the student is shown them; a gradient may
        flow to them, and none to the weights.
    """
    ...


class Ask(NamedTuple):
  """The networks of a step, for a method that makes its own inputs.

  Attributes:
    student: as it stands before the step.
    teacher: a live one; where there is none yet, in a rehearsal, the student.
  """

  student: Network
  teacher: Network
