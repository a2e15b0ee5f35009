"""`ckd-jax COMMAND` is the command of that name, and documents its flags."""

import pytest

from ckd_jax import __main__ as script
from ckd_jax import config, methods, models
from ckd_jax.run import logger


def run(capfd, *argv) -> tuple[int, str, str]:
  try:
    script.main(list(argv))
    status = 0
  except SystemExit as end:
    status = end.code
  return status, *capfd.readouterr()


@pytest.mark.parametrize("command", script.COMMANDS)
def test_every_command_has_help_with_examples(command, capfd):
  status, out, err = run(capfd, command, "--help")
  assert (status, err) == (0, "")
  assert "ckd_jax" in out and "--" in out
  assert command in run(capfd, "--help")[1]


@pytest.mark.parametrize("command", script.COMMANDS)
def test_help_names_what_a_config_may_name(command, capfd):
  _, out, _ = run(capfd, command, "--help")
  said = {word.strip(",") for word in out.split()}
  named = (*methods.names(), *models.names(), *config.SOURCES)
  assert {*named, *config.packaged(), "npz", "folder"} <= said
  assert f"ckd-jax {command}" in out and "--debug" in out
  lines = [line for line in out.splitlines() if " " in line.strip()]
  assert max(map(len, lines)) <= 80  # but for a path


@pytest.mark.parametrize("command", ["sweep", "train"])
def test_help_lists_every_key_and_the_file_that_explains_them(command, capfd):
  _, out, _ = run(capfd, command, "--help")
  flags = ("--config", "--workdir", "--hosts", "--coordinator")
  assert all(flag in out for flag in flags)
  said = {word.strip(",") for word in out.split()}
  known = config.flatten(config.get_config("cifar100"))
  assert {key.split(".")[-1] for key in known if "hyper." not in key} <= said
  assert {f"{key.split('.')[0]}." for key in known if "." in key} <= said
  assert str(config.packaged()["cifar100"]) in out


def test_a_wrong_command_is_one_line(capfd):
  status, out, err = run(capfd, "trian")
  assert (status, out) == (2, "")
  assert (
    err == "ckd_jax: error: unknown command 'trian': did you mean 'train'?\n"
  )


def test_it_reports_and_exports(fitted, tmp_path, capfd):
  summary, workdir = fitted
  status, out, _ = run(capfd, "export", str(workdir), f"--out={tmp_path}/out")
  assert status == 0 and summary["params_sha256"] in out
  for ending, words in (
    ("html", "<!doctype html>"),
    ("md", "| method |"),
    ("csv", "dataset,teacher"),
  ):
    file = tmp_path / f"report.{ending}"
    status, out, _ = run(capfd, "report", str(workdir), f"--out={file}")
    assert status == 0 and str(file) in out
    assert words in file.read_text()
  status, _, err = run(capfd, "report", str(workdir), "--out=report.txt")
  assert status == 2 and ".html" in err
  assert logger.read_metrics(workdir / "metrics.jsonl")
