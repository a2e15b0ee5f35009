"""Several networks as one, which are trained together."""

from collections.abc import Sequence
from typing import Any

import jax

from ckd_jax.methods import Model


def cohort(members: Sequence[Model]) -> Model:
  """Joins networks of any architectures: each sees the same inputs.

  The outputs are those of the first member, which begins as it would alone;
  `Outputs.branches` has the logits of all. Parameters and batch statistics are
  dicts of the members' own, see `member`.

  Args:
    members: the networks, two or more.
  """

  def init(key, inputs):
    made = [
      one.init(jax.random.fold_in(key, number) if number else key, inputs)
      for number, one in enumerate(members)
    ]
    params, state = zip(*made, strict=True)
    return _named(params), _named(state)

  def apply(params, state, inputs, *, train, key=None):
    found = []
    for number, one in enumerate(members):
      own = (
        jax.random.fold_in(key, number) if key is not None and number else key
      )
      weights = member(params, number), member(state, number)
      found.append(one.apply(*weights, inputs, train=train, key=own))
    outputs, after = zip(*found, strict=True)
    logits = tuple(each.logits for each in outputs)
    return outputs[0]._replace(branches=logits), _named(after)

  return Model(init, apply)


def member(tree: Any, number: int) -> Any:
  """The part of parameters or batch statistics that is one member's."""
  return tree[_name(number)]


def _named(trees: Sequence[Any]) -> dict[str, Any]:
  return {_name(number): tree for number, tree in enumerate(trees)}


def _name(number: int) -> str:
  return f"member_{number}"
