"""The transformer: padding, neighbours, causality, mixtures, and its names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import models
from ckd_jax.errors import UserError
from ckd_jax.methods import Mixed, Outputs

VOCABULARY, LENGTH = 11, 7
TEXT = {"vocabulary": VOCABULARY, "length": LENGTH}


@functools.cache
def network(name, dtype=jnp.float32):
  classes = VOCABULARY if name.startswith("lm") else 3
  model = models.get(name, classes, dtype=dtype, **TEXT)
  params, state = model.init(jax.random.key(0), tokens())
  assert state == {}
  return model, params, jax.jit(model.apply, static_argnames="train")


def tokens() -> np.ndarray:
  """Four texts of 5, 4, 3 and 0 tokens."""
  rows = np.random.default_rng(0).integers(1, VOCABULARY, (4, LENGTH))
  lengths = np.array([[5], [4], [3], [0]])
  return np.where(np.arange(LENGTH) < lengths, rows, 0).astype(np.int32)


def answer(name, inputs, **options) -> Outputs:
  _, params, apply = network(name, **options)
  outputs, _ = apply(params, {}, inputs, train=False)
  return jax.device_get(outputs)


def close(one, other):
  np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ["transformer_tiny", "lm_tiny"])
def test_shapes_and_types(name, dtype):
  _, params, _ = network(name, dtype=dtype)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    np.dtype(np.float32)
  }
  outputs = answer(name, tokens(), dtype=dtype)
  assert outputs.logits.dtype == np.float32 and outputs.maps == ()
  assert all(map(np.isfinite, np.ravel(outputs.logits)))
  if name == "lm_tiny":
    assert outputs.logits.shape == (4, LENGTH, VOCABULARY)
    assert outputs.embedding is None
  else:
    assert outputs.logits.shape == (4, 3)
    assert outputs.embedding.shape == (4, 64)
    assert outputs.embedding.dtype == np.float32
  gap = outputs.logits - answer(name, tokens()).logits
  assert (np.abs(gap).max() > 0) == (dtype != jnp.float32)
  assert np.abs(gap).max() < 0.05


def test_names_of_the_parameters():
  _, params, _ = network("transformer_tiny")
  assert set(params) == {
    "embed",
    "position",
    "block_0",
    "block_1",
    "norm",
    "fc",
  }
  assert {
    len(x["kernel"].shape) for x in params["block_0"].values() if "kernel" in x
  } == {2}


@pytest.mark.parametrize("name", ["transformer_tiny", "lm_tiny"])
def test_padding_changes_nothing(name):
  short, long = tokens()[:3, :5], tokens()[:3]
  one, other = answer(name, short).logits, answer(name, long).logits
  if name == "lm_tiny":
    mask = short != 0
    one, other = one[mask], other[:, :5][mask]
  close(one, other)


@pytest.mark.parametrize("name", ["transformer_tiny", "lm_tiny"])
def test_a_row_is_independent_of_its_neighbours(name):
  together, changed = tokens(), tokens()
  changed[1:] = 7
  close(answer(name, together).logits[0], answer(name, changed).logits[0])


def test_a_text_without_tokens_is_finite():
  model, params, _ = network("transformer_tiny")
  outputs = answer("transformer_tiny", np.zeros((1, LENGTH), np.int32))
  assert not outputs.embedding.any()
  close(outputs.logits[0], params["fc"]["bias"])

  def total(params):
    inputs = jnp.zeros((1, LENGTH), jnp.int32)
    outputs, _ = model.apply(params, {}, inputs, train=False)
    return jnp.sum(outputs.logits + jnp.sum(outputs.embedding))

  for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(params)):
    assert np.isfinite(leaf).all()


def test_a_position_sees_nothing_after_it():
  inputs, changed = tokens(), tokens()
  changed[0, 3] = 1 + changed[0, 3] % (VOCABULARY - 1)
  one, other = (answer("lm_tiny", x).logits[0] for x in (inputs, changed))
  close(one[:3], other[:3])
  assert (np.abs(one[3:5] - other[3:5]).max(1) > 1e-3).all()
  # The classifier sees both ways.
  one, other = (answer("transformer_tiny", x) for x in (inputs, changed))
  assert np.abs(one.logits[0] - other.logits[0]).max() > 1e-3


def test_order_counts():
  turned = tokens()
  turned[0, :5] = turned[0, :5][::-1]
  one, other = (answer("transformer_tiny", x) for x in (tokens(), turned))
  assert np.abs(one.logits[0] - other.logits[0]).max() > 1e-3


def mixed(first, second, share) -> Mixed:
  weights = np.full((len(first), 2), (share, 1 - share), np.float32)
  return Mixed(np.stack([first, second], 1), weights)


@pytest.mark.parametrize("name", ["transformer_tiny", "lm_tiny"])
def test_mixed_texts(name):
  first, second = tokens()[1:], tokens()[:3]  # the partner is longer
  alone = answer(name, first).logits
  half = answer(name, mixed(first, second, 0.3)).logits
  close(answer(name, mixed(second, first, 0.7)).logits, half)
  assert np.abs(half - alone).max() > 1e-3
  whole, itself = (
    answer(name, mixed(first, x, w)).logits
    for x, w in ((second, 1), (first, 0.3))
  )
  if name == "lm_tiny":
    mask = first != 0
    whole, itself, alone = whole[mask], itself[mask], alone[mask]
  close(whole, alone)
  close(itself, alone)


@pytest.mark.parametrize("partner", [8, 0])
def test_a_mixture_is_of_word_embeddings(partner):
  """One-hot tokens times the table, mixed, by hand; padding is no word."""
  _, params, _ = network("transformer_tiny")
  # Each text is one token, so that their mixture is one word of another table.
  first, second = (np.full((1, 1), word, np.int32) for word in (3, partner))
  table = params["embed"]["embedding"]
  shares = np.zeros(VOCABULARY)
  shares[3], shares[8] = 0.25, 0.75 * (partner > 0)
  other = {"embedding": table.at[5].set(shares @ table)}
  apply = network("transformer_tiny")[2]
  word = np.full((1, 1), 5, np.int32)
  outputs, _ = apply(params | {"embed": other}, {}, word, train=False)
  half = answer("transformer_tiny", mixed(first, second, 0.25)).logits
  close(outputs.logits, half)


def test_the_first_blocks_of_a_teacher_begin_a_student():
  model = models.get("transformer_small", 3, **TEXT)
  teacher, _ = jax.eval_shape(model.init, jax.random.key(0), tokens())
  _, student, _ = network("transformer_tiny")
  names = {"embed", "position", "block_0", "block_1", "norm", "fc"}
  assert names == student.keys() and names < teacher.keys()


def test_dropout_needs_a_key_and_training():
  _, params, apply = network("transformer_tiny")

  def run(train, key):
    outputs, _ = apply(params, {}, tokens(), train=train, key=key)
    return np.asarray(outputs.logits)

  still = run(False, jax.random.key(1))
  np.testing.assert_array_equal(still, run(True, None))
  one, other = (run(True, jax.random.key(seed)) for seed in (1, 2))
  assert np.abs(one - still).max() > 1e-3 < np.abs(one - other).max()


def test_longer_texts_than_it_is_for():
  with pytest.raises(ValueError, match=r"texts of 8 tokens.*for 7"):
    answer("transformer_tiny", np.ones((1, 8), np.int32))


@pytest.mark.parametrize(
  ("name", "classes", "options", "message"),
  [
    ("cnn", 3, TEXT, r"cnn sees images.*one of .*lm_small, lm_tiny, transf"),
    ("transformer_tiny", 3, {}, "reads texts, not images"),
    ("lm_tiny", 3, TEXT, "next of 11 tokens, not one of 3 classes"),
  ],
)
def test_networks_for_other_data_are_refused(name, classes, options, message):
  with pytest.raises(UserError, match=message):
    models.load(name, classes, **options)


def test_own_networks_may_ask_for_the_vocabulary(monkeypatch):
  asked = {}

  def curious(classes, vocabulary):
    asked["curious"] = classes, vocabulary
    return models.get(
      "transformer_tiny", classes, vocabulary=vocabulary, length=7
    )

  def plain(classes):
    asked["plain"] = (classes,)
    return models.get("cnn", classes)

  own = {"m:curious": curious, "m:plain": plain}
  monkeypatch.setattr(models.imports, "import_function", lambda s, _: own[s])
  models.load("m:curious", 3, **TEXT)
  models.load("m:plain", 3, **TEXT)
  assert asked == {"curious": (3, VOCABULARY), "plain": (3,)}
