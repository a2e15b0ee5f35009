"""Texts as a network sees them: token ids, as they are stored."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.data.vocabulary import Vocabulary
from ckd_jax.errors import UserError


class TokenView(NamedTuple):
  """A `View` of int32[n, length], 0 for padding.

  Attributes:
    vocabulary: of the tokens.
    length: the longest text, in tokens.
    causal: whether texts are those of a language model, which begin with the
      separator.
  """

  vocabulary: Vocabulary
  length: int
  causal: bool = False

  @property
  def kind(self) -> str:
    return "texts"

  def __call__(self, key: jax.Array | None, tokens: jax.Array) -> jax.Array:
    del key  # texts are not varied
    return tokens

  def exactly(self, tokens: jax.Array) -> jax.Array:
    return tokens

  def renewed(self, shown: Any, source: "TokenView") -> Any:
    del source
    return shown

  def stored(self, rows: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, self.length), jnp.int32)

  def read(self, given) -> tuple[np.ndarray, tuple[int, ...]]:
    """Texts, or one; or their tokens, int[n, length].

    Texts that are longer than `length` are cut.
    """
    if isinstance(given, str):
      return self._encoded([given]), ()
    found = np.asarray(given)
    # A list without texts is of no type.
    if found.shape == (0,) or (found.dtype.kind in "UTO" and found.ndim == 1):
      if not all(isinstance(text, str) for text in found):
        raise UserError("a text is not a str: this student takes texts")
      return self._encoded(list(map(str, found))), found.shape
    if found.dtype.kind not in "iu" or found.shape[-1:] != (self.length,):
      raise UserError(
        f"texts are {found.dtype} of shape {found.shape}: this student takes a"
        f" list of str, or token ids int32[n, {self.length}]"
      )
    wrong = found[(found < 0) | (found >= self.vocabulary.size)]
    if wrong.size:
      raise UserError(
        f"a token id is {wrong[0]}: the ids of this vocabulary are 0 to"
        f" {self.vocabulary.size - 1}"
      )
    return found.reshape(-1, self.length).astype(np.int32), found.shape[:-1]

  def _encoded(self, texts: list[str]) -> np.ndarray:
    if self.causal:
      return self.vocabulary.encode_next(texts, self.length)[0]
    return self.vocabulary.encode(texts, self.length)[0]

  def mismatch(self, other: Any) -> str | None:
    if other.kind != self.kind:
      return f"reads texts, the data are {other.kind}"
    if other.vocabulary != self.vocabulary:
      return (
        f"has the vocabulary {self.vocabulary.digest[:8]}, the data have"
        f" {other.vocabulary.digest[:8]}"
      )
    if other.causal != self.causal:
      kinds = "classes of texts", "the next token"
      return f"tells {kinds[self.causal]}, the data {kinds[other.causal]}"
    if other.length > self.length:
      return f"reads {self.length} tokens, the texts have {other.length}"
    return None

  def facts(self) -> dict[str, str]:
    return {
      **self.vocabulary.facts(),
      "length": json.dumps(self.length),
      "causal": json.dumps(self.causal),
    }

  @classmethod
  def from_facts(cls, facts: dict[str, str]) -> "TokenView":
    """The inverse of `facts`.

    Raises:
      LookupError, TypeError, ValueError: an entry is missing or makes no sense.
      UserError: the package `tokenizers` is needed and not installed.
    """
    length, causal = (json.loads(facts[key]) for key in ("length", "causal"))
    whole = isinstance(length, int) and not isinstance(length, bool)
    if not (whole and length > 0 and isinstance(causal, bool)):
      raise ValueError("no length")
    return cls(Vocabulary.from_facts(facts), length, causal)

  def numbers(self) -> tuple:
    digest = bytes.fromhex(self.vocabulary.digest)
    return tuple(digest), self.length, int(self.causal)

  def options(self) -> dict[str, Any]:
    return {"vocabulary": self.vocabulary.size, "length": self.length}

  def __str__(self) -> str:
    return f"texts of at most {self.length} tokens"
