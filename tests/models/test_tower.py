"""A tower: vectors, their scores, and documents that nothing trains."""

import jax
import numpy as np
import pytest

from ckd_jax import methods, models
from ckd_jax.data.token_view import TokenView
from ckd_jax.data.vocabulary import Vocabulary
from ckd_jax.methods import Index, Model, Outputs, Task, anchored, symmetric
from ckd_jax.step import (
  Examples,
  Recipe,
  init_state,
  make_batch_sharder,
  make_encode,
  make_step,
  make_vectors,
  optimizer,
  pad,
  place,
  shard_vmap,
)
from tests.helpers.arrays import draw, unit
from tests.helpers.on_devices import deviation, mesh_of

ROWS, BATCH, DOCUMENTS, DIM, LENGTH = 12, 8, 10, 5, 6
VIEW = TokenView(Vocabulary("words", tuple("abcdefg")), LENGTH)
ANCHORS = draw(DOCUMENTS, DIM, seed=2)


def identity() -> Model:
  """Gives its inputs, and counts its steps."""

  def apply(params, state, inputs, *, train, key=None):
    return Outputs(inputs * params["one"]), {"steps": state["steps"] + train}

  return Model(lambda key, x: ({"one": np.ones(1)}, {"steps": 0}), apply)


@pytest.mark.parametrize("cosine", [False, True])
def test_without_a_last_layer_the_vector_is_the_network_s(cosine):
  """P is then the identity: the dimensions are equal."""
  tower = models.tower(identity(), Index(ANCHORS, 0.5, cosine))
  vectors = draw(3, DIM)
  params, state = tower.init(jax.random.key(0), vectors)
  outputs, after = tower.apply(params, state, vectors, train=True)
  place = unit if cosine else np.float64
  np.testing.assert_allclose(outputs.embedding, place(vectors), rtol=1e-6)
  scores = place(vectors) @ place(ANCHORS).T / 0.5
  np.testing.assert_allclose(outputs.logits, scores, rtol=1e-5)
  assert after["network"] == {"steps": 1}
  np.testing.assert_array_equal(after["documents"], ANCHORS)


def test_vectors_of_another_dimension_are_refused():
  tower = models.tower(identity(), Index(ANCHORS))
  params, state = tower.init(None, None)
  with pytest.raises(ValueError, match="have 4 numbers, the documents' 5"):
    tower.apply(params, state, draw(3, 4), train=False)


def tokens_of(rows: int, seed: int = 0) -> np.ndarray:
  drawn = np.random.default_rng(seed).integers(1, 10, (rows, LENGTH))
  return drawn.astype(np.int32)


def steps(mesh, seen=anchored, times=2):
  """The state after some steps of a strong decay, and the metrics."""
  index = Index(ANCHORS, 0.1, True, sampled=9)
  labels = (np.arange(ROWS) % DOCUMENTS).astype(np.int32)
  vectors = draw(ROWS, DIM, seed=3)
  network = models.get("averaging", DIM, **VIEW.options())
  recipe = Recipe(
    seen(methods.make("embed_distill"), index),
    models.tower(network, index),
    task=Task(ROWS, DOCUMENTS, BATCH, 2, labels),
    view=VIEW,
    transform=optimizer.make("adamw", 0.9, 0.5),
    schedule=lambda step: np.float32(0.1),
  )
  examples = Examples(tokens_of(ROWS), labels, (Outputs(vectors),))
  if seen is symmetric:
    numbers = np.arange(DOCUMENTS, dtype=np.int32)
    documents = Examples(tokens_of(DOCUMENTS, 1), numbers, (Outputs(ANCHORS),))
    examples = pad(examples, 40, documents)
  state = jax.jit(lambda key: init_state(key, recipe, examples))(
    jax.random.key(0)
  )
  step = make_step(recipe, shard=make_batch_sharder(mesh))
  launch = jax.jit(shard_vmap(step, mesh))
  state, examples, key = jax.tree.map(
    lambda x: x[None], (state, examples, jax.random.key(1))
  )
  for _ in range(times):
    state, metrics = launch(state, examples, key)
  return jax.device_get((state, metrics))


@pytest.mark.slow
def test_one_and_four_devices_agree_and_documents_stay():
  one, four = (steps(mesh_of(1, n)) for n in (1, 4))
  assert deviation(one, four) < 2e-4
  state, metrics = four
  for held in (state.model["documents"], state.method["documents"]):
    assert held[0].tobytes() == ANCHORS.tobytes()
  assert {"embedding", "score", "cross_entropy"} <= metrics.keys()


@pytest.mark.slow
def test_a_symmetric_step_is_the_same_on_one_and_four_devices():
  one, four = (steps(mesh_of(1, n), symmetric) for n in (1, 4))
  assert deviation(one, four) < 1e-3
  assert {"document_embedding", "embedding", "score"} <= four[1].keys()


def test_a_tower_reads_its_documents_in_batches():
  """And searches those, of which the last batch is not full."""
  index = Index(ANCHORS, 0.5, cosine=True)
  network = models.get("averaging", DIM, **VIEW.options())
  tower = models.tower(network, index)
  texts = tokens_of(DOCUMENTS, 1)
  params, state = tower.init(jax.random.key(0), texts)
  encode = make_encode(make_vectors(tower, VIEW))
  mesh = mesh_of(1, 4)
  after = encode(params, state, place(texts, mesh, batch_size=4))
  bare = network.apply(params, state["network"], texts, train=False)[0]
  wanted = unit(bare.logits)
  np.testing.assert_allclose(after["documents"], wanted, rtol=1e-4, atol=1e-6)
  assert after["network"] is state["network"]
  logits = tower.apply(params, after, texts, train=False)[0].logits
  np.testing.assert_allclose(logits, wanted @ wanted.T / 0.5, atol=1e-5)
