"""The study of nine methods is a full grid, and every cell a valid config."""

import importlib
import itertools

import pytest

from ckd_jax import config
from tests.helpers.paths import ROOT


@pytest.fixture
def study(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / "experiments")
  return importlib.import_module("beyond_compression")


def test_every_cell_is_there_and_valid(study):
  flags = study.parsed(["--data=cifar10.npz", "--seeds=0"])
  cells = study.commands(flags)
  gaps = [f", {gap}" for gap in ("small", "large")]
  wanted = {
    (method, corruption + gap)
    for method, corruption in itertools.product(
      study.METHODS, study.CORRUPTIONS
    )
    for gap in ([""] if method in ("supervised", "one") else gaps)
  }
  assert len(wanted) == 8 * (8 * 2 + 2)
  assert {key[:2] for key in cells} == wanted
  for (method, label, budget, steps, seed), command in cells.items():
    found, _ = config.from_flags(command[3:])
    assert found.method == method
    assert (found.label, found.budget) == (label, budget)
    assert (found.steps, found.seed) == (steps, seed)
    assert ("noise" in label) == (found.dataset.label_noise.rate > 0)
    assert ("imbalance" in label) == (found.dataset.imbalance.largest > 0)


def test_a_teacher_is_shared_by_the_cells_of_a_corruption_and_a_gap(study):
  cells = study.commands(study.parsed(["--data=cifar10.npz", "--seeds=0,1"]))
  paths = {}
  for (_, label, *_), command in cells.items():
    for flag in command:
      if flag.startswith("--config.teacher.path="):
        paths.setdefault(label, set()).add(flag)
  assert len(paths) == 16
  assert all(len(found) == 1 for found in paths.values())
  assert len(set.union(*paths.values())) == 16
