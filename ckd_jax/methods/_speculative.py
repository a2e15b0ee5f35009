"""Texts that a student writes, a teacher, or both by turns: one loop each.

Rows are written beside each other and end on their own. What a network would
write at a position of a row depends on the key, the row and the position alone,
so that a row does not depend on its neighbours.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax.methods import Ask, Network

PADDING, END = 0, 2  # as `ckd_jax.data` numbers them
STUDENT, TEACHER, FRESH = range(3)  # whose draw it is


class Pages(NamedTuple):
  """Texts under the pen.

  Attributes:
    tokens: int32[n, length + 1]; what stands from `ends` on has no meaning.
    ends: int32[n], how many tokens a row has.
    done: bool[n], whether it is finished.
    asked: int32, rows about which the teacher was asked.
  """

  tokens: jax.Array
  ends: jax.Array
  done: jax.Array
  asked: jax.Array


class Pen(NamedTuple):
  """How a network's next token is drawn.

  Attributes:
    key: random key of this step.
    temperature: of the draws, above 0.
    top_p: share of the probability to which a draw is restricted; 1 is all.
  """

  key: jax.Array
  temperature: float = 1.0
  top_p: float = 1.0

  def draw(self, logits: jax.Array, places: jax.Array, whose: int) -> jax.Array:
    """Draws tokens.

    Args:
      logits: float[n, vocabulary].
      places: int32[n], the position of the token in each row.
      whose: STUDENT, TEACHER or FRESH.

    Returns:
      int32[n]; never PADDING.
    """

    def one(row, place, logits):
      key = jax.random.fold_in(jax.random.fold_in(self.key, row), place)
      return jax.random.categorical(jax.random.fold_in(key, whose), logits)

    logits = possible(logits) / self.temperature
    if self.top_p < 1:
      logits = jnp.where(in_nucleus(logits, self.top_p), logits, -jnp.inf)
    rows = jnp.arange(len(places))
    return jax.vmap(one)(rows, places, logits).astype(jnp.int32)


def possible(logits: jax.Array) -> jax.Array:
  """float32[..., vocabulary], with padding ruled out."""
  logits = logits.astype(jnp.float32)
  is_padding = jnp.arange(logits.shape[-1]) == PADDING
  return jnp.where(is_padding, -jnp.inf, logits)


def in_nucleus(logits: jax.Array, share: float) -> jax.Array:
  """The fewest most probable tokens whose probability reaches `share`.

  Args:
    logits: float[..., vocabulary].
    share: above 0.

  Returns:
    bool[..., vocabulary]; the most probable one is always in it.
  """
  probs = jax.nn.softmax(logits)
  order = jnp.argsort(-probs, axis=-1)
  sorted_ = jnp.take_along_axis(probs, order, axis=-1)
  before = jnp.cumsum(sorted_, axis=-1) - sorted_
  rank = jnp.argsort(order, axis=-1)
  return jnp.take_along_axis(before < share, rank, axis=-1)


def in_top(logits: jax.Array, tokens: jax.Array, k: int) -> jax.Array:
  """Whether int32[...] are among the k largest of float[..., vocabulary]."""
  own = jnp.take_along_axis(logits, tokens[..., None], axis=-1)
  return jnp.sum(logits > own, axis=-1) < k


def write(pages: Pages, network: Network, pen: Pen, whose: int) -> Pages:
  """Lets one network write every row to its end.

  Args:
    pages: rows that begin with what is given.
    network: gives logits [n, length, vocabulary].
    pen: how its tokens are drawn.
    whose: STUDENT or TEACHER.
  """
  length = pages.tokens.shape[1] - 1

  def turn(pages: Pages) -> Pages:
    logits = network(pages.tokens[:, :length]).logits
    here = jnp.minimum(pages.ends, length)
    token = pen.draw(_at(logits, here - 1), here, whose)
    tokens = _put(pages.tokens, here, token, ~pages.done)
    ends = jnp.where(pages.done, pages.ends, here + 1)
    asked = jnp.sum(~pages.done) if whose == TEACHER else 0
    done = pages.done | (token == END) | (ends > length)
    return Pages(tokens, ends, done, pages.asked + asked)

  return jax.lax.while_loop(lambda pages: ~pages.done.all(), turn, pages)


Accepts = Callable[[jax.Array, jax.Array], jax.Array]


def speculate(
  pages: Pages,
  ask: Ask,
  pens: tuple[Pen, Pen],
  accepts: Accepts,
  *,
  draft: int,
  fresh_draw: bool = False,
) -> Pages:
  """Lets the student draft and the teacher correct, by turns, to the end.

  In a turn the student drafts tokens; one pass of the teacher tells how many of
  them, from the first on, it accepts; where it does not accept one, it writes
  that token itself.

  Args:
    pages: rows that begin with what is given.
    ask: both networks.
    pens: how the student's and the teacher's tokens are drawn.
    accepts: (teacher's logits [n, draft, vocabulary], tokens int32[n, draft])
      -> bool[n, draft].
    draft: tokens that the student drafts in a turn.
    fresh_draw: whether another draw of the student is judged than the one that
      is written, as in the public code.

  References:
    Xu et al., arXiv 2410.11325.
  """
  length = pages.tokens.shape[1] - 1
  of_student, of_teacher = pens

  def turn(pages: Pages) -> Pages:
    places = pages.ends[:, None] + jnp.arange(draft)[None]
    inside = jnp.minimum(places, length)

    def next_token(number, drafted):
      tokens, judged = drafted
      logits = ask.student(tokens[:, :length]).logits
      here = inside[:, number]
      logits = _at(logits, here - 1)
      token = of_student.draw(logits, here, STUDENT)
      tested = of_student.draw(logits, here, FRESH) if fresh_draw else token
      fits = ~pages.done & (places[:, number] <= length)
      return _put(tokens, here, token, fits), judged.at[:, number].set(tested)

    drafted = pages.tokens, jnp.zeros(places.shape, jnp.int32)
    tokens, judged = jax.lax.fori_loop(0, draft, next_token, drafted)

    logits = possible(ask.teacher(tokens[:, :length]).logits)
    written = jnp.take_along_axis(tokens, inside, axis=1)
    seen = jnp.take_along_axis(logits, (inside - 1)[..., None], axis=1)
    good = accepts(seen, judged) & (places <= length)
    # Nothing comes after an end.
    ended = jnp.cumsum(written == END, axis=1) - (written == END) > 0
    good = jnp.cumprod(good & ~ended, axis=1).astype(bool)
    count = jnp.sum(good, axis=1)
    over = jnp.any(good & (written == END), axis=1)

    here = pages.ends + count
    corrects = ~pages.done & ~over & (count < draft) & (here <= length)
    here = jnp.minimum(here, length)
    token = of_teacher.draw(_at(logits, here - 1), here, TEACHER)
    tokens = _put(tokens, here, token, corrects)
    ends = pages.ends + jnp.where(pages.done, 0, count + corrects)
    over = over | (corrects & (token == END)) | (ends > length)
    asked = pages.asked + jnp.sum(~pages.done)
    return Pages(tokens, ends, pages.done | over, asked)

  return jax.lax.while_loop(lambda pages: ~pages.done.all(), turn, pages)


def _at(logits: jax.Array, places: jax.Array) -> jax.Array:
  """The logits [n, vocabulary] at one position int32[n] of each row."""
  return jnp.take_along_axis(logits, places[:, None, None], axis=1)[:, 0]


def _put(tokens, places, values, fits) -> jax.Array:
  """Tokens [n, ...] with values [n] at one position of each row that fits."""
  rows = jnp.arange(len(tokens))
  return tokens.at[rows, places].set(
    jnp.where(fits, values, tokens[rows, places])
  )


def opened(tokens: jax.Array, labels: jax.Array) -> Pages:
  """Rows with what is given, from which texts are written.

  Args:
    tokens: int32[n, length].
    labels: int32[n, length], -1 where a token is given; a row of -1 alone stays
      as it is.
  """
  counted = labels >= 0
  given = jnp.argmax(counted, axis=1).astype(jnp.int32) + 1
  done = ~jnp.any(counted, axis=1)
  ends = jnp.where(done, jnp.sum(tokens != PADDING, axis=1), given)
  room = jnp.zeros((len(tokens), 1), tokens.dtype)
  pages = jnp.concatenate([tokens, room], axis=1)
  return Pages(pages, ends.astype(jnp.int32), done, jnp.int32(0))


def closed(pages: Pages, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """What was written as (tokens, labels), int32[n, length] each.

  Args:
    pages: that are done.
    labels: as in `opened`.
  """
  length = labels.shape[1]
  place = jnp.arange(length + 1)[None]
  is_end = (pages.tokens == END) & (place > 0)
  tokens = jnp.where((place < pages.ends[:, None]) & ~is_end, pages.tokens, 0)
  following = pages.tokens[:, 1:]
  first = jnp.argmax(labels >= 0, axis=1)[:, None]
  told = (place[:, 1:] < pages.ends[:, None]) & (place[:, :-1] >= first)
  told = told & jnp.any(labels >= 0, axis=1)[:, None]
  return tokens[:, :length], jnp.where(told, following, -1)
