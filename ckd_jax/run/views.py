"""What student and teacher are shown of the inputs, as a config says it."""

import numpy as np

from ckd_jax import augment
from ckd_jax.data import Dataset, ImageView, View
from ckd_jax.errors import UserError
from ckd_jax.system import console, hosts


def student_view(config, dataset: Dataset) -> View:
  """What the student is shown: images as the config augments them.

  Args:
    config: a ConfigDict; its keys of images are read for images alone.
    dataset: the set that it names.

  Raises:
    UserError: mean and deviation do not fit the channels.
  """
  view = dataset.shown()
  if not isinstance(view, ImageView):
    return view
  _check_channels(config, dataset)
  # A live teacher sees the student's images.
  fresh = config.teacher.get("live") or config.student_view == "fresh"
  return view._replace(
    mean=tuple(config.dataset.mean),
    std=tuple(config.dataset.std),
    augment=augment.make(
      config.augment if fresh else "none", config.augment_padding
    ),
  )


def _check_channels(config, dataset: Dataset) -> None:
  """Refuses a normalisation that does not fit the images' channels."""
  channels = dataset.train.inputs.shape[-1]
  owners = ["dataset"]
  sources = config.teacher.get("sources") or [config.teacher.source]
  if {source.partition(":")[0] for source in sources} & {"torch", "train"}:
    owners.append("teacher")
  for owner in owners:
    for key in ("mean", "std"):
      found = len(config[owner][key])
      if found != channels:
        raise UserError(
          f"{owner}.{key} has {found} numbers, the images of {dataset.name} "
          f"have {channels} channels"
        )
  if dataset.name in ("folder", "npz") and hosts.first():
    _note_normalisation(config, dataset)


def _note_normalisation(config, dataset: Dataset) -> None:
  """Warns if mean and deviation are not those of the user's images."""
  some = np.asarray(dataset.train.inputs[:1000], np.float32) / 255
  mean, std = some.mean((0, 1, 2)), some.std((0, 1, 2))
  off = np.abs(mean - config.dataset.mean) > 0.1
  stretched = np.abs(std / config.dataset.std - 1) > 0.5
  if (off | stretched).any():
    measured = [tuple(round(float(x), 3) for x in y) for y in (mean, std)]
    console.note(
      f"dataset.mean {tuple(config.dataset.mean)} and dataset.std "
      f"{tuple(config.dataset.std)} are not those of these images: about "
      f"{measured[0]} and {measured[1]}"
    )
