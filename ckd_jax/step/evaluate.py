"""Evaluates a network: its logits of every row, and measures of them."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ckd_jax.data import View, count, take
from ckd_jax.methods import Model, Outputs
from ckd_jax.system import hosts


class Placed(NamedTuple):
  """Inputs on the devices, in batches of one size.

  Attributes:
    batches: trees of [batch, ...] each, sharded over `data`.
    count: number of rows; the rest of the last batch is padding.
  """

  batches: Iterable[Any]
  count: int


class Forward(Protocol):
  """The logits of inputs, not jitted; the network is in evaluation mode."""

  def __call__(self, params: Any, state: Any, inputs: Any) -> jax.Array:
    """Returns float32[n, classes] for a tree of [n, ...], as stored."""
    ...


class Encode(Protocol):
  """Lets a tower read the documents that it searches, on every host."""

  def __call__(self, params: Any, state: Any, documents: Placed) -> Any:
    """Returns the tower's state with its own vectors of the documents."""
    ...


class Predict(Protocol):
  """The logits of every row exactly once, on every host."""

  def __call__(self, params: Any, state: Any, inputs: Placed) -> np.ndarray:
    """Returns float32[inputs.count, classes]."""
    ...


class _Streamed(NamedTuple):
  """Batches that are decoded again for every evaluation."""

  put: Callable[[int], Any]  # start -> a tree of [batch, ...]
  starts: range

  def __iter__(self):
    return map(self.put, self.starts)


def place(
  inputs: Any, mesh, batch_size: int = 500, *, stream: bool = False
) -> Placed:
  """Puts inputs on the devices, for all evaluations.

  Args:
    inputs: a tree of [n, ...], in memory or in files.
    mesh: devices with an axis `data`, over which a batch is sharded.
    batch_size: rows per batch, rounded up to a multiple of the devices.
    stream: whether to send them again, batch by batch, in every evaluation.
  """
  share, rows = mesh.shape["data"], count(inputs)
  batch_size = -(-min(batch_size, rows) // share) * share
  sharding = NamedSharding(mesh, PartitionSpec("data"))

  def padded(part):
    padding = [(0, batch_size - len(part))] + [(0, 0)] * (part.ndim - 1)
    return np.pad(part, padding)

  def put(start):
    part = take(inputs, slice(start, start + batch_size))
    return hosts.put_global(jax.tree.map(padded, part), sharding)

  starts = range(0, rows, batch_size)
  batches = _Streamed(put, starts) if stream else list(map(put, starts))
  return Placed(batches, rows)


def make_forward(model: Model, view: View) -> Forward:
  """Makes the function that runs a network in evaluation mode.

  Args:
    model: architecture of the network.
    view: what it is shown of the inputs.
  """

  def forward(params, state, inputs):
    outputs, _ = model.apply(params, state, view(None, inputs), train=False)
    return outputs.logits.astype(jnp.float32)

  return forward


def make_branches(model: Model, view: View) -> Forward:
  """Makes the function that gives the logits of all branches of a network.

  Args:
    model: architecture of the network.
    view: what it is shown of the inputs.

  Returns:
    A `Forward` to float32[n, branches, classes].
  """

  def forward(params, state, inputs):
    outputs, _ = model.apply(params, state, view(None, inputs), train=False)
    return jnp.stack(outputs.branches, axis=1).astype(jnp.float32)

  return forward


def make_vectors(model: Model, view: View) -> Forward:
  """Makes the function that gives the embeddings of a network.

  Args:
    model: architecture of the network, which has embeddings.
    view: what it is shown of the inputs.

  Returns:
    A `Forward` to float32[n, dim].
  """

  def forward(params, state, inputs):
    outputs, _ = model.apply(params, state, view(None, inputs), train=False)
    return outputs.embedding.astype(jnp.float32)

  return forward


def make_encode(
  vectors: Forward, replicas: NamedSharding | None = None
) -> Encode:
  """Makes the function that lets a tower read its documents.

  Args:
    vectors: from `make_vectors`.
    replicas: sharding of the vectors, a copy on every device; None for one.
  """
  jitted = jax.jit(vectors, out_shardings=replicas)
  join = jax.jit(
    lambda parts, count: jnp.concatenate(parts)[:count],
    static_argnums=1,
    out_shardings=replicas,
  )

  def encode(params, state, documents: Placed):
    parts = [jitted(params, state, batch) for batch in documents.batches]
    return {**state, "documents": join(parts, documents.count)}

  return encode


def make_predict(
  forward: Forward, replicas: NamedSharding | None = None
) -> Predict:
  """Makes the function that computes the logits of a whole split.

  Args:
    forward: from `make_forward`.
    replicas: sharding of the logits, a copy on every device; None for one.
  """
  jitted = jax.jit(forward, out_shardings=replicas)

  def predict(params, state, inputs: Placed) -> np.ndarray:
    # All launched before the first is read, so devices never wait.
    parts = [jitted(params, state, batch) for batch in inputs.batches]
    return np.concatenate([np.asarray(part) for part in parts])[: inputs.count]

  return predict


def measures(
  logits: np.ndarray, labels: np.ndarray, teacher: Outputs | None = None
) -> dict[str, float]:
  """Measures logits, in percent.

  Args:
    logits: float[n, classes], the student's.
    labels: int[n], the classes.
    teacher: its Outputs for the same images, [n, ...]; None without a teacher.

  Returns:
    top1, top5 (or top-k for fewer than 5 classes), calibration_error, and with
    a teacher agreement: how often both name the same class.
  """
  best = logits.argmax(-1)
  own = np.take_along_axis(logits, labels[:, None], -1)
  # Equal answers are ranked as argmax ranks them; NaN comes last.
  later = np.arange(logits.shape[-1]) > labels[:, None]
  behind = (logits < own) | ((logits == own) & later)
  rank = logits.shape[-1] - 1 - behind.sum(-1)
  result = {
    "top1": percent(best == labels),
    "top5": percent(rank < 5),
    "calibration_error": calibration_error(logits, labels),
  }
  if teacher is not None:
    result["agreement"] = percent(best == teacher.logits.argmax(-1))
  return result


def percent(hits: np.ndarray) -> float:
  """The share of true entries, in percent."""
  return 100.0 * float(np.mean(hits))


def calibration_error(
  logits: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
  """Expected calibration error in percent (Guo et al., arXiv 1706.04599, 3).

  The distance between confidence and accuracy, averaged over `bins` equal
  intervals of confidence, weighted by how many images fall into each; NaN where
  a logit is not finite.
  """
  if not np.isfinite(logits).all():
    return float("nan")
  shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
  probabilities = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
  confidence = probabilities.max(-1)
  correct = logits.argmax(-1) == labels
  which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  gap = np.bincount(which, confidence - correct, minlength=bins)
  return 100.0 * float(np.abs(gap).sum() / len(labels))
