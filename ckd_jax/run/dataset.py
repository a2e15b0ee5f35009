"""The data set of a run: read, and spoiled where the config asks for that."""

from ckd_jax.data import (
  Dataset,
  Imbalance,
  LabelNoise,
  RetrievalOptions,
  TextOptions,
  load,
  spoil,
)
from ckd_jax.system import console, hosts


def load_dataset(config, given: Dataset | None = None) -> Dataset:
  """The data set that a config names.

  Its test split stays as it is; the budget is chosen from what is left of the
  training split.

  Args:
    config: a ConfigDict, checked.
    given: of a Python program, in place of the one that is named.

  Raises:
    UserError: there is no such set, or it cannot be spoiled like this.
  """
  dataset = given or _read(config.dataset)
  train = spoil(
    dataset.train,
    dataset.num_classes,
    Imbalance(**config.dataset.get("imbalance", {})),
    LabelNoise(**config.dataset.get("label_noise", {})),
  )
  if train is dataset.train:
    return dataset
  return dataset._replace(train=train, whole=dataset.train)


def _read(section) -> Dataset:
  text, index = section.get("text"), section.get("retrieval")
  dataset = load(
    section.name,
    path=section.path,
    image_size=section.get("image_size"),
    lazy=True if section.placement == "stream" else None,
    text=None if text is None else TextOptions(**text),
    index=None if index is None else RetrievalOptions(**index),
  )
  if hosts.first():
    for line in dataset.notes:
      console.note(line)
  return dataset
