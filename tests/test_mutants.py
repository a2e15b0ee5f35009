"""The list of plausible bugs fits the code, and names tests that exist."""

import collections
import importlib

from tests.helpers.paths import ROOT


def test_every_bug_can_be_put_in(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / "experiments")
  mutants = importlib.import_module("mutants")
  listed = mutants.read([])
  assert mutants.misfits(listed, ROOT) == []
  unnoticed = collections.Counter(bug.unnoticed for bug in listed)
  assert unnoticed["audit"] == 14  # as docs/reliability.md shows
  assert unnoticed.keys() == {"audit", "later", ""}
  named = {test.partition("::")[0] for bug in listed for test in bug.tests}
  named.discard("-mslow")
  assert not [file for file in named if not (ROOT / file).exists()]
  functions = {tuple(test.split("::")) for bug in listed for test in bug.tests}
  for file, *rest in functions:
    name = rest[0].partition("[")[0] if rest else ""
    assert not name or f"def {name}(" in (ROOT / file).read_text(), name
