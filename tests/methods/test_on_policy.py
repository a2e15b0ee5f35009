"""Texts that networks write by turns, and the objectives on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses, methods
from ckd_jax.data import vocabulary
from ckd_jax.methods import Ask, Batch, Outputs
from ckd_jax.methods import _speculative as texts

ROWS, LENGTH, WORDS = 6, 9, 7
PEN = texts.Pen(jax.random.key(5))


def network(seed, sharp=2.0):
  """Tells the next token by the last two."""
  draw = np.random.default_rng(seed)
  table = jnp.asarray(sharp * draw.normal(size=(WORDS, WORDS, WORDS)))

  def answer(tokens):
    before = jnp.pad(tokens, [(0, 0), (1, 0)])[:, :-1]
    return Outputs(table[before, tokens])

  return answer


ASK = Ask(network(0), network(1))


@pytest.fixture(scope="module")
def data():
  """Tokens and labels; a row's first tokens are given."""
  draw = np.random.default_rng(3)
  tokens = draw.integers(3, WORDS, (ROWS, LENGTH)).astype(np.int32)
  tokens[:, 0] = texts.END
  labels = np.full((ROWS, LENGTH), -1, np.int32)
  for row in range(ROWS - 1):  # the last one is given as a whole
    labels[row, row % 3 : 6] = 3
    tokens[row, 7:] = 0
  return jnp.asarray(tokens), jnp.asarray(labels)


@jax.jit
def by_student(tokens, labels):
  pages = texts.opened(tokens, labels)
  pages = texts.write(pages, ASK.student, PEN, texts.STUDENT)
  return *texts.closed(pages, labels), pages.asked


@jax.jit
def by_teacher(tokens, labels):
  pages = texts.opened(tokens, labels)
  pages = texts.write(pages, ASK.teacher, PEN, texts.TEACHER)
  return *texts.closed(pages, labels), pages.asked


def by_both(tokens, labels, k, draft=3, **options):
  def accepts(logits, tokens):
    return texts.in_top(logits, tokens, k)

  @jax.jit
  def run(tokens, labels):
    pages = texts.opened(tokens, labels)
    pages = texts.speculate(
      pages, ASK, (PEN, PEN), accepts, draft=draft, **options
    )
    return *texts.closed(pages, labels), pages.asked

  return run(tokens, labels)


def assert_same(found, wanted):
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("draft", [1, 3, 20])
def test_the_whole_vocabulary_is_the_students_text(data, draft):
  found = by_both(*data, WORDS, draft)
  assert_same(found[:2], by_student(*data)[:2])


@pytest.mark.parametrize("draft", [1, 3])
def test_accepting_nothing_is_the_teachers_text(data, draft):
  found = by_both(*data, 0, draft)
  wanted = by_teacher(*data)
  assert_same(found[:2], wanted[:2])
  assert found[2] == wanted[2]  # one token a turn: as many passes


def test_what_is_written_is_the_teachers_choice_or_among_its_first(data):
  tokens, labels = data
  written, told, asked = by_both(tokens, labels, 2)
  logits = texts.possible(ASK.teacher(written).logits)
  accepted = corrected = 0
  for row in range(ROWS):
    own = PEN.draw  # what the teacher would have drawn, by row and place
    rows = jnp.repeat(logits[row][None], ROWS, 0)
    for place in range(LENGTH):
      token = int(told[row, place])
      if token < 0:
        continue
      is_top = bool(jnp.sum(logits[row, place] > logits[row, place, token]) < 2)
      drawn = own(rows[:, place], jnp.full(ROWS, place + 1), texts.TEACHER)
      accepted += is_top
      corrected += not is_top
      assert is_top or int(drawn[row]) == token
  assert accepted and corrected and 0 < int(asked)


def test_turns_of_a_draft_are_fewer_than_tokens(data):
  alone, drafted = by_both(*data, 4, 1)[2], by_both(*data, 4, 4)[2]
  assert 0 < drafted < alone


def test_what_is_given_stays_and_nothing_else_counts(data):
  tokens, labels = data
  for written, told, _ in (by_student(*data), by_both(*data, 2)):
    given = np.argmax(labels >= 0, 1)
    for row in range(ROWS - 1):
      first = given[row]
      np.testing.assert_array_equal(
        written[row, : first + 1], tokens[row, : first + 1]
      )
      assert np.all(told[row, :first] == -1)
      count = int(np.sum(told[row] >= 0))
      ends = told[row, first : first + count]
      assert np.all(ends >= 0) and np.all(told[row, first + count :] == -1)
      # The next token stands where it is told, but for the end.
      np.testing.assert_array_equal(
        written[row, first + 1 : first + count],
        told[row, first : first + count - 1],
      )
      assert np.all(written[row, first + count :] == 0)
      assert first + count == LENGTH or ends[-1] == texts.END
      assert not np.any(np.asarray(ends[:-1]) == texts.END)
    np.testing.assert_array_equal(written[-1], tokens[-1])
    assert np.all(told[-1] == -1)


def test_a_row_does_not_depend_on_its_neighbours(data):
  tokens, labels = data
  whole = by_both(tokens, labels, 2)
  others = tokens.at[1:].set(tokens[1:] % 4 + 3), labels.at[1:].set(5)
  assert_same(
    [x[0] for x in by_both(*others, 2)[:2]], [x[0] for x in whole[:2]]
  )


