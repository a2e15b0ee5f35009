"""Sets of texts prepared by tensorflow-datasets, read without TensorFlow."""

from typing import Any

from ckd_jax.data import prepared
from ckd_jax.data.text import TextOptions, TextSet, assemble
from ckd_jax.data.text_files import Texts, joined
from ckd_jax.errors import UserError


def read(
  name: str,
  path: str | None,
  options: TextOptions,
  other_names: list[str],
) -> TextSet:
  """Reads a prepared set of texts and classes, or of texts alone.

  Rows are in the order of the numbers in `id` or `idx`, where the set has them.

  Args:
    name: `name[/config][:version]`.
    path: data_dir of tensorflow-datasets; None is TFDS_DATA_DIR or its default.
    options: how texts become tokens; its columns and label are features.
    other_names: names of other data sets, to suggest.

  Raises:
    UserError: the set is unknown, not prepared, damaged or not of texts.
  """
  builder = prepared.opened(name, path, other_names)
  features, label = builder.info.features, options.wanted_label()
  columns = _columns(name, features, options)
  with prepared.one_line(name, builder, path):
    names = tuple(features[label].names) if label else None
    tested = prepared.test_split(name, builder, label)
    train, test = (
      _texts(name, builder, split, (columns, label))
      for split in ("train", tested)
    )
  return assemble(train, test, options, names)


def _columns(name: str, features, options: TextOptions) -> tuple[str, ...]:
  """The features that are the text; and checks the label."""
  kinds = prepared.library().features
  texts = [key for key in features if isinstance(features[key], kinds.Text)]
  label = options.wanted_label()
  if label and not (
    label in features and isinstance(features[label], kinds.ClassLabel)
  ):
    raise UserError(
      f"dataset {name} has no class {label!r}, only"
      f" {', '.join(sorted(features))}: name one as dataset.text.label"
    )
  columns = options.columns or tuple(key for key in texts if key != "id")
  unclear = not options.columns and len(columns) != 1
  if unclear or not set(columns) <= set(texts):
    raise UserError(
      f"dataset {name} has the texts {', '.join(sorted(texts)) or 'none'}: name"
      " one, or both of a pair, as dataset.text.columns"
    )
  return columns


def _texts(name: str, builder, split: str, wanted: tuple) -> Texts:
  columns, label = wanted
  known = builder.info.features[label].names if label else ()
  examples = list(prepared.batched(prepared.source(builder, split)))
  ids, order = prepared.canonical(
    split, [_id(split, row, example) for row, example in enumerate(examples)]
  )
  texts, labels = [], []
  for example in (examples[row] for row in order):
    texts.append(joined([_decoded(example[key]) for key in columns]))
    # A hidden label is -1: no class.
    shown = label and example[label] >= 0
    labels.append(str(known[example[label]]) if shown else "")
  return Texts(texts, labels, f"dataset {name}, {split}", ids.tolist())


def _id(split: str, row: int, example: dict[str, Any]) -> str:
  if "id" in example:
    return _decoded(example["id"])
  return f"{split}_{example.get('idx', row)}"


def _decoded(value: Any) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)
