"""The calls that one run paid for, kept in its folder across kills."""

import json
from collections.abc import Iterable
from typing import Any

from etils import epath

from ckd_jax.errors import DAMAGED, UserError
from ckd_jax.system import files, sealed


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
      facts = json.loads(path.read_text())
      if not sealed.is_whole(facts):
        raise ValueError("it is not what was written")
      self._parts = {
        str(sha256): {key: int(part[key]) for key in ("rows", "repeated")}
        for sha256, part in facts["parts"].items()
      }
    except DAMAGED as error:
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
      self._parts[part["sha256"]] = {"rows": part["rows"], "repeated": 0}
    first = info["parts"][0]["sha256"]
    self._parts[first]["repeated"] = info["repeated_calls"]

  def enter(self, part: dict[str, Any], repeated: int) -> None:
    """Enters a part whose rows this run paid for.

    Args:
      part: `sha256` and `rows`, as in table.json.
      repeated: calls about its rows that were made a second time.
    """
    self._parts[part["sha256"]] = {"rows": part["rows"], "repeated": repeated}
    if self._path is not None:
      text = json.dumps(sealed.seal({"parts": self._parts}), indent=1) + "\n"
      files.write(self._path, text.encode())

  def paid(self, parts: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """Counts (calls, repeated calls) that this run paid for these parts.

    Args:
      parts: of table.json, each with its `sha256`.
    """
    own = [
      self._parts[part["sha256"]]
      for part in parts
      if part["sha256"] in self._parts
    ]
    return (
      sum(part["rows"] for part in own),
      sum(part["repeated"] for part in own),
    )
