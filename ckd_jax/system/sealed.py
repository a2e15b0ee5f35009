"""A digest inside the facts that it guards, so that a flipped bit is seen."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sha256"  # of the entry that holds it


def seal(facts: Mapping[str, Any], beside: str = "") -> dict[str, Any]:
  """The facts with their digest.

  Args:
    facts: JSON-able, read back as they are written; an old digest is replaced.
    beside: digest of what belongs to them but lies elsewhere.
  """
  bare = {key: value for key, value in facts.items() if key != KEY}
  text = json.dumps([beside, bare], sort_keys=True)
  return bare | {KEY: hashlib.sha256(text.encode()).hexdigest()}


def is_sealed(facts: Mapping[str, Any]) -> bool:
  """Whether facts have a digest, and are as they were sealed."""
  return KEY in facts and is_whole(facts)


def is_whole(facts: Mapping[str, Any], beside: str = "") -> bool:
  """Whether facts are as they were sealed; those of older files have no seal.

  Args:
    facts: as they were read.
    beside: as in `seal`.
  """
  return KEY not in facts or facts == seal(facts, beside)
