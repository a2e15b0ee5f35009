"""AFD as a method: every map of the teacher finds its own in the student."""

import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._afd import afd, heads_of_maps
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._maps import first_of_group
from ckd_jax.methods._terms import Extra, Inputs, make_method


def make(
  *,
  weight: float = 200.0,
  dim: int = 128,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.9,
  ckd_weight: float = 0.0,
) -> Method:
  """AFD (arXiv 2102.02973), with the weights of its public code.

  Attention pairs the maps: networks may have any number of them, of any sizes.
  As published they are those after every residual block; ours are the outputs
  of stages, fewer to choose from.

  Args:
    weight: weight of `afd`.
    dim: width of the space in which maps are compared.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  at_least(1, dim=dim)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    maps = map(first_of_group, (inputs.student.maps, inputs.teacher.maps))
    value = afd(*maps, inputs.params["heads"])
    return {"afd": (weight, jnp.mean(value))}

  return make_method(terms, extra, needs=("maps",), init=heads_of_maps(dim))
