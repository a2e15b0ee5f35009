"""Runs a student on images or texts, from its file alone."""

import json
import math
import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from etils import epath

from ckd_jax import models
from ckd_jax.data import View, count, shown, take, view_of
from ckd_jax.errors import UserError
from ckd_jax.methods import Index, Model
from ckd_jax.student.file import STUDENT, load

_BATCH = 512  # rows in one pass; the last one is padded


class Student:
  """A trained student: called with images or texts, it returns logits.

  `embed` gives its embeddings instead.

  Attributes:
    name: of the network, as in the config.
    classes: names of the classes, in the order of the logits.
    view: what it is shown of images or texts.
    metadata: of its file: model, classes, ...
    params: nested dicts of arrays.
    state: its batch statistics, nested dicts of arrays.
  """

  def __init__(
    self, model: Model, params, state, metadata: dict[str, Any]
  ) -> None:
    self.name = metadata["model"]
    self.classes = tuple(metadata["class_names"])
    self.view: View = metadata["view"]
    self.metadata = metadata
    self.params, self.state = params, state
    view = self.view

    @jax.jit
    def forward(params, state, inputs):
      shown = view(None, inputs)
      outputs, _ = model.apply(params, state, shown, train=False)
      return {
        name: value.astype(np.float32)
        for name in ("logits", "embedding")
        if (value := getattr(outputs, name)) is not None
      }

    self._forward = forward

  @property
  def image_shape(self) -> tuple[int, ...]:
    """(height, width, channels) of its training images; () for texts."""
    return getattr(self.view, "shape", ())

  def __call__(self, given) -> np.ndarray:
    """Computes logits; images and texts are preprocessed as in training.

    Args:
      given: uint8[n, h, w, c], or one image [h, w, c]; grey images may omit the
        channel. Of a student of texts a list of them, or one.

    Returns:
      float32[n, classes], or [classes] for one; of a language model float32[n,
      length, vocabulary].

    Raises:
      UserError: it is of another type or size than in training.
    """
    return self._answer(given, "logits")

  def embed(self, given) -> np.ndarray:
    """Computes embeddings: of a retrieval set, the vectors of texts.

    The product of a query's and a document's vector, over the temperature, is
    the logit; a student that reads documents embeds both alike. Documents that
    it does not read are `state["documents"]`.

    Args:
      given: as for a call.

    Returns:
      float32[n, dim], or [dim] for one.

    Raises:
      UserError: it is of another type or size than in training, or the network
        has no embedding.
    """
    return self._answer(given, "embedding")

  def _answer(self, given, name: str) -> np.ndarray:
    """One output of the network about images or texts."""
    inputs, lead = self.view.read(given)
    outputs = jax.eval_shape(
      self._forward, self.params, self.state, self.view.stored(1)
    )
    if name not in outputs:
      raise UserError(f"student {self.name} has no {name}, only logits")
    rows = range(0, count(inputs), _BATCH)
    parts = [self._part(take(inputs, slice(i, i + _BATCH)))[name] for i in rows]
    shape = outputs[name].shape[1:]
    found = np.concatenate([np.zeros((0, *shape), np.float32), *parts])
    return found.reshape(*lead, *shape)

  def _part(self, inputs) -> dict[str, np.ndarray]:
    rows = count(inputs)
    size = min(_BATCH, 1 << (rows - 1).bit_length())  # few shapes to compile

    def pad(leaf):
      return np.pad(leaf, [(0, size - rows)] + [(0, 0)] * (leaf.ndim - 1))

    padded = jax.tree.map(pad, inputs)
    outputs = self._forward(self.params, self.state, padded)
    return {name: np.asarray(value)[:rows] for name, value in outputs.items()}

  def __repr__(self) -> str:
    return f"Student({self.name!r}, {self.view}, {len(self.classes)} classes)"


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
  index = metadata.get("index")
  if index is not None:
    index = index._replace(anchors=_documents(file, state))
    classes = index.anchors.shape[1]
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
    model = models.load(name, classes, **metadata["view"].options())
  if index is not None:
    model = models.tower(model, index)
  _check(file, model, params, state, metadata)
  return model, params, state, metadata


def _metadata(file, texts: dict[str, str]) -> dict[str, Any]:
  """The metadata of a file, as Python values."""
  try:
    classes = int(json.loads(texts["classes"]))
    names = json.loads(texts.get("class_names", "null")) or range(classes)
    facts: dict[str, Any] = {
      "model": texts["model"].strip('"'),
      "class_names": [str(name) for name in names],
      "view": view_of(texts),
    }
    if "temperature" in texts:
      facts["index"] = _index(texts)
    if len(names) != classes or classes < 1:
      raise ValueError("they do not belong together")
  except (
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise UserError(
      f"{file} lacks its model, its classes or what it is shown (image_shape,"
      " mean, std), or they make no sense: give the folder of a finished run"
    ) from error
  return {**texts, **facts}


def _index(texts: dict[str, str]) -> Index:
  """How a tower scores documents, yet without them; classifiers have none."""
  temperature, cosine = (
    json.loads(texts[x]) for x in ("temperature", "cosine")
  )
  if not isinstance(temperature, float) or not 0 < temperature < math.inf:
    raise ValueError("no temperature")
  if not isinstance(cosine, bool):
    raise TypeError("cosine is no bool")
  return Index(None, temperature, cosine)


def _documents(file, state: dict) -> np.ndarray:
  """The vectors that lie beside a tower's batch statistics."""
  documents = state.get("documents")
  if not isinstance(documents, np.ndarray) or documents.ndim != 2:
    raise UserError(
      f"{file} lacks its documents: give the folder of a finished run"
    )
  return documents


def _check(file, model: Model, params, state, metadata) -> None:
  """Refuses tensors of another network."""
  classes = len(metadata["class_names"])
  try:
    outputs, _ = jax.eval_shape(
      lambda *arrays: model.apply(*arrays, train=False),
      *(params, state, shown(metadata["view"])),
    )
    if outputs.logits.shape[-1] != classes:
      raise ValueError(f"{outputs.logits.shape[-1]} classes, not {classes}")
  except (Exception, SystemExit) as error:  # one's own may raise anything
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    raise UserError(
      f"the tensors of {file} are not those of {metadata['model']} ({reason}):"
      " give the folder of a finished run"
    ) from error
