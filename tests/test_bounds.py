"""How large the inputs of every loss may be: the bound that README states.

And what Hypothesis draws for it. Tests of one loss follow each other, since
they share its program.
"""

import jax
import numpy as np
import pytest

from ckd_jax import losses
from tests.fuzz import losses as fuzz
from tests.fuzz import tried
from tests.helpers.arrays import draw
from tests.helpers.every_loss import CASES, graded

pytestmark = pytest.mark.usefixtures("hypothesis_home")
BOUND = 1e8


@pytest.fixture(scope="module", params=CASES)
def name(request) -> str:
  """A loss."""
  return request.param


def test_every_loss_is_here():
  helpers = {"CRDMemory", "crd_memory", "enqueue", "ramp_up"}
  helpers |= {"AFDHead", "AFDHeads", "afd_heads"}
  helpers |= {f"bss_{x}" for x in ("attack", "base", "targets", "weights")}
  assert set(losses.__all__) - helpers == {name.split()[0] for name in CASES}


def is_finite(name: str, scale: float) -> bool:
  """The value, and its gradient, of random and of opposite inputs."""
  shape, _ = CASES[name]
  ordinary = draw(*shape), draw(*shape, seed=1)
  signs = np.sign(ordinary[0])
  for student, teacher in (ordinary, (signs, -signs), (signs, 0 * signs)):
    for pair in ((student, teacher), (teacher, student)):
      pair = [(np.float32(scale) * np.clip(x, -1, 1)) for x in pair]
      found = jax.tree.leaves(graded(name)(*pair))
      if not all(np.isfinite(leaf).all() for leaf in found):
        return False
  return True


def test_up_to_the_bound_value_and_gradient_are_finite(name):
  assert is_finite(name, BOUND)
  assert is_finite(name, 1 / BOUND)


def test_drawn_cases_are_finite_and_of_the_shape_that_is_said(name):
  """The short form of experiments/fuzz.py for every loss, in float32."""
  tried(fuzz.cases_of(name), fuzz.check, 10)


def test_a_gate_of_equal_rows_is_finite():
  """A compiled program computed scores twice, and rounded them otherwise."""
  for seed in range(8):
    rows = np.broadcast_to(30 * draw(1, 5, seed=seed), (6, 5))
    weight = np.broadcast_to(1e8 * draw(1, 2, seed=seed + 90), (5, 2))
    rest = draw(3, 2)
    gate = jax.jit(losses.one_gate)(rows, weight, *rest)
    np.testing.assert_allclose(gate.sum(-1), 1, rtol=1e-6)
