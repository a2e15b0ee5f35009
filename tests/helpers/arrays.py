"""Random arrays, and the functions of logits in float64 to compare with."""

import numpy as np


def draw(*shape, seed=0, scale=1.0) -> np.ndarray:
  """Draws float32 of a normal distribution with standard deviation `scale`."""
  return (scale * np.random.default_rng(seed).normal(size=shape)).astype("f4")


def log_softmax(x) -> np.ndarray:
  """float64, over the last axis."""
  x = np.asarray(x, np.float64)
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def softmax(x) -> np.ndarray:
  """float64, over the last axis."""
  return np.exp(log_softmax(x))


def unit(x) -> np.ndarray:
  """Rows of length 1, float64."""
  x = np.asarray(x, np.float64)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)
