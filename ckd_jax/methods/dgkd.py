"""Densely guided KD: a teacher and all of its assistants at once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.methods import Expert, Method, Outputs
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import mean_counted


def _ask_all(
  experts: Sequence[Expert], labels: np.ndarray
) -> tuple[Outputs, ...]:
  """Every expert about every row; the teacher, the largest, comes first."""
  return tuple(expert(np.arange(len(labels))) for expert in experts[::-1])


def make(
  *,
  guidance_weight: float = 1.0,
  temperature: float = 5.0,
  drop_num: int = 1,
  cross_entropy_weight: float = 0.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """DGKD (arXiv 2009.08825): KD from a teacher and its assistants, summed.

  The teachers are those of teacher.sources, every one asked about every row. In
  each step the terms of some of them, drawn at random, are dropped. The public
  code divides its KL by the number of classes, too, and so has terms that much
  weaker; its weights are 1 - l of the labels and l of the guidance, l = 1.

  Its predecessor TAKD (arXiv 1902.03393) is a chain of runs of `kd`: each
  student is the next one's teacher, by teacher.source=checkpoint.

  Args:
    guidance_weight: weight of the sum of KD terms.
    temperature: softening temperature of these terms, above 0.
    drop_num: terms that a step drops; one always stays.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4, of the largest.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs, with
      the largest teacher.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, guidance_weight=guidance_weight, drop_num=drop_num)
  above(0, temperature=temperature)

  def terms(inputs: Inputs):
    teachers, labels = inputs.batch.teachers, inputs.batch.labels
    each = [
      kd(inputs.student.logits, teacher.logits, temperature=temperature)
      for teacher in teachers
    ]
    values = jnp.stack([mean_counted(value, labels) for value in each])
    places = jax.random.permutation(inputs.key, len(teachers))
    is_kept = places >= min(drop_num, len(teachers) - 1)
    guidance = jnp.sum(jnp.where(is_kept, values, 0.0))
    return {"guidance": (guidance_weight, guidance)}

  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)
  method = make_method(terms, extra)
  return method._replace(consult=_ask_all)
