"""Running text as rows of one length, for language models."""

from ckd_jax.data.text_files import Texts
from ckd_jax.data.vocabulary import KINDS, build

_TRAIN = 0.9  # of a single file


def in_two(rows: Texts) -> tuple[Texts, Texts]:
  """Cuts a file: the first nine tenths of its characters, and the rest."""
  text = "\n".join(rows.texts)
  end = int(_TRAIN * len(text))
  return (
    Texts([text[:end]], [""], rows.place),
    Texts([text[end:]], [""], rows.place),
  )


def windows(rows: Texts, tokens: str, length: int) -> Texts:
  """Cuts lines, joined, into pieces of `length` tokens that do not overlap.

  Args:
    rows: the lines of a file.
    tokens: "words", "characters" or the path of a `tokenizers` file.
    length: of the pieces; the last one may be shorter.

  Returns:
    The pieces that are not blank; tabs, which part pairs, are spaces.
  """
  text = "\n".join(rows.texts).replace("\t", " ")
  if tokens in KINDS:
    items = text.split() if tokens == "words" else text
    joint = " " if tokens == "words" else ""
    pieces = [
      joint.join(items[start : start + length])
      for start in range(0, len(items), length)
    ]
  else:
    pieces = build(tokens, (), 0).pieces(text, length)
  pieces = [piece for piece in pieces if piece.strip()]
  return Texts(pieces, [""] * len(pieces), rows.place)
