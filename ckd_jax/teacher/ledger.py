"""The calls that one run paid for, kept in its folder across kills."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from etils import epath

from ckd_jax.errors import DAMAGED, UserError
from ckd_jax.system import files, sealed


class Paid(NamedTuple):
  """What a run paid for.

  Attributes:
    calls: answers that it bought.
    repeated: calls that it made a second time, not counted in `calls`.
    failed: attempts that brought no answer, images each.
  """

  calls: int
  repeated: int
  failed: int


class Ledger:
  """The parts of a table that one run paid for.

  A part is entered once it is durable and before table.json names it. Only
  parts that the table names count, so a kill between the two counts nothing
  twice.

  Args:
    path: of the file, `calls.json` in the run's folder; None keeps nothing.

  Raises:
    UserError: the file is damaged.
  """

  def __init__(self, path: epath.Path | None = None):
    self._path = path
    self._parts: dict[str, dict[str, int]] = {}  # by the part's sha256
    if path is None or not path.exists():
      return
    try:
      facts = json.loads(files.read(path))
      if not sealed.is_whole(facts):
        raise ValueError("it is not what was written")
      self._parts = {
        str(sha256): {
          "rows": int(part["rows"]),
          "repeated": int(part["repeated"]),
          "failed": int(part.get("failed", 0)),  # not in older files
        }
        for sha256, part in facts["parts"].items()
      }
    except (OSError, *DAMAGED) as error:
      raise UserError(
        f"{path} is damaged: delete it; only the number of answers that this"
        " run paid for is lost"
      ) from error

  def adopt(self, info: dict[str, Any]) -> None:
    """Enters a table that this run alone paid for, if nothing is entered yet.

    Runs begun before ledgers existed have none.

    Args:
      info: contents of table.json.
    """
    if self._parts or not info["parts"]:
      return
    for part in info["parts"]:
      self._parts[part["sha256"]] = _entry(part["rows"])
    first = info["parts"][0]["sha256"]
    self._parts[first]["repeated"] = info["repeated_calls"]

  def enter(self, part: dict[str, Any], repeated: int, failed: int = 0) -> None:
    """Enters a part whose rows this run paid for.

    Args:
      part: `sha256` and `rows`, as in table.json.
      repeated: calls about its rows that were made a second time.
      failed: attempts about its rows that brought no answer.
    """
    self._parts[part["sha256"]] = _entry(part["rows"], repeated, failed)
    if self._path is not None:
      text = json.dumps(sealed.seal({"parts": self._parts}), indent=1) + "\n"
      files.write(self._path, text.encode())

  def paid(self, parts: Iterable[dict[str, Any]]) -> Paid:
    """Counts what this run paid for these parts.

    Args:
      parts: of table.json, each with its `sha256`.
    """
    known = [self._parts.get(part["sha256"], _entry(0)) for part in parts]
    keys = ("rows", "repeated", "failed")
    return Paid(*(sum(part[key] for part in known) for key in keys))


def _entry(rows: int, repeated: int = 0, failed: int = 0) -> dict[str, int]:
  return {"rows": rows, "repeated": repeated, "failed": failed}
