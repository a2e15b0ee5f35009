"""The teacher: who answers, and how each question is asked only once."""

from ckd_jax.teacher.ask import BudgetExceeded, augmented, build, require
from ckd_jax.teacher.sources import (
  Teacher,
  from_callable,
  from_model,
  from_run,
  from_torch,
  pruned,
)

__all__ = [
  "BudgetExceeded",
  "Teacher",
  "augmented",
  "build",
  "from_callable",
  "from_model",
  "from_run",
  "from_torch",
  "pruned",
  "require",
]
