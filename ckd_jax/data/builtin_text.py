"""Texts that need no files: first names, and sums, for language models."""

import lzma
import pathlib

import numpy as np

from ckd_jax.data.text_files import Texts

_NAMES = pathlib.Path(__file__).parent / "files" / "names.txt.xz"


def names() -> tuple[Texts, Texts]:
  """6,453 train and 921 test names of 2 to 15 letters; no name is in both.

  Every fourth of the different names in karpathy/makemore; the test names are
  spread over the list, which begins with the frequent ones.
  """
  with lzma.open(_NAMES, "rt", encoding="utf-8") as file:
    found = np.array(file.read().split())
  is_test = np.arange(len(found)) % 8 == 7
  return _texts("names", found[~is_test]), _texts("names", found[is_test])


def arithmetic() -> tuple[Texts, Texts]:
  """6,439 train and 1,661 test sums of two numbers of two digits, `34+57=91`.

  What stands before the tab is given, the sum is to be told. A sum and the one
  of the same numbers the other way round are in one split.
  """
  first, second = (part + 10 for part in np.divmod(np.arange(8100), 90))
  low, high = np.minimum(first, second), np.maximum(first, second)
  draw = np.random.default_rng(0).permutation(100 * 100)
  sums = np.array(
    [f"{a}+{b}=\t{a + b}" for a, b in zip(first, second, strict=True)]
  )
  is_test = draw[low * 100 + high] % 5 == 0
  return _texts("sums", sums[~is_test]), _texts("sums", sums[is_test])


def _texts(place: str, found: np.ndarray) -> Texts:
  return Texts([str(text) for text in found], [""] * len(found), place)


SOURCES = {"arithmetic": arithmetic, "names": names}
