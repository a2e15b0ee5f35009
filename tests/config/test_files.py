"""Configs by name, from Python, and with optional keys."""

import os
import subprocess
import sys

import pytest

import ckd_jax
from ckd_jax import config as configuration
from ckd_jax.errors import UserError
from tests.helpers.paths import DIGITS, ROOT


def test_a_config_from_python_is_that_of_the_command():
  ours = ckd_jax.get_config(
    "cifar100", method="kd", budget=500, **{"optimizer.learning_rate": 0.05}
  )
  theirs, _ = configuration.from_flags(
    [
      "--config=configs/cifar100.py:method=kd,budget=500",
      "--config.optimizer.learning_rate=0.05",
    ]
  )
  assert configuration.to_json(ours) == configuration.to_json(theirs)
  assert ours.is_locked
  pair = ckd_jax.get_config(
    "imagenet",
    pair="resnet50_mobilenet",
    **{"teacher.path": "x.pth", "hyper.positives": 2},
  )
  assert (pair.student, pair.hyper.positives) == ("mobilenet_v1", 2)


@pytest.mark.parametrize(
  ("name", "options", "words"),
  [
    ("cifar1000", {}, "cifar100"),
    ("digits", {"budegt": 3}, "budget"),
    ("digits", {"method": "kdd"}, "kd"),
    ("digits", {"budget": "many"}, "budget"),
    ("digits", {"budget": 0}, "budget"),
    ("digits", {"hyper.temperatur": 1.0}, "temperature"),
    ("digits", {"optimizer.name": "adam"}, "adamw"),
    ("digits", {"teacher.max_calls": 0}, "max_calls"),
  ],
)
def test_mistakes_are_one_line(name, options, words):
  with pytest.raises(UserError, match=words) as caught:
    ckd_jax.get_config(name, **options)
  assert "\n" not in str(caught.value)


def test_a_wrong_name_finds_files_beside_it_and_those_of_the_package(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  for name in ("setup.py", "mine.py", "train.py"):
    (tmp_path / name).touch()
  for wrong, meant in (
    ("cifar1000", "did you mean 'configs/cifar100.py'"),
    ("configs/digit.py", "did you mean 'configs/digits.py'"),
    ("mime.py", "did you mean 'mine.py'"),
    (
      "quite_another.py",
      "choose one of configs/arithmetic.py, configs/cifar10.py",
    ),
  ):
    with pytest.raises(UserError, match=meant):
      ckd_jax.get_config(wrong)


def test_optional_keys_change_no_run_that_does_not_name_them():
  plain, workdir = configuration.from_flags([f"--config={DIGITS}"])
  # As it was before there were such keys.
  assert workdir == "runs/digits-040ecee6"
  facts = configuration.flatten(configuration.to_json(plain))
  assert not {"optimizer.name", "teacher.max_calls"} & facts.keys()
  named, other = configuration.from_flags(
    [
      f"--config={DIGITS}:teacher.max_calls=7",
      "--config.optimizer.name=adamw",
    ]
  )
  assert other != workdir
  facts = configuration.flatten(configuration.to_json(named))
  assert facts["teacher.max_calls"] == 7
  assert facts["optimizer.name"] == "adamw"


@pytest.mark.slow
def test_the_files_of_the_package_are_found_anywhere(tmp_path):
  """But a file of one's own, of the same name, comes first."""
  code = (
    "from ckd_jax.config import from_flags;"
    "import sys; config, workdir = from_flags(sys.argv[1:]);"
    "print(config.budget, workdir)"
  )

  def found(path):
    command = [sys.executable, "-c", code, f"--config={path}"]
    return subprocess.run(
      command,
      cwd=tmp_path,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  assert found("configs/digits.py") == "400 runs/digits-040ecee6"
  assert found("digits") == "400 runs/digits-040ecee6"
  (tmp_path / "configs").mkdir()
  text = DIGITS.read_text().replace("config.budget = 400", "config.budget = 90")
  (tmp_path / "configs" / "digits.py").write_text(text)
  assert found("configs/digits.py").startswith("90 ")


def test_the_configs_at_the_top_are_those_of_the_package():
  for name, path in configuration.packaged().items():
    assert (ROOT / "configs" / f"{name}.py").samefile(path)
