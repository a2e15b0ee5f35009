"""Dataset name -> inputs, labels and ids that never change, in NumPy.

Rows are in canonical order, which depends on the data alone: the number in a
tensorflow-datasets id (train_16399 is row 16399 of CIFAR-100 as published; the
prepared files are shuffled), the row of an .npz, the sorted paths of a folder.
A table of answers without ids is matched to images by this order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ckd_jax.data import (
  builtin,
  builtin_text,
  corruption,
  folder,
  npz,
  prepared,
  prepared_text,
  retrieval,
)
from ckd_jax.data import text as texts
from ckd_jax.data.arrays import read_arrays
from ckd_jax.data.budget import Selection, select
from ckd_jax.data.image_view import ImageView
from ckd_jax.data.inputs import count, shapes, size, subset, take
from ckd_jax.data.judges import Judge, accuracy
from ckd_jax.data.lazy import Lazy, memory
from ckd_jax.data.members import Member, read_header, read_members
from ckd_jax.data.retrieval import RetrievalOptions, Vectors
from ckd_jax.data.split import Parts, Split, make_split, numerals
from ckd_jax.data.spoiled import Imbalance, LabelNoise, spoil
from ckd_jax.data.text import TextOptions, read_texts
from ckd_jax.data.token_view import TokenView
from ckd_jax.data.view import View, shown
from ckd_jax.errors import UserError
from ckd_jax.methods import Index

__all__ = [
  "BUILTIN",
  "Dataset",
  "ImageView",
  "Imbalance",
  "Judge",
  "LabelNoise",
  "Lazy",
  "Member",
  "RetrievalOptions",
  "Selection",
  "Split",
  "TextOptions",
  "TokenView",
  "Vectors",
  "View",
  "accuracy",
  "corruption",
  "count",
  "load",
  "make_split",
  "memory",
  "read_arrays",
  "read_header",
  "read_members",
  "read_texts",
  "select",
  "shapes",
  "shown",
  "size",
  "spoil",
  "subset",
  "take",
  "view_of",
]


class Dataset(NamedTuple):
  """What to learn from, and what to test on.

  Attributes:
    name: of the data set, for messages and tables.
    train: training split.
    test: test split, perhaps without rows.
    class_names: in the order of the labels.
    view: what a network is shown of the inputs; None: images as they are.
    judge: measures answers about a split.
    notes: what a user should know of the data, one line each.
    index: where classes are documents, their vectors; then an answer is a
      vector, too, or scores of documents. None: answers are logits.
    vectors: answers that came with the data.
    documents: the rows of the index, where the student reads them, too.
    whole: the training split before it was spoiled; None where it was not.
  """

  name: str
  train: Split
  test: Split
  class_names: tuple[str, ...]
  view: View | None = None
  judge: Judge = accuracy
  notes: tuple[str, ...] = ()
  index: Index | None = None
  vectors: Vectors | None = None
  documents: Split | None = None
  whole: Split | None = None

  @property
  def anchors(self) -> np.ndarray | None:
    """float32[classes, dim], the documents of a retrieval set."""
    return None if self.index is None else self.index.anchors

  @property
  def answer_width(self) -> int:
    """Length of a teacher's answer."""
    return len(self.answer_names)

  @property
  def num_classes(self) -> int:
    """Length of the logits; of a language model, the vocabulary."""
    return len(self.class_names) or self.shown().options()["vocabulary"]

  @property
  def network_width(self) -> int:
    """Length of what a network gives: of a vector, where vectors score."""
    if self.index is not None:
      return self.index.anchors.shape[1]
    return self.answer_width

  @property
  def answer_names(self) -> tuple[str, ...]:
    """What each number of an answer is about.

    A class, a token of the vocabulary, or the dimension of a vector.
    """
    view = self.view
    if self.index is not None and not self.index.pairs:
      return numerals(self.network_width)
    if not self.class_names and isinstance(view, TokenView):
      return view.vocabulary.names()
    return self.class_names

  def shown(self) -> View:
    """What a network is shown, before a config says more of images."""
    return self.view or ImageView.plain(self.train.inputs)


def load(
  name: str,
  *,
  path: str | None = None,
  image_size: int | None = None,
  lazy: bool | None = None,
  text: TextOptions | None = None,
  index: RetrievalOptions | None = None,
) -> Dataset:
  """Reads a data set.

  Args:
    name: `digits` (scikit-learn's real 8x8 digits), `fake` (noise around one
      pattern per class, for debugging), or for language models `names` and
      `arithmetic`, which need no files; `npz`; `folder`; `text`; otherwise
      a name of tensorflow-datasets, `name[/config][:version]`. Where a set has
      no labelled test split, its validation split is the test set.
    path: FILE.npz (x_train, y_train, x_test, y_test and perhaps class_names);
      DIR with train/CLASS/*.png and test/CLASS/*.png (or .jpg, .jpeg); or the
      data_dir of tensorflow-datasets (default: TFDS_DATA_DIR, or its own).
    image_size: height and width in pixels to which images of another size are
      resized (bilinear), once, when they are decoded.
    lazy: whether images of a folder or of tensorflow-datasets stay in their
      files and are decoded on access; None: if a set of tensorflow-datasets
      would take more than a quarter of this machine's memory.
    text: how texts become tokens; then name is `text`, a folder with train.tsv
      and test.tsv (or .jsonl), or of a set of tensorflow-datasets of texts; or
      `retrieval`, a folder with documents.jsonl, queries.jsonl and qrels.tsv.
    index: the documents' vectors, for `retrieval`.

  Returns:
    A `Dataset`. Greyscale images keep their one channel.

  Raises:
    UserError: the set is unknown, not prepared, damaged or not usable.
  """
  if index is not None or name == _RETRIEVAL:
    return _load_retrieval(name, path, text, index)
  if text is not None or name in (_TEXT, *builtin_text.SOURCES):
    return _load_texts(name, path, text)
  if image_size is not None and image_size < 1:
    raise UserError(f"dataset.image_size is {image_size}: give pixels, say 32")
  if name in builtin.SOURCES:
    if path is not None:
      raise UserError(
        f"dataset {name} reads no files, but dataset.path is {str(path)!r}: "
        "leave it out, or name what lies there (npz, folder, or a name of "
        "tensorflow-datasets)"
      )
    parts = builtin.SOURCES[name](image_size)
  elif name in _FILES:
    read, wanted = _FILES[name]
    if not path:
      raise UserError(f"dataset {name} needs dataset.path: {wanted}")
    parts = read(path, image_size, lazy)
  else:
    ours = [*builtin.SOURCES, *_FILES]
    parts = prepared.read(name, path, image_size, lazy, other_names=ours)
  return _checked(Dataset(name, *parts), path)


