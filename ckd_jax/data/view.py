"""What a network is shown of a data set's inputs."""

from typing import Any, Protocol

import jax


class View(Protocol):
  """The way from inputs as they are stored to what `Model.apply` takes.

  A NamedTuple of numbers: it is part of a program, and of a student's file.
  """

  @property
  def kind(self) -> str:
    """Of the inputs: "images" or "texts"."""
    ...

  def __call__(self, key: jax.Array | None, inputs: Any, /) -> Any:
    """Returns what a network is shown.

    Args:
      key: draws the variation that is trained on; None is evaluation.
      inputs: a tree of [n, ...], as stored.
    """
    ...

  def exactly(self, inputs: Any, /) -> Any:
    """Evaluation for a teacher whose answers are kept in a table.

    It rounds as it always did, so that equal teachers give equal answers.
    """
    ...

  def renewed(self, shown: Any, source: Any, /) -> Any:
    """What this view would have shown, of what the view `source` showed."""
    ...

  def stored(self, rows: int, /) -> Any:
    """The shapes of so many stored rows, a tree of jax.ShapeDtypeStruct."""
    ...

  def read(self, given: Any, /) -> tuple[Any, tuple[int, ...]]:
    """A user's own data as stored inputs.

    Args:
      given: uint8 images, or texts; several, or one.

    Returns:
      The inputs, a tree of [n, ...], and the shape in which they were given:
      (n,), or () for one.

    Raises:
      UserError: the student was trained on something else.
    """
    ...

  def mismatch(self, other: Any, /) -> str | None:
    """Why a network of this view cannot see inputs of another; None if it can.

    Args:
      other: the view of a data set.
    """
    ...

  def facts(self) -> dict[str, str]:
    """Entries of a student's file, from which the view is made again."""
    ...

  def numbers(self) -> Any:
    """A tree of numbers that decide what is shown, for a teacher's digest."""
    ...

  def options(self) -> dict[str, Any]:
    """What a network of the zoo must know beside the number of classes."""
    ...

  def __str__(self) -> str:
    """Describes an input, for messages: "32 x 32 x 3 images"."""
    ...


def shown(view: View, rows: int = 1) -> Any:
  """The shapes of what a network sees of so many rows."""
  return jax.eval_shape(lambda inputs: view(None, inputs), view.stored(rows))
