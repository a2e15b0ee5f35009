"""Runs a student on images, from its file alone."""

import json
import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from etils import epath

from ckd_jax import augment, models
from ckd_jax.errors import UserError
from ckd_jax.methods import Model
from ckd_jax.student.file import STUDENT, load

_BATCH = 512  # images in one pass; the last one is padded


class Student:
  """A trained student: called with uint8 images, it returns logits.

  Attributes:
    name: of the network, as in the config.
    classes: names of the classes, in the order of the logits.
    image_shape: (height, width, channels) of its training images.
    metadata: of its file: model, classes, mean, std, ...
    params: nested dicts of arrays.
    state: its batch statistics, nested dicts of arrays.
  """

  def __init__(
    self, model: Model, params, state, metadata: dict[str, Any]
  ) -> None:
    self.name = metadata["model"]
    self.classes = tuple(metadata["class_names"])
    self.image_shape = tuple(metadata["image_shape"])
    self.metadata = metadata
    self.params, self.state = params, state
    mean, std = metadata["mean"], metadata["std"]

    @jax.jit
    def forward(params, state, images):
      images = augment.normalise(images, mean, std)
      outputs, _ = model.apply(params, state, images, train=False)
      return outputs.logits.astype(np.float32)

    self._forward = forward

  def __call__(self, images) -> np.ndarray:
    """Computes logits; images are preprocessed as in training.

    Args:
      images: uint8[n, h, w, c], or one image [h, w, c]; grey images may omit
        the channel.

    Returns:
      float32[n, classes], or [classes] for one image.

    Raises:
      UserError: the images are of another type or size than in training.
    """
    images = np.asarray(images)
    if images.shape[-2:] == self.image_shape[:2] and self.image_shape[2] == 1:
      images = images[..., None]
    if images.dtype != np.uint8 or images.shape[-3:] != self.image_shape:
      raise UserError(
        f"images are {images.dtype} of shape {images.shape}: this student takes"
        f" uint8 [n, {', '.join(map(str, self.image_shape))}], pixels from 0 to"
        " 255"
      )
    batch = images.reshape(-1, *self.image_shape)
    parts = [
      self._part(batch[i : i + _BATCH]) for i in range(0, len(batch), _BATCH)
    ]
    logits = np.concatenate(
      [np.zeros((0, len(self.classes)), np.float32), *parts]
    )
    return logits.reshape(*images.shape[:-3], len(self.classes))

  def _part(self, images: np.ndarray) -> np.ndarray:
    count = len(images)
    size = min(_BATCH, 1 << (count - 1).bit_length())  # few shapes to compile
    padded = np.pad(images, [(0, size - count)] + [(0, 0)] * 3)
    return np.asarray(self._forward(self.params, self.state, padded))[:count]

  def __repr__(self) -> str:
    height, width, channels = self.image_shape
    return (
      f"Student({self.name!r}, {height} x {width} x {channels} images, "
      f"{len(self.classes)} classes)"
    )


def load_student(path: str | os.PathLike, network: Any = None) -> Student:
  """Loads the student of a finished run, or of an export.

  Neither the teacher nor the config is needed.

  Args:
    path: the folder, or its student.safetensors.
    network: the network that was trained, an object or
      `package.module:function`, if it was your own: a file may name only
      networks of the zoo, since loading it must run no other code.

  Raises:
    UserError: there is no student, its file is damaged, or its network is
      unknown.
  """
  named = {network} if isinstance(network, str) else ()
  given = None if isinstance(network, str) else network
  model, params, state, metadata = open_student(path, given, named=named)
  return Student(model, params, state, metadata)


def open_student(
  path: str | os.PathLike, network: Any = None, *, named: Iterable[str] = ()
) -> tuple[Model, dict, dict, dict[str, Any]]:
  """Like `load_student`, but returns (model, params, state, metadata).

  Args:
    path: the folder, or its student.safetensors.
    network: the network that was trained, if it was an object.
    named: the `package.module:function`s that may be imported, since the user
      named them elsewhere.
  """
  file = epath.Path(path)
  file = file / STUDENT if file.is_dir() else file
  params, state, texts = load(file)
  metadata = _metadata(file, texts)
  name, classes = metadata["model"], len(metadata["class_names"])
  if network is not None:
    model = models.as_model(network)
  elif name.startswith("given:"):
    raise UserError(
      f"{file} was trained as an object, a {name.removeprefix('given:')}: give "
      "the same one as network="
    )
  elif ":" in name and name not in named:
    raise UserError(
      f"{file} names the code {name!r}, and only you may: if you trust it, set "
      f"network={name!r}, or teacher.name={name} in a config"
    )
  else:
    model = models.load(name, classes)
  _check(file, model, params, state, metadata)
  return model, params, state, metadata


def _metadata(file, texts: dict[str, str]) -> dict[str, Any]:
  """The metadata of a file, as Python values."""
  try:
    classes = int(json.loads(texts["classes"]))
    names = json.loads(texts.get("class_names", "null")) or range(classes)
    facts = {
      "model": texts["model"].strip('"'),
      "class_names": [str(name) for name in names],
      "mean": tuple(map(float, json.loads(texts["mean"]))),
      "std": tuple(map(float, json.loads(texts["std"]))),
      "image_shape": tuple(map(int, json.loads(texts["image_shape"]))),
    }
    _, _, channels = facts["image_shape"]
    sizes = len(facts["mean"]), len(facts["std"]), len(names)
    if (
      sizes != (channels, channels, classes) or min(*facts["std"], classes) <= 0
    ):
      raise ValueError("they do not belong together")
  except (
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise UserError(
      f"{file} lacks its model, classes, image_shape, mean or std, or they make"
      " no sense: give the folder of a finished run"
    ) from error
  return {**texts, **facts}


def _check(file, model: Model, params, state, metadata) -> None:
  """Refuses tensors of another network."""
  shape = (1, *metadata["image_shape"])
  classes = len(metadata["class_names"])
  try:
    outputs, _ = jax.eval_shape(
      lambda images: model.apply(params, state, images, train=False),
      jax.ShapeDtypeStruct(shape, np.float32),
    )
    if outputs.logits.shape != (1, classes):
      raise ValueError(f"{outputs.logits.shape[-1]} classes, not {classes}")
  except (Exception, SystemExit) as error:  # one's own may raise anything
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    raise UserError(
      f"the tensors of {file} are not those of {metadata['model']} ({reason}):"
      " give the folder of a finished run"
    ) from error