def test_a_fresh_draw_is_judged_in_place_of_the_token(data):
  plain, fresh = by_both(*data, 2), by_both(*data, 2, fresh_draw=True)
  assert not np.array_equal(plain[1], fresh[1])
  # Among all, whichever is judged is accepted.
  assert_same(by_both(*data, WORDS, fresh_draw=True)[:2], by_student(*data)[:2])


def test_a_nucleus_holds_the_fewest_tokens():
  logits = jnp.log(jnp.asarray([0.5, 0.1, 0.3, 0.1]))
  for share, wanted in ((0.4, 1), (0.5, 1), (0.6, 2), (0.8, 2), (0.85, 3)):
    found = texts.in_nucleus(logits, share - 1e-4)
    assert int(found.sum()) == wanted and found[0]
  many = jax.vmap(
    lambda key: texts.Pen(key, 1.0, 0.55).draw(
      logits[None], jnp.zeros(1, jnp.int32), texts.STUDENT
    )[0]
  )(jax.random.split(jax.random.key(0), 200))
  assert set(np.asarray(many)) == {2}  # 0 is padding, and is never drawn
  assert (texts.PADDING, texts.END) == (
    vocabulary.PADDING,
    vocabulary.SEPARATOR,
  )


def composed(data, **hyper):
  tokens, labels = (x[:, None] for x in data)
  method = methods.make("on_policy", **hyper)
  batch = Batch(jnp.arange(ROWS)[:, None], tokens, labels)
  return method, jax.jit(lambda key, batch: method.compose(key, batch, ASK))(
    jax.random.key(0), batch
  )


@pytest.mark.parametrize("source", ["data", "student", "teacher", "skd"])
def test_one_switch_for_whose_text(data, source):
  _, batch = composed(data, source=source, top_k=2)
  same = np.array_equal(batch.inputs[:, 0], data[0])
  assert same == (source == "data")
  assert (int(batch.asked) > 0) == (source in ("teacher", "skd"))


def test_the_first_token_may_be_left_out(data):
  _, batch = composed(data, source="student")
  _, other = composed(data, source="student", train_first_token=False)
  first = np.argmax(data[1] >= 0, 1)
  changed = np.argwhere(batch.labels[:, 0] != other.labels[:, 0])
  assert changed.tolist() == [[row, first[row]] for row in range(ROWS - 1)]


def test_a_share_of_the_batches_is_written(data):
  tokens, labels = (x[:, None] for x in data)
  method = methods.make("on_policy", source="student", source_share=0.3)
  batch = Batch(jnp.arange(ROWS)[:, None], tokens, labels)
  one = jax.jit(lambda key: method.compose(key, batch, ASK).inputs)
  keys = jax.random.split(jax.random.key(1), 60)
  written = [not np.array_equal(one(key), tokens) for key in keys]
  assert 8 <= sum(written) <= 30


@pytest.mark.parametrize(
  ("hyper", "same"),
  [
    ({"objective": "kd"}, lambda s, t: losses.kd(s, t, temperature=1.0)),
    (
      {"objective": "jsd", "beta": 0.3},
      lambda s, t: losses.generalized_jsd(s, t, beta=0.3),
    ),
    ({"objective": "reverse_kl"}, losses.reverse_kl),
    ({"objective": "skew_kl"}, losses.skew_kl),
    (
      {"objective": "skew_reverse_kl", "skew": 0.2},
      lambda s, t: losses.skew_reverse_kl(s, t, skew=0.2),
    ),
  ],
)
def test_objectives_are_means_over_counted_positions(data, hyper, same):
  method, batch = composed(data, source="student", **hyper)
  student, teacher = (one(batch.inputs[:, 0]).logits[:, None] for one in ASK)
  batch = batch._replace(teachers=(Outputs(teacher),))

  def loss(student):
    state = {"asked": jnp.int32(3)}
    return method.loss({}, state, Outputs(student), batch, None, 0)

  (value, (state, _)), gradient = jax.value_and_grad(loss, has_aux=True)(
    student
  )
  keep = batch.labels >= 0
  np.testing.assert_allclose(
    value, jnp.mean(same(student, teacher)[keep]), rtol=1e-5
  )
  assert not np.asarray(gradient)[~np.asarray(keep)].any()
  assert state["asked"] == 3 + batch.asked
  equal = method.loss({}, state, Outputs(teacher), batch, None, 0)[0]
  np.testing.assert_allclose(equal, 0, atol=1e-6)


@pytest.mark.parametrize(
  ("hyper", "message"),
  [
    ({"source": "me"}, "source must be one of"),
    ({"objective": "mse"}, "objective must be one of"),
    ({"draft": 0}, "draft must be 1 or more"),
    ({"top_k": -1}, "top_k must be 0 or more"),
    ({"temperature": 0.0}, "temperature must be above 0"),
    ({"source_share": 1.5}, "source_share must be between 0 and 1"),
  ],
)
def test_ranges(hyper, message):
  with pytest.raises(ValueError, match=message):
    methods.make("on_policy", **hyper)


def test_equal_rows_are_written_apart():
  draw = jax.jit(lambda logits, places: PEN.draw(logits, places, texts.STUDENT))
  found = draw(jnp.zeros((40, WORDS)), jnp.full(40, 3))
  assert len(set(np.asarray(found))) > 3
  assert not np.array_equal(
    found, draw(jnp.zeros((40, WORDS)), jnp.full(40, 4))
  )
