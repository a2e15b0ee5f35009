"""The figures in README.md and experiments/README.md are those of the results.

What a script prints of experiments/results is compared with the tables, cell by
cell, so that a figure that was typed, or whose results changed, is found.
"""

import collections
import importlib
import re
import sys

import pytest

from tests.helpers.paths import ROOT

README = ROOT / "README.md"
MORE = ROOT / "experiments" / "README.md"
# Labels that a table gives another name.
NAMES = {"logit_mse, twice its weight": "logit_mse, twice"}


def rows(text: str) -> list[dict[str, str]]:
  """Markdown's rows, by the titles of their columns."""
  head, _, *lines = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in text.strip().splitlines()
  ]
  return [dict(zip(head, line, strict=True)) for line in lines]


def tables(path) -> list[str]:
  return re.findall(r"(?:^\|.*\n)+", path.read_text(), re.M)


def named(row: dict[str, str], keys: list[str]) -> tuple[str, ...]:
  return tuple(NAMES.get(row[key], row[key]) for key in keys)


@pytest.fixture
def script(monkeypatch):
  """Imports a script of experiments/."""
  monkeypatch.syspath_prepend(ROOT / "experiments")
  before = set(sys.modules)
  yield importlib.import_module
  for name in set(sys.modules) - before:
    if str(ROOT / "experiments") in str(
      getattr(sys.modules[name], "__file__", "")
    ):
      del sys.modules[name]


@pytest.mark.parametrize(
  ("name", "function", "keys", "places"),
  [
    ("five_seeds", "table", ["loss"], [README, MORE]),
    ("low_budget", "table_of_results", ["schedule", "loss"], [MORE]),
    ("retrieval", "table", ["loss"], [MORE]),
    ("methods_cifar10", "table_of_results", ["method"], [MORE]),
    ("texts", "table", ["set", "loss"], [MORE]),
    ("language", "table_of_results", ["data", "learns from"], [MORE]),
    ("beyond_compression", "table", ["gap", "method"], [MORE]),
  ],
)
def test_the_figures_are_those_of_the_results(
  script, name, function, keys, places
):
  printed = rows(getattr(script(name), function)())
  wanted = {named(row, keys): row for row in printed}
  title = list(printed[0])[: len(keys) + 1]
  for place in places:
    found = [
      rows(text)
      for text in tables(place)
      if list(rows(text)[0])[: len(title)] == title
    ]
    matching = [
      table
      for table in found
      if {named(row, keys) for row in table} <= set(wanted)
    ]
    assert matching, f"no table of {name} in {place}"
    for row in matching[0]:
      true = wanted[named(row, keys)]
      for column, cell in row.items():
        if column not in keys:
          assert cell == true[column], (place.name, named(row, keys), column)
    assert len(matching[0]) == len(wanted)


def test_a_line_of_texts_says_how_often_a_live_teacher_was_asked(script):
  summary = collections.defaultdict(str, live_calls=3)
  assert script("texts").row("sst2", summary)["live_calls"] == 3


# Labels alone, ckd as published, and what several networks or attention bring.
SHOWN = ("supervised", "ckd", "one", "bss", "dml, resnet20", "rtk", "afd")
SHOWN += ("takd, resnet20",)


def test_readme_has_the_ten_best_methods(script):
  """Then those of SHOWN, where they are not among them."""
  printed = rows(script("methods_cifar10").table_of_results())
  shown = [
    row
    for place, row in enumerate(printed)
    if place < 10 or row["method"] in SHOWN
  ]
  (found,) = [
    rows(text)
    for text in tables(README)
    if text.startswith("| method | test accuracy % |")
  ]
  wanted = [{column: row[column] for column in found[0]} for row in shown]
  lines = [f"| {' | '.join(row.values())} |" for row in wanted]
  assert found == wanted, "\n".join(["README should have", *lines])
