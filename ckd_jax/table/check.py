"""Checks whether a table is fit for training."""

from typing import Any

import numpy as np
from etils import epath

from ckd_jax.methods import TopK
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
  values = _logits(table.answers.values)
  apart = tuple(range(1, values.ndim))
  finite = np.isfinite(values).all(apart)
  report = {
    "rows": len(table.ids),
    "missing_ids": len(table.info["missing"]),
    "duplicate_ids": len(table.ids) - len(set(table.ids)),
    "non_finite_rows": int((~finite).sum()),
    "ruled_out_rows": int(np.isneginf(values).any(apart).sum()),
    "agreement": None if split is None else _agreement(table, split),
    "mean_entropy": _mean_entropy(values, table.info["kind"]),
    "digest": table.info["digest"],
    "parts": {part["file"]: part["sha256"] for part in table.info["parts"]},
  }
  bad = ("missing_ids", "duplicate_ids", "non_finite_rows")
  return report, not any(report[key] for key in bad)


def _agreement(table: Table, split) -> float:
  """Of answers with labels; of a language model of positions that count."""
  values, place = table.answers.values, split.labels.ndim > 1
  if isinstance(values, TopK):
    told = np.take_along_axis(
      values.ids, values.log_probs.argmax(-1)[..., None], -1
    )[..., 0]
  else:
    told = values.argmax(-1)
  labels = dict(zip(map(str, split.ids), split.labels, strict=True))
  absent = np.full(split.labels.shape[1:], -1)
  truth = np.stack([labels.get(str(name), absent) for name in table.ids])
  hits = (told == truth)[truth >= 0] if place else told == truth
  return float(100 * hits.mean()) if hits.size else 0.0


def _logits(values: Any) -> np.ndarray:
  """Answers as float32[rows, ..., classes]; what is kept, and the rest."""
  if not isinstance(values, TopK):
    return values.astype(np.float32)
  with np.errstate(divide="ignore"):
    rest = np.log(values.rest)[..., None]
  # A rest of 0 rules nothing out that was named.
  rest = np.where(np.isneginf(rest), -1e4, rest)
  return np.concatenate([values.log_probs, rest], -1, dtype=np.float32)


def _mean_entropy(values: np.ndarray, kind: str) -> float | None:
  """Mean entropy of the rows without NaN or +inf, in nats."""
  values = values.reshape(-1, values.shape[-1])
  values = values[~(np.isnan(values) | (values == np.inf)).any(1)]
  if not len(values):
    return None
  if kind != "probs":
    values = np.exp(values - values.max(1, keepdims=True))
  probs = values / values.sum(1, keepdims=True)
  logs = np.log(np.where(probs > 0, probs, 1))
  return float(-(probs * logs).sum(1).mean())
