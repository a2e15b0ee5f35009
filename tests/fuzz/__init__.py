"""Cases that Hypothesis draws: losses, configs and flags, and files.

Every file has a strategy, CASES, and `check`, which raises where a case breaks
a promise. experiments/fuzz.py tries thousands of them.
"""

from hypothesis import HealthCheck, given, settings


def tried(cases, check, count: int) -> None:
  """Checks some cases of a strategy, always the same ones."""
  settings(
    max_examples=count,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
  )(given(cases)(check))()
