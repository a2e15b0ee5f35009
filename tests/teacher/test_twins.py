"""The same question asked twice: another answer is told, with the ids."""

import numpy as np

from ckd_jax import teacher
from tests.helpers.asking import Counting, answers, build


def twice(split):
  """Images 3 and 7 are equal, and so are 1 and 9."""
  images = split.inputs.copy()
  images[7], images[9] = images[3], images[1]
  return split._replace(inputs=images)


def unsteady(images):
  """Another answer each time."""
  draw = np.random.default_rng(len(seen))
  seen.append(1)
  return answers(images) + draw.normal(size=(len(images), 4)) * 20


seen: list[int] = []


def told(capsys) -> list[str]:
  lines = capsys.readouterr().err.splitlines()
  return [line for line in lines if "answer" in line and "question" in line]


def test_another_answer_to_the_same_question_is_told(tmp_path, split, capsys):
  asked = teacher.from_function(unsteady, "box")
  build(asked, twice(split), range(10), tmp_path / "t")
  error = capsys.readouterr().err
  assert "two ways: train_3 and train_7 are equal, and their" in error
  assert "differently 2 of 2 questions" in error


def test_the_same_answer_is_not(tmp_path, split, capsys):
  box = Counting()
  asked = teacher.from_function(box, "box", concurrency=4)
  build(asked, twice(split), range(10), tmp_path / "t")
  assert told(capsys) == [] and box.calls == 10
  # Nor by the rounding of a table.
  build(asked, twice(split), range(20), tmp_path / "t")
  assert told(capsys) == [] and box.calls == 20


def test_an_appended_table_is_compared_with_what_it_held(
  tmp_path, split, capsys
):
  """The teacher changed between two runs that share the table."""
  asked = teacher.from_function(answers, "box")
  build(asked, twice(split), range(5), tmp_path / "t")
  other = teacher.from_function(lambda images: -answers(images), "box")
  build(other, twice(split), range(10), tmp_path / "t")
  (line,) = [x for x in told(capsys) if "two ways" in x]
  assert "train_1 and train_9" in line or "train_3 and train_7" in line


def test_what_a_journal_holds_is_compared(tmp_path, split, capsys):
  """After a kill in the middle of a part."""

  def dies(images):
    if box.requests > 4:
      raise KeyboardInterrupt
    return answers(images)

  box = Counting(dies)
  asked = teacher.from_function(box, "box")
  try:
    build(asked, twice(split), range(10), tmp_path / "t", part_size=40)
  except KeyboardInterrupt:
    pass
  other = teacher.from_function(lambda images: -answers(images), "box")
  build(other, twice(split), range(10), tmp_path / "t", part_size=40)
  assert any("two ways" in line for line in told(capsys))


def test_classes_that_are_ruled_out_are_compared(tmp_path, split, capsys):
  def ruled_out(images):
    values = answers(images)
    values[:, 0] = -np.inf
    return values

  asked = teacher.from_function(ruled_out, "box")
  build(asked, twice(split), range(10), tmp_path / "t")
  assert told(capsys) == []


def test_a_function_may_change_what_it_is_given(tmp_path, split, capsys):
  def change(images):
    given = answers(images)
    images[:] = 0
    return given

  asked = teacher.from_function(change, "box")
  build(asked, split, range(10), tmp_path / "t")
  assert not told(capsys)
