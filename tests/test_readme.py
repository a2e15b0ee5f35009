"""The code in README.md, and what leads on from it, does what it says."""

import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from tests.helpers.arrays import softmax
from tests.helpers.paths import ROOT

TEXT = (ROOT / "README.md").read_text()
STUDENTS = (ROOT / "docs" / "students.md").read_text()
LOSSES, METHOD = re.findall(r"```python\n(.*?)```", TEXT, re.S)
(PYTHON,) = re.findall(r"```py\n(.*?)```", TEXT, re.S)
(LOADED,) = re.findall(r"```py\n(.*?)```", STUDENTS, re.S)


def test_one_loss_in_a_pipeline_of_ones_own():
  """The three values, one after the other under one name."""
  names, values = {}, []
  for block in LOSSES.strip().split("\n\n"):
    exec(block, names)
    values += [names.pop("value")] if "value" in names else []
  student, teacher = (np.asarray(names[x]) for x in ("student", "teacher"))
  gap = (student - teacher).astype("f8")
  p, q = softmax(teacher / 4), softmax(student / 4)
  wanted = [
    # All pairs: twice the variance of the rows; then 32 of them, by hand.
    2 * np.square(gap - gap.mean(0)).sum() / 63 / 10,
    np.square(gap[::2] - gap[1::2]).mean(),
    16 * (p * np.log(p / q)).sum(-1).mean(),
  ]
  np.testing.assert_allclose(values, wanted, rtol=1e-5)


def test_a_student_from_arrays(capsys):
  names = {}
  exec(PYTHON, names)
  assert names["answers"].shape == (64, 4)
  assert names["result"].summary["steps"] == 20
  exec(LOADED.replace("runs/NAME", str(names["result"].path)), names)
  np.testing.assert_array_equal(names["logits"], names["answers"])


def test_the_two_commands_are_those_that_are_run():
  commands = re.findall(r"```\n(pip install.*?)\n```", TEXT)
  assert len(commands) == 2
  run = (ROOT / ".ci" / "run").read_text().splitlines()
  for command in commands:
    assert f"{command} || exit 1" in run


def test_the_tree_shows_every_room():
  text = (ROOT / "CONTRIBUTING.md").read_text()
  tree = re.search(r"```\nckd_jax/\n(.*?)```", text, re.S)[1]
  shown = set(re.findall(r"^  (?:main sweep export )?(\w+)/", tree, re.M))
  rooms = {
    path.parent.name for path in (ROOT / "ckd_jax").glob("*/__init__.py")
  }
  assert shown == rooms - {"configs"}


def test_a_new_method_is_one_file(tmp_path, monkeypatch):
  assert METHOD.count("\n") < 30
  (tmp_path / "brier.py").write_text(METHOD)
  monkeypatch.setattr(
    methods, "__path__", [*methods.__path__, str(tmp_path)], raising=True
  )
  assert "brier" in methods.names()
  assert methods.defaults("brier") == {"weight": 1.0}
  method = methods.make("brier", weight=2.0)
  labels = np.zeros(20, np.int32)
  task = Task(20, 3, 4, 5, labels)
  key = jax.random.key(0)
  index = method.sample(key, 0, task, {})
  student = Outputs(jax.random.normal(key, (4, 1, 3)))
  teacher = Outputs(jnp.zeros((4, 1, 3)))
  batch = Batch(index, None, labels[index], None, (teacher,))
  value, _ = method.loss({}, {}, student, batch, key, 0)
  wanted = 2 * np.square(softmax(student.logits) - 1 / 3).sum(-1).mean()
  np.testing.assert_allclose(value, wanted, rtol=1e-5)


@pytest.mark.slow
def test_the_contract_test_runs_on_it_unasked(tmp_path):
  for folder in ("ckd_jax", "tests"):
    shutil.copytree(ROOT / folder, tmp_path / folder)
  shutil.copy(ROOT / "setup.cfg", tmp_path)
  (tmp_path / "ckd_jax" / "methods" / "brier.py").write_text(METHOD)
  contract = subprocess.run(
    [
      *(sys.executable, "-m", "pytest", "-n", "0", "-k", "brier", "-m", ""),
      "tests/methods/test_contract.py",
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert contract.returncode == 0, contract.stdout
  assert re.search(r"1\d passed", contract.stdout), contract.stdout


def test_the_table_of_methods_is_whole_and_true():
  """Every method has its row; KD and CKD join all that learn from a teacher."""
  text = (ROOT / "docs" / "methods.md").read_text()
  rows = re.search(r"\| method \|.*?\n\n", text, re.S)[0].splitlines()[2:]
  named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
  assert set(methods.names()) <= named
  weights = {"kd_weight", "ckd_weight"}
  without = {
    name
    for name in methods.names()
    if not weights <= methods.defaults(name).keys()
  }
  alone = {"dml", "one", "supervised"}  # without a teacher
  live = {"okd", "on_policy"}
  assert without == {"ckd", "ckd_features", "kd"} | alone | live
