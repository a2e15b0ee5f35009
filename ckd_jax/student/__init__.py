"""The student: its file, and inference without config or teacher."""

from ckd_jax.student.file import (
  STUDENT,
  check_holdable,
  load,
  params_sha256,
  read_object,
  save,
)
from ckd_jax.student.inference import Student, load_student, open_student

__all__ = [
  "STUDENT",
  "Student",
  "check_holdable",
  "load",
  "load_student",
  "open_student",
  "params_sha256",
  "read_object",
  "save",
]
