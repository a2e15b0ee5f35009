"""Seven images, and files of answers about them."""

import csv

import numpy as np
import pytest
import safetensors.numpy

NAMES = ("cat", "dog", "emu")
ROWS = 7


def write(file, values, ids=None) -> None:
  """Writes a table the way its users do."""
  ending = file.suffix
  extra = {} if ids is None else {"ids": np.asarray(ids)}
  if ending == ".npz":
    np.savez(file, logits=values, **extra)
  elif ending == ".npy":
    np.save(file, values)
  elif ending == ".safetensors":
    safetensors.numpy.save_file({"logits": values, **extra}, file)
  elif ending == ".csv":
    columns = [] if ids is None else ["id"]
    with open(file, "w", newline="") as stream:
      writer = csv.writer(stream)
      writer.writerow([*columns, *NAMES])
      for row, line in enumerate(values):
        writer.writerow([*([] if ids is None else [ids[row]]), *line])
  else:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {} if ids is None else {"id": ids}
    pq.write_table(pa.table(columns | {"logits": list(values)}), file)
