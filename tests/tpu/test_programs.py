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


def figures(**changes):
  """Those of a program that is as it should be, but for these."""
  fine = {
    "cycles": 1000,
    "row_loops": [],
    "endless_loops": [],
    "table_copies": [],
    "memory": {"temporary": 1_000_000},
    "tables": 5_000_000,
    "host": [],
    "float64": 0,
    "collectives": {"all-reduce": {"count": 3.0, "bytes": 12.0}},
  }
  return {**fine, **changes}


BEFORE = cases.to_record(figures())


@pytest.mark.parametrize(
  "changes, says",
  [
    ({"cycles": 1101}, "1,101 cycles, recorded 1,000"),
    (
      {"row_loops": [{"trips": 8, "source": "augment.py:1", "cycles": 5}]},
      "a loop over 8 rows at augment.py:1",
    ),
    (
      {"table_copies": [{"table": "inputs", "bytes": 2e6, "source": "x"}]},
      "a copy of inputs, 2 MB, at x",
    ),
    ({"memory": {"temporary": 2_300_000}}, "2.3 MB temporary, recorded 1.0"),
    ({"host": ["outfeed.1"]}, "outfeed.1"),
    ({"float64": 2}, "float64"),
    ({"collectives": {}}, "collectives: {}"),
    ({"endless_loops": ["methods/mixup.py:26"]}, "loops of unknown length: 1"),
  ],
)
def test_what_must_not_be_is_named(changes, says):
  fine = figures(cycles=1100, memory={"temporary": 2_100_000})
  assert cases.violations(fine, BEFORE) == []
  (wrong,) = cases.violations(figures(**changes), BEFORE)
  assert says in wrong


def test_temporary_memory_that_was_not_recorded_is_held_against_tables():
  before = {key: BEFORE[key] for key in BEFORE if key != "temporary"}
  assert cases.violations(figures(), before) == []
  (wrong,) = cases.violations(figures(tables=3_000_000), before)
  assert "1.0 MB temporary beside tables of 3.0" in wrong
  assert cases.violations(figures(tables=0), before) == []


def test_what_was_never_recorded_says_how():
  assert "python -m tests.tpu.record" in cases.violations(figures(), None)[0]


def test_only_cases_are_recorded():
  assert set(cases.recorded()) <= set(cases.CASES)
