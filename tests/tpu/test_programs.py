"""Programs for TPUs that are not here, against what was recorded of them.

  JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest -m "tpu and not slow"

Needs the compiler, `pip install -e '.[tpu]'`, and no TPU. Figures are its
estimates; `python -m tests.tpu.record` writes them anew.
"""

import pytest

from ckd_jax import ahead
from tests.tpu import cases, compiling


@pytest.mark.tpu
@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in cases.SLOW))
    for name in cases.CASES
  ],
)
def test_a_program_is_as_it_should_be(name):
  try:
    found = compiling.figures(cases.CASES[name])
  except ahead.TooLarge as error:
    pytest.fail(f"{name}: {error}")
  wrong = cases.violations(found, cases.recorded().get(name))
  assert not wrong, "\n".join([name, *wrong])
