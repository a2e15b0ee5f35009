"""FitNets: predicts the teacher's middle map from the student's."""

import chex
import jax
import jax.numpy as jnp

from ckd_jax.methods import Method, Outputs
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._heads import regress, regressor
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant, float32


def hint(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the mean squared difference, per example.

  Args:
    student: [n, ...], the student's map after its regressor.
    teacher: the same shape, the teacher's map. No gradient.

  Returns:
    float32[n].

  References:
    Romero et al., arXiv 1412.6550, equation 3 (as a mean, without the 1/2).
  """
  (student,), (teacher,) = float32(student), constant(teacher)
  chex.assert_equal_shape((student, teacher))
  axes = tuple(range(1, student.ndim))
  return jnp.mean(jnp.square(student - teacher), axis=axes)


def make(
  *,
  weight: float = 100.0,
  index: int = 2,
  signed: bool = False,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """FitNets (arXiv 1412.6550) in one stage, with RepDistiller's regressor.

  A convolution, batch norm and a ReLU on the student's map number `index`, the
  stem being number 0, predict the teacher's map. With the ReLU they cannot
  reach the negative values that the maps of a wide ResNet hold; see `signed`.

  Args:
    weight: weight of the hint.
    index: number of the map, the stem being 0.
    signed: leaves out the ReLU; not in the published code.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, index=index)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def pick(outputs: Outputs) -> jax.Array:
    if index >= len(outputs.maps):
      raise ValueError(
        f"fitnet's index {index} is not among {len(outputs.maps)} maps, which "
        "are counted from 0: set hyper.index"
      )
    return outputs.maps[index]

  def init(key, task, student, teacher):
    del task
    shapes = pick(student).shape, pick(teacher).shape
    return {"regressor": regressor(key, *shapes)}, {}

  def terms(inputs: Inputs):
    ours, theirs = pick(inputs.student)[:, 0], pick(inputs.teacher)[:, 0]
    guess = regress(inputs.params["regressor"], ours, theirs.shape)
    guess = guess if signed else jax.nn.relu(guess)
    value = jnp.mean(hint(guess, theirs))
    return {"hint": (weight, value)}

  return make_method(terms, extra, needs=("maps",), init=init)