_FILES: dict[str, tuple[Callable[..., Parts], str]] = {
  "npz": (npz.read, "a file with x_train, y_train, x_test and y_test"),
  "folder": (folder.read, "a folder with train/CLASS/*.png and test/CLASS"),
}

_TEXT, _RETRIEVAL = "text", "retrieval"
BUILTIN = (
  *builtin.SOURCES,
  *builtin_text.SOURCES,
  *_FILES,
  _TEXT,
  _RETRIEVAL,
)  # without tensorflow-datasets


def _load_texts(
  name: str, path: str | None, options: TextOptions | None
) -> Dataset:
  """A set of texts, of files or of tensorflow-datasets."""
  if options is None:
    raise UserError(
      f"dataset {name} needs a section dataset.text: begin with configs/"
      f"{'sst2' if name == _TEXT else name}.py"
    )
  if name in (*builtin.SOURCES, *_FILES):
    raise UserError(
      f"dataset {name} holds images: leave dataset.text out, or name a set of"
      " texts"
    )
  if name in builtin_text.SOURCES:
    if path or not options.causal:
      raise UserError(
        f"dataset {name} reads no files and is for language models: leave"
        " dataset.path out and set dataset.text.causal=True, or name the set"
        " text"
      )
    found = texts.assemble(*builtin_text.SOURCES[name](), options)
  elif name == _TEXT:
    if not path:
      wanted = "a folder with train.tsv and test.tsv"
      if options.rows == "windows":
        wanted = "a .txt, or a folder with train.txt and test.txt"
      raise UserError(f"dataset text needs dataset.path: {wanted}")
    found = texts.read(path, options)
  else:
    ours = [_TEXT, *builtin_text.SOURCES]
    found = prepared_text.read(name, path, options, ours)
  return _checked_names(Dataset(name, *found), path)


def _load_retrieval(
  name: str,
  path: str | None,
  text: TextOptions | None,
  index: RetrievalOptions | None,
) -> Dataset:
  """Documents, titles and judged queries."""
  if text is None or index is None or name != _RETRIEVAL or not path:
    raise UserError(
      f"dataset {name}: a retrieval set has dataset.name=retrieval, its folder"
      " as dataset.path, and sections dataset.text and dataset.retrieval: begin"
      " with configs/cranfield.py"
    )
  found = retrieval.read(path, text, index)
  how = index.temperature, index.cosine, index.sampled
  return Dataset(
    name,
    *found.texts,
    index=Index(found.anchors, *how, pairs=index.answers == "scores"),
    vectors=found.vectors,
    documents=found.documents,
  )


def _checked(dataset: Dataset, path: str | None) -> Dataset:
  """Raises UserError where splits and class names do not fit together."""
  name, train, test, class_names = dataset[:4]
  where = f"dataset {name}" + (f" in {path}" if path else "")
  sides = ["x".join(map(str, part.inputs.shape[1:])) for part in (train, test)]
  if sides[0] != sides[1]:
    raise UserError(
      f"{where}: train images are {sides[0]} and test images {sides[1]}: "
      "they must agree (dataset.image_size makes heights and widths agree)"
    )
  _checked_names(dataset, path)
  for split, labels in (("train", train.labels), ("test", test.labels)):
    wrong = labels[(labels < 0) | (labels >= len(class_names))]
    if wrong.size:
      raise UserError(
        f"{where}: a {split} label is {wrong[0]}, but the classes of the train "
        f"split are 0 to {len(class_names) - 1}"
      )
  return dataset


def _checked_names(dataset: Dataset, path: str | None) -> Dataset:
  if len(set(dataset.class_names)) < len(dataset.class_names):
    where = f"dataset {dataset.name}" + (f" in {path}" if path else "")
    raise UserError(f"{where}: two classes have the same name")
  return dataset


def view_of(facts: dict[str, str]) -> View:
  """The view of a trained student.

  Args:
    facts: the metadata of its file.

  Raises:
    LookupError, TypeError, ValueError: an entry is missing or makes no sense.
  """
  kind = TokenView if "tokens" in facts else ImageView
  return kind.from_facts(facts)
