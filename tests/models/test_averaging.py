"""The averaging network: a mean of words, padding, mixtures."""

import jax
import numpy as np

from ckd_jax import models
from ckd_jax.methods import Mixed

TOKENS = np.array([[3, 5, 3, 0], [2, 0, 0, 0], [0, 0, 0, 0]], np.int32)


def test_it_is_a_perceptron_of_the_mean_word():
  model = models.get("averaging", 3, vocabulary=7, length=4)
  params, state = model.init(jax.random.key(0), TOKENS)
  apply = jax.jit(model.apply, static_argnames="train")

  def run(tokens):
    return jax.device_get(apply(params, state, tokens, train=False)[0])

  found = run(TOKENS)
  words = np.float64(params["embed"]["embedding"])
  means = [(2 * words[3] + words[5]) / 3, words[2], 0 * words[0]]
  x = np.stack(means) @ np.float64(params["up"]["kernel"])
  x = x + np.float64(params["up"]["bias"])
  hidden = x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
  np.testing.assert_allclose(found.embedding, hidden, rtol=1e-4, atol=1e-6)
  logits = hidden @ np.float64(params["fc"]["weight"])
  logits = logits + np.float64(params["fc"]["bias"])
  np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-5)
  shorter = run(TOKENS[:, :3])
  np.testing.assert_allclose(shorter.logits, found.logits, rtol=1e-5, atol=1e-6)

  parts = np.stack([TOKENS, TOKENS[[1, 0, 2]]], axis=1)
  whole = run(Mixed(parts, np.tile(np.float32([1, 0]), (3, 1))))
  np.testing.assert_allclose(whole.logits, found.logits, rtol=1e-5, atol=1e-6)
  # Three positions count: of the first, words of both count by their shares.
  mixed = run(Mixed(parts, np.tile(np.float32([0.75, 0.25]), (3, 1))))
  mean = (0.75 * (2 * words[3] + words[5]) + 0.25 * words[2]) / 3
  x = mean @ np.float64(params["up"]["kernel"])
  hidden = x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
  np.testing.assert_allclose(mixed.embedding[0], hidden, rtol=1e-4, atol=1e-6)
