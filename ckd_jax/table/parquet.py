"""Columns of a .parquet, of which a small file can hold a large one."""

import io
from typing import Any

import numpy as np

from ckd_jax.errors import UserError
from ckd_jax.table.rows import rectangle

_LONGEST = 1 << 12  # characters of a text


def read(data: bytes, images: int | None, widest: int) -> dict[str, np.ndarray]:
  """The columns, each [rows] or, if its cells are lists, [rows, numbers].

  Args:
    data: the bytes of the whole file.
    images: there are not more rows; None is no limit.
    widest: numbers in a cell, at most.

  Raises:
    UserError: pyarrow is missing, or the file holds more than answers can be.
    Exception: of any type, as the file may be damaged.
  """
  try:
    import pyarrow as pa
    from pyarrow import parquet
  except ImportError as error:
    raise UserError("parquet needs pyarrow: pip install pyarrow") from error
  file = parquet.ParquetFile(io.BytesIO(data))
  if images is not None:
    _check_size(file.metadata, images, widest)
  columns: dict[str, np.ndarray] = {}
  # A text that is repeated stays one until it is known to be short.
  names = file.schema_arrow.names
  texts = [name for name in names if _is_text(pa, file.schema_arrow, name)]
  table = parquet.read_table(io.BytesIO(data), read_dictionary=texts)
  for key in table.column_names:
    column = table[key].combine_chunks()
    if column.null_count:
      raise UserError(f"column {key!r} has {column.null_count} empty rows")
    if pa.types.is_dictionary(column.type):
      columns[key] = _texts(column, key)
    elif hasattr(column, "flatten") and column.type.num_fields == 1:
      lengths = np.asarray([len(row) for row in column])
      flat = column.flatten().to_numpy(zero_copy_only=False)
      columns[key] = rectangle(flat, lengths, key)
    else:
      columns[key] = column.to_numpy(zero_copy_only=False)
  return columns


def _check_size(metadata: Any, images: int, widest: int) -> None:
  """Refuses more rows or numbers than the images can explain."""
  if metadata.num_rows > images:
    raise UserError(
      f"there are {metadata.num_rows} rows, and the split has {images}"
    )
  groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
  for place in range(metadata.num_columns):
    numbers = sum(group.column(place).num_values for group in groups)
    if numbers > images * widest:
      raise UserError(
        f"a column holds {numbers:,} numbers, too much for {images} rows: it"
        " is not unpacked"
      )


def _is_text(pa: Any, schema: Any, name: str) -> bool:
  kind = schema.field(name).type
  return any(
    test(kind)
    for test in (
      pa.types.is_string,
      pa.types.is_large_string,
      pa.types.is_dictionary,
    )
  )


def _texts(column: Any, key: str) -> np.ndarray:
  """str[rows] of a column that holds every text once."""
  longest = max(
    (len(text) for text in column.dictionary.to_pylist()), default=0
  )
  if longest > _LONGEST:
    raise UserError(f"column {key!r} holds texts of {longest} characters")
  return np.asarray(column.to_pylist(), str)
