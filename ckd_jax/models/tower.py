"""A network whose classes are documents: a vector, and its scores of them."""

from typing import Any

import jax
import jax.numpy as jnp

from ckd_jax.methods import Index, Model, Outputs


def tower(network: Model, index: Index) -> Model:
  """Turns a network's logits, as a vector, into scores of documents.

  The network's last layer is the projection P to the documents' dimension:
  logits = P(f(x)) . anchors^T / temperature. The documents' vectors lie beside
  the batch statistics: they are saved with the student, and never trained.

  Args:
    network: of `dim` logits; one that has no last layer to change it gives the
      vector itself.
    index: the documents.

  Returns:
    A `Model` with logits float32[n, documents], and the vector as embedding.
  """

  def init(key: jax.Array, inputs: Any) -> tuple[Any, Any]:
    params, state = network.init(key, inputs)
    documents = jnp.asarray(index.anchors, jnp.float32)
    return params, {"documents": documents, "network": state}

  def apply(
    params: Any,
    state: Any,
    inputs: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, Any]:
    # A network without statistics has no leaf in a file.
    inner = state.get("network", {})
    outputs, inner = network.apply(params, inner, inputs, train=train, key=key)
    vectors = index.placed(outputs.logits)
    documents = state["documents"]
    if vectors.shape[-1] != documents.shape[-1]:
      raise ValueError(
        f"the student's vectors have {vectors.shape[-1]} numbers, the"
        f" documents' {documents.shape[-1]}"
      )
    outputs = outputs._replace(
      logits=index.scores(vectors, documents), embedding=vectors
    )
    return outputs, {**state, "network": inner}

  return Model(init, apply)
