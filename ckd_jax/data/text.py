"""A data set of texts: rows of a folder's files as tokens, and as questions."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ckd_jax.data.judges import Judge, accuracy, likelihood, matthews
from ckd_jax.data.split import Split, make_split, numerals, row_ids
from ckd_jax.data.text_files import Texts, find, read_file
from ckd_jax.data.text_windows import in_two, windows
from ckd_jax.data.token_view import TokenView
from ckd_jax.data.vocabulary import build
from ckd_jax.errors import UserError

_TESTS = ("test", "validation", "valid", "val", "dev")  # the first that exists
_ROWS = ("lines", "windows")
_JUDGES: dict[str, Judge] = {"accuracy": accuracy, "matthews": matthews}


class TextOptions(NamedTuple):
  """How texts become tokens: the block `dataset.text` of a config.

  Attributes:
    tokens: "words", "characters", or the path of a `tokenizers` file.
    vocabulary_size: the most words or characters.
    length: of the rows, in tokens; longer texts are cut.
    causal: whether the next token is learned, not a class.
    rows: of a language model: "lines" of a file, or "windows" of `length`
      tokens, into which the whole file is cut.
    judge: "accuracy" or "matthews", of classes.
    columns: names of the text, or of both of a pair; (): `text` and `text2`, or
      the text of a set of tensorflow-datasets that has one.
    label: name of the label.
  """

  tokens: str = "words"
  vocabulary_size: int = 8000
  length: int = 64
  causal: bool = False
  rows: str = "lines"
  judge: str = "accuracy"
  columns: tuple[str, ...] = ()
  label: str = "label"

  def wanted_label(self) -> str | None:
    """Name of the label; None of a language model."""
    return None if self.causal else self.label


class TextSet(NamedTuple):
  """A data set of texts, but for its name.

  Attributes:
    train: training split; its questions are the texts.
    test: test split.
    class_names: in the order of the labels; a language model has none.
    view: the vocabulary and the length.
    judge: measures answers.
    notes: what a user should know, one line each.
  """

  train: Split
  test: Split
  class_names: tuple[str, ...]
  view: TokenView
  judge: Judge
  notes: tuple[str, ...]


def read(path: str, options: TextOptions) -> TextSet:
  """Reads a folder.

  Args:
    path: of the folder; where it has no test.*, validation.*, valid.*, val.* or
      dev.* is the test set. Of windows also one file, whose last tenth is.
    options: how texts become tokens.

  Raises:
    UserError: a file is missing, ambiguous, damaged, or has rows that cannot be
      used; or an option is out of range.
  """
  _check(options)
  if options.rows == "windows" and not epath.Path(path).is_dir():
    whole = read_file(epath.Path(path), options.columns, None)
    return assemble(*in_two(whole), options)
  files = find(path)
  wanted = next((name for name in _TESTS if name in files), None)
  if "train" not in files or wanted is None:
    raise UserError(
      f"{path} has {', '.join(sorted(files)) or 'no texts'}: a set of texts is"
      " a folder with train.tsv (or .jsonl, also .xz or .gz) and test.tsv"
    )
  train, test = (
    read_file(files[name], options.columns, options.wanted_label())
    for name in ("train", wanted)
  )
  return assemble(train, test, options)


def read_texts(
  train: tuple[Any, Any],
  test: tuple[Any, Any] | None,
  options: TextOptions,
) -> TextSet:
  """Makes a data set of lists; ids are rows.

  Args:
    train: texts, n str, of a pair with a tab between; and n labels: integers,
      which are the columns of answers, or str, whose columns are sorted.
    test: texts and labels of the test split; None is an empty one.
    options: how texts become tokens.

  Raises:
    UserError: types or lengths are wrong, or do not match each other.
  """
  rows = _given("train", *train, options)
  tests = None if test is None else _given("test", *test, options)
  names = None
  if np.asarray(train[1]).dtype.kind in "iu":
    both = [*rows.labels, *(tests.labels if tests else ())]
    names = numerals(max(map(int, both)) + 1)
  return assemble(rows, tests, options, names)


def _given(name: str, texts, labels, options: TextOptions) -> Texts:
  texts, found = list(texts), np.asarray(labels)
  if not all(isinstance(text, str) for text in texts):
    raise UserError(f"a {name} text is no str: give a list of str, and labels")
  if options.causal:
    return Texts(texts, [""] * len(texts), f"{name} texts")
  if found.shape != (len(texts),) or found.dtype.kind not in "iuUT":
    raise UserError(
      f"{name} labels are {found.dtype} of shape {found.shape}: give one"
      f" integer or str for each of the {len(texts)} texts"
    )
  if found.dtype.kind == "i" and len(found) and found.min() < 0:
    raise UserError(f"a {name} label is {found.min()}: number them from 0")
  return Texts(texts, [str(label) for label in found], f"{name} texts")


def assemble(
  train: Texts,
  test: Texts | None,
  options: TextOptions,
  class_names: tuple[str, ...] | None = None,
  corpus: Iterable[str] = (),
) -> TextSet:
  """Makes a data set of rows in memory.

  Args:
    train: training rows, of which the vocabulary is made.
    test: test rows; None is an empty split.
    options: how texts become tokens.
    class_names: known ones; None: the labels of the training rows, sorted.
    corpus: further texts for the vocabulary.

  Raises:
    UserError: a text is empty, a test label is not in the training rows, or no
      answer of a language model's split fits into the length.
  """
  _check(options)
  if options.rows == "windows":
    train = windows(train, options.tokens, options.length)
    test = test and windows(test, options.tokens, options.length)
  for rows in filter(None, (train, test)):
    _check_texts(rows)
  texts = itertools.chain(train.texts, corpus)
  vocabulary = build(options.tokens, texts, options.vocabulary_size)
  view = TokenView(vocabulary, options.length, options.causal)
  names = () if options.causal else class_names or _names(train.labels)
  splits, notes = [], []
  empty = Texts([], [], "test")
  for name, rows in (("train", train), ("test", test or empty)):
    lost = ""
    if options.causal:
      encoded = vocabulary.encode_next(rows.texts, options.length)
      tokens, labels, cut = encoded
      lost = _lost(labels, rows.place, options.length)
    else:
      tokens, cut = vocabulary.encode(rows.texts, options.length)
      labels = _numbers(rows, names)
    ids = rows.ids or row_ids(name, len(rows.texts))
    splits.append(make_split(tokens, labels, ids, rows.texts))
    if cut and options.rows == "lines":
      notes.append(
        f"{cut:,} of {len(rows.texts):,} {name} texts are longer than"
        f" {options.length} tokens and are cut{lost} (dataset.text.length)"
      )
  judge = likelihood if options.causal else _JUDGES[options.judge]
  return TextSet(splits[0], splits[1], names, view, judge, tuple(notes))


def _lost(labels: np.ndarray, place: str, length: int) -> str:
  """Tells how many answers are cut off whole; refuses to lose all of them."""
  lost = int(np.sum((labels < 0).all(1)))
  if lost and lost == len(labels):
    raise UserError(
      f"{place}: no answer fits into dataset.text.length={length}: raise it,"
      " the prompts alone are as long"
    )
  return f", {lost:,} of them before their answer" if lost else ""


def _check(options: TextOptions) -> None:
  if options.length < 1:
    raise UserError(
      f"dataset.text.length is {options.length}: give tokens, say 64"
    )
  if options.rows not in (_ROWS if options.causal else _ROWS[:1]):
    raise UserError(
      f"dataset.text.rows is {options.rows!r}: it must be lines, or with"
      " dataset.text.causal=True windows"
    )
  if options.judge not in _JUDGES:
    raise UserError(
      f"dataset.text.judge is {options.judge!r}: choose {' or '.join(_JUDGES)}"
    )


def _check_texts(rows: Texts) -> None:
  """Refuses what a teacher cannot be asked."""
  if not rows.texts:
    raise UserError(f"{rows.place} has no rows")
  for number, text in enumerate(rows.texts):
    if not all(part.strip() for part in text.split("\t")):
      raise UserError(f"{rows.place}: row {number} has an empty text")
    check_characters(text, f"{rows.place}: row {number}")


def check_characters(text: str, place: str) -> None:
  """Refuses characters that cannot be written down.

  Args:
    text: that is read.
    place: of it, for the message.
  """
  if not text.isascii() and not _is_unicode(text):
    raise UserError(f"{place} is no Unicode text")
  if "\0" in text:
    raise UserError(f"{place} has a NUL character")


def _is_unicode(text: str) -> bool:
  """Whether it has no half of a pair of surrogates."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _names(labels: Sequence[str]) -> tuple[str, ...]:
  """Sorted; whole numbers by their size."""
  found = set(labels)
  if all(label.isdecimal() and label.isascii() for label in found):
    return tuple(sorted(found, key=lambda label: (int(label), label)))
  return tuple(sorted(found))


def _numbers(rows: Texts, names: tuple[str, ...]) -> np.ndarray:
  """The number of each label, int32[n]."""
  known = {name: number for number, name in enumerate(names)}
  for number, label in enumerate(rows.labels):
    if label not in known:
      raise UserError(
        f"{rows.place}: row {number} has the label {label!r}, the training rows"
        f" have {', '.join(map(repr, names[:10]))}"
        + (", ..." if len(names) > 10 else "")
      )
  return np.array([known[label] for label in rows.labels], np.int32)
