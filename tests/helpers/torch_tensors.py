"""Tensors as PyTorch would name and lay them out."""

import numpy as np


def cnn() -> dict[str, np.ndarray]:
  """A state dict of `cnn`, for images of one channel and 7 classes."""
  rng = np.random.default_rng(0)
  tensors = {}
  for i, (inputs, width) in enumerate([(1, 16), (16, 32), (32, 32)], start=1):
    tensors[f"conv{i}.weight"] = rng.normal(size=(width, inputs, 3, 3))
    for leaf in ("weight", "bias", "running_mean", "running_var"):
      tensors[f"bn{i}.{leaf}"] = rng.uniform(0.5, 1.5, width)
    tensors[f"bn{i}.num_batches_tracked"] = np.array(3)
  tensors["fc.weight"] = rng.normal(size=(7, 32))
  tensors["fc.bias"] = rng.normal(size=7)
  return tensors
