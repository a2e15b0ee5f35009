"""A few of the cases of experiments/fuzz.py, always the same ones.

Every loss is drawn in test_bounds.py, beside its other tests; here a few of
other types and shapes.
"""

import pytest

from tests.fuzz import configs, files, losses, tried

pytestmark = pytest.mark.usefixtures("hypothesis_home")


@pytest.mark.parametrize(
  ("kind", "count"), [(losses, 10), (configs, 120), (files, 150)]
)
def test_a_case_is_right_or_one_line(kind, count):
  tried(kind.CASES, kind.check, count)
