"""Checks whether a table is fit for training."""

from typing import Any

import numpy as np
from etils import epath

from ckd_jax.table.store import require
from ckd_jax.table.table import Table, read


def check(
  path: epath.PathLike, split: Any = None
) -> tuple[dict[str, Any], bool]:
  """Looks for defects that make a table unfit for training.

  Args:
    path: folder of the table.
    split: a `data.Split` of the same images, to compare with labels; optional.

  Returns:
    A report: rows, missing_ids, duplicate_ids, non_finite_rows (NaN or
    infinite; -inf, a class ruled out, again in ruled_out_rows), agreement
    (of the top answer with the label, in percent; None without a split),
    mean_entropy (nats), digest and parts; and whether it is clean.

  Raises:
    UserError: the table cannot be read or belongs to another data set.
  """
  table = read(path)
  if split is not None:
    require(path, table.info, fingerprint=split.fingerprint)
  values = table.answers.values.astype(np.float32)
  finite = np.isfinite(values).all(1)
  report = {
    "rows": len(table.ids),
    "missing_ids": len(table.info["missing"]),
    "duplicate_ids": len(table.ids) - len(set(table.ids)),
    "non_finite_rows": int((~finite).sum()),
    "ruled_out_rows": int(np.isneginf(values).any(1).sum()),
    "agreement": None if split is None else _agreement(table, split),
    "mean_entropy": _mean_entropy(values, table.info["kind"]),
    "digest": table.info["digest"],
    "parts": {part["file"]: part["sha256"] for part in table.info["parts"]},
  }
  bad = ("missing_ids", "duplicate_ids", "non_finite_rows")
  return report, not any(report[key] for key in bad)


def _agreement(table: Table, split) -> float:
  labels = dict(zip(map(str, split.ids), split.labels, strict=True))
  truth = np.asarray([labels.get(str(name), -1) for name in table.ids])
  return float(100 * (table.answers.values.argmax(1) == truth).mean())


def _mean_entropy(values: np.ndarray, kind: str) -> float | None:
  """Mean entropy of the rows without NaN or +inf, in nats."""
  values = values[~(np.isnan(values) | (values == np.inf)).any(1)]
  if not len(values):
    return None
  if kind != "probs":
    values = np.exp(values - values.max(1, keepdims=True))
  probs = values / values.sum(1, keepdims=True)
  logs = np.log(np.where(probs > 0, probs, 1))
  return float(-(probs * logs).sum(1).mean())
