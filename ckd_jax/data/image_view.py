"""Images as a network sees them: augmented, and normalised."""

import json
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import augment as augmentation
from ckd_jax.errors import UserError


class Augment(Protocol):
  """(key, uint8[n, h, w, c]) -> the same shape and type, drawn anew."""

  def __call__(self, key: jax.Array, images: jax.Array, /) -> jax.Array: ...


class ImageView(NamedTuple):
  """A `View` of uint8[n, h, w, c].

  Attributes:
    shape: (height, width, channels).
    mean: float per channel, mean of the images as pixel / 255.
    std: float per channel, their standard deviation as pixel / 255.
    augment: applied in training, before images are normalised.
  """

  shape: tuple[int, ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  augment: Augment = augmentation.make("none", 0)

  @classmethod
  def plain(cls, images) -> "ImageView":
    """Pixels from 0 to 1 of uint8[n, h, w, c], neither moved nor scaled."""
    shape = tuple(images.shape[1:])
    return cls(shape, (0.0,) * shape[-1], (1.0,) * shape[-1])

  @property
  def kind(self) -> str:
    return "images"

  def __call__(self, key: jax.Array | None, images: jax.Array) -> jax.Array:
    if key is not None:
      images = self.augment(key, images)
    return augmentation.normalise(images, self.mean, self.std)

  def exactly(self, images: jax.Array) -> jax.Array:
    """As `normalise`, rounded as in tables that were made before it."""
    mean, std = (
      jnp.float32(x).reshape(1, 1, 1, -1) for x in (self.mean, self.std)
    )
    return (images.astype(jnp.float32) / 255 - mean) / std

  def renewed(self, shown: jax.Array, source: "ImageView") -> jax.Array:
    pair = (source.mean, source.std), (self.mean, self.std)
    return augmentation.renormalise(shown, *pair)

  def stored(self, rows: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *self.shape), jnp.uint8)

  def read(self, given) -> tuple[np.ndarray, tuple[int, ...]]:
    images = np.asarray(given)
    if images.shape[-2:] == self.shape[:2] and self.shape[2] == 1:
      images = images[..., None]
    if images.dtype != np.uint8 or images.shape[-3:] != self.shape:
      raise UserError(
        f"images are {images.dtype} of shape {images.shape}: this student takes"
        f" uint8 [n, {', '.join(map(str, self.shape))}], pixels from 0 to 255"
      )
    return images.reshape(-1, *self.shape), images.shape[:-3]

  def mismatch(self, other: Any) -> str | None:
    if other.kind != self.kind:
      return f"sees images, the data are {other.kind}"
    channels, found = len(self.mean), other.shape[-1]
    if channels != found:
      return f"sees {channels} channels, the images have {found}"
    return None

  def facts(self) -> dict[str, str]:
    return {
      "mean": json.dumps(list(self.mean)),
      "std": json.dumps(list(self.std)),
      "image_shape": json.dumps(list(self.shape)),
    }

  @classmethod
  def from_facts(cls, facts: dict[str, str]) -> "ImageView":
    """The inverse of `facts`.

    Raises:
      LookupError, TypeError, ValueError: an entry is missing or makes no sense.
    """
    mean, std = (
      tuple(map(float, json.loads(facts[key]))) for key in ("mean", "std")
    )
    shape = tuple(map(int, json.loads(facts["image_shape"])))
    _, _, channels = shape
    if (len(mean), len(std)) != (channels, channels) or min(std) <= 0:
      raise ValueError("they do not belong together")
    return cls(shape, mean, std)

  def numbers(self) -> tuple:
    return self.mean, self.std

  def options(self) -> dict[str, Any]:
    return {}

  def __str__(self) -> str:
    return f"{' x '.join(map(str, self.shape))} images"
