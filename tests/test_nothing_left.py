"""Commands that fail before they made anything leave no folder behind."""

import pytest

from ckd_jax import errors, export, main, report, sweep
from ckd_jax.table import __main__ as table
from tests.helpers.paths import DIGITS

TRAIN = f"--config={DIGITS}:teacher.source=none,method=supervised"
ASKED = f"--config={DIGITS}:teacher.source=callable,method=kd"
COMMANDS = {
  "train, a bad flag": (main.main, "--wrkdir=x {train} --workdir={new}/run"),
  "train, no data": (
    main.main,
    "{train} --config.dataset.name=npz --config.dataset.path={new}/x.npz"
    " --workdir={new}/deep/run",
  ),
  "train, no set of tensorflow-datasets": (
    main.main,
    "{train} --config.dataset.name=cifar10 --config.dataset.path={new}/tfds"
    " --workdir={new}/run",
  ),
  "train, no table": (
    main.main,
    "{train},method=kd,teacher.source=table --config.teacher.path={new}/table"
    " --workdir={new}/run",
  ),
  "train, no teacher": (
    main.main,
    "{asked} --config.teacher.path=nowhere:ask --config.table.path={new}/table"
    " --workdir={new}/run",
  ),
  "train, nothing to replay": (
    main.main,
    "{train} --replay --workdir={new}/run",
  ),
  "train, a bad target": (
    main.main,
    "{train} --compile_for=v9:2x2 --workdir={new}/run",
  ),
  "sweep, a bad flag": (sweep.main, "{train} --over=sed=1,2 --workdir={new}"),
  "sweep, a bad value": (
    sweep.main,
    "{train} --over=budget=0,100 --workdir={new}/runs",
  ),
  "sweep, no data": (
    sweep.main,
    "{train} --over=seed=1,2 --config.dataset.name=npz"
    " --config.dataset.path={new}/x.npz --workdir={new}/runs",
  ),
  "sweep together, no table": (
    sweep.main,
    "{train},method=kd,teacher.source=table --config.teacher.path={new}/table"
    " --over=seed=1,2 --how=together --workdir={new}/runs",
  ),
  "sweep together, no teacher": (
    sweep.main,
    "{asked} --config.teacher.path=nowhere:ask --over=seed=1,2"
    " --how=together --workdir={new}/runs",
  ),
  "sweep in turn, no teacher": (
    sweep.main,
    "{asked} --config.teacher.path=nowhere:ask --over=seed=1,2"
    " --how=in_turn --workdir={new}/runs",
  ),
  "export, no run": (export.main, "{new}/run --out={new}/student"),
  "export, a bad flag": (export.main, "{new}/run --put={new}/student"),
  "report, no runs": (report.main, "{new}/run"),
  "table import, no file": (
    table.main,
    "import {new}/x.npz --dataset=digits --split=train --out={new}/table",
  ),
  "table import, no data": (
    table.main,
    "import {new}/x.npz --dataset=cifar10 --path={new} --split=train"
    " --out={new}/table",
  ),
  "table import, a bad flag": (table.main, "import x.npz --ot={new}/table"),
  "table check, no table": (table.main, "check {new}/table"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_failed_command_leaves_nothing_behind(
  name, tmp_path, monkeypatch, capfd
):
  monkeypatch.chdir(tmp_path)
  command, typed = COMMANDS[name]
  argv = typed.format(train=TRAIN, asked=ASKED, new=tmp_path / "new").split()
  assert errors.command(command, argv) == 2
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith("ckd_jax: error: ")
  assert not list(tmp_path.iterdir())
