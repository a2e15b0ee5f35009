"""A line of a study's results says what it was made with."""

import json
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

COMMAND = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
folder.mkdir()
summary = dict.fromkeys(("table_path", "table_digest", "params_sha256"))
summary |= {"seed": 1, "metric": "accuracy", "test_accuracy": 50.0}
(folder / "summary.json").write_text(json.dumps(summary))
config = {"optimizer": {"learning_rate": 0.05}, "batch_size": 64}
(folder / "config.json").write_text(json.dumps(config))
"""


@pytest.fixture
def study(monkeypatch, tmp_path):
  """The module, as of a clone in the folder `clone`."""
  monkeypatch.syspath_prepend(ROOT / "experiments")
  import study

  here = tmp_path / "clone" / "experiments"
  (here / "results").mkdir(parents=True)
  (here / "a.py").write_text("1\n")
  (here / "results" / "a.jsonl").write_text("")
  monkeypatch.setattr(study, "HERE", here)
  return study


def git(folder, *arguments) -> str:
  me = ("-c", "user.name=me", "-c", "user.email=me@localhost")
  command = ["git", "-C", folder, *me, *arguments]
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  return done.stdout.strip()


def test_a_line_has_the_commit_the_rate_and_the_batch(study, tmp_path):
  clone = study.HERE.parent
  git(clone, "init", "-q")
  git(clone, "add", ".")
  git(clone, "commit", "-qm", "one")
  commit = git(clone, "rev-parse", "--short", "HEAD")
  results = study.HERE / "results" / "a.jsonl"
  command = [sys.executable, "-c", COMMAND]
  study.run_missing({(1,): command}, results, ("seed",), tmp_path / "runs", 1)
  line = json.loads(results.read_text())
  assert line["commit"] == commit and len(line["date"]) == 10
  assert (line["learning_rate"], line["batch_size"]) == (0.05, 64)
  assert study.stamp()["commit"] == commit  # a line changes no code
  (study.HERE / "a.py").write_text("2\n")
  assert study.stamp()["commit"] == f"{commit}+"


def test_there_is_no_commit_outside_a_clone(study, monkeypatch, tmp_path):
  monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
  assert study.stamp()["commit"] is None
