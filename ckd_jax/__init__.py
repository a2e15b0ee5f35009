"""Distil a student from a table of a teacher's answers.

  import ckd_jax

  result = ckd_jax.distill(
    student="cnn", data=(images, labels), answers=logits, method="ckd"
  )
  logits = result.student(images)

Nothing is imported before it is used: `import ckd_jax` does not start JAX. It
asks for one CPU device per core (JAX_NUM_CPU_DEVICES) where nothing else did.
"""

import importlib
from typing import TYPE_CHECKING

from ckd_jax import cores as _cores

__version__ = "0.1.0"

_cores.choose()

if TYPE_CHECKING:
  from ckd_jax import losses, methods, models
  from ckd_jax.api import Result, distill
  from ckd_jax.config import get_config
  from ckd_jax.errors import UserError
  from ckd_jax.student import Student, load_student
  from ckd_jax.table import Table

__all__ = [
  "Result",
  "Student",
  "Table",
  "UserError",
  "distill",
  "get_config",
  "load_student",
  "losses",
  "methods",
  "models",
]

_HOMES = {
  "Result": "api",
  "Student": "student",
  "Table": "table",
  "UserError": "errors",
  "distill": "api",
  "get_config": "config",
  "load_student": "student",
}


def __getattr__(name: str):
  if name in _HOMES:
    return getattr(importlib.import_module(f"ckd_jax.{_HOMES[name]}"), name)
  if name in __all__:
    return importlib.import_module(f"ckd_jax.{name}")
  raise AttributeError(f"module 'ckd_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
