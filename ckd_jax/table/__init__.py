"""The teacher's answers, each beside the stable id of its image.

A table is a folder: `table.json` describes teacher, images and view, and the
parts `part-00000.npz`, ... hold ids and answers.
"""

from ckd_jax.table.answers import Answers, from_outputs, given, to_outputs
from ckd_jax.table.check import check
from ckd_jax.table.foreign import import_file
from ckd_jax.table.form import Form, as_numbers
from ckd_jax.table.info import Subject, new_info
from ckd_jax.table.store import (
  append,
  digest,
  exists,
  fields,
  read_info,
  require,
  write_info,
)
from ckd_jax.table.table import Table, read
from ckd_jax.table.values import (
  KINDS,
  are_constant,
  first_of,
  looks_like_probs,
  storage_dtype,
  validate,
  warn_of_constants,
  warn_of_probs,
)

__all__ = [
  "KINDS",
  "Answers",
  "Form",
  "Subject",
  "Table",
  "append",
  "are_constant",
  "as_numbers",
  "check",
  "digest",
  "exists",
  "fields",
  "first_of",
  "from_outputs",
  "given",
  "import_file",
  "looks_like_probs",
  "new_info",
  "read",
  "read_info",
  "require",
  "storage_dtype",
  "to_outputs",
  "validate",
  "warn_of_constants",
  "warn_of_probs",
  "write_info",
]
