"""The teacher's answers, each beside the stable id of its image.

A table is a folder: `table.json` says what was asked of whom, `part-00000.npz`
and its followers hold ids and answers.
"""

from ckd_jax.table.check import check, rows
from ckd_jax.table.foreign import import_file
from ckd_jax.table.store import (
  Table,
  append,
  digest,
  exists,
  fields,
  new_info,
  read,
  read_info,
  require,
  write_info,
)
from ckd_jax.table.values import KINDS, storage_dtype, validate

__all__ = [
  "KINDS",
  "Table",
  "append",
  "check",
  "digest",
  "exists",
  "fields",
  "import_file",
  "new_info",
  "read",
  "read_info",
  "require",
  "rows",
  "storage_dtype",
  "validate",
  "write_info",
]
