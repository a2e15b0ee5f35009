"""--compile_for: every mistake is one line, and nothing is written."""

import re

import jax
import pytest

from ckd_jax import ahead, data, errors, main
from ckd_jax.ahead import command, targets
from ckd_jax.ahead.chips import CHIPS
from tests.helpers.paths import DIGITS


def run(capfd, *flags):
  """(status, stdout, stderr) of the command on digits, from a cnn."""
  status = errors.command(
    main.main,
    [
      f"--config={DIGITS}:method=kd,budget=60,batch_size=8",
      "--config.student=cnn",
      "--config.teacher.name=cnn",
      *flags,
    ],
  )
  said = capfd.readouterr()
  return status, said.out, said.err


@pytest.mark.parametrize(
  "name, hint",
  [
    ("v5e:2x5", "did you mean 'v5e:2x4'?"),
    ("v5x:2x4", "did you mean 'v5e:2x4'?"),
    ("h100:3", "did you mean 'h100:32'?"),
    ("", "choose one of"),
  ],
)
def test_an_unknown_target_names_the_nearest(name, hint, capfd):
  status, out, error = run(capfd, f"--compile_for={name}")
  assert status == 2 and not out and error.count("\n") == 1
  assert f"--compile_for={name} is no target" in error and hint in error


@pytest.mark.parametrize(
  "name, remedy",
  [("v5e:2x4", "pip install 'ckd_jax[tpu]'"), ("h100:8", "jax[cuda12]")],
)
def test_a_missing_compiler_says_what_to_install(
  name, remedy, capfd, monkeypatch
):
  from jax.experimental import topologies

  def missing(**what):
    raise RuntimeError("no such plugin\nand many lines")

  monkeypatch.setattr(topologies, "get_topology_desc", missing)
  status, out, error = run(capfd, f"--compile_for={name}")
  assert status == 2 and not out and error.count("\n") == 1
  assert remedy in error and "no such plugin" in error


def test_help_names_the_targets(capsys):
  main.main(["--help"])
  named = capsys.readouterr().out
  for kind, shapes in targets.TARGETS.items():
    assert f"{kind}:{shapes[0]}" in named


@pytest.fixture
def devices_here(monkeypatch):
  """This machine's devices in the place of those that are asked for."""

  def target(name):
    return targets.Target(name, CHIPS["v5e"], jax.devices())

  monkeypatch.setattr(command, "target", target)


def test_five_lines_and_nothing_written(
  devices_here, capfd, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  status, out, error = run(
    capfd, "--compile_for=v5e:2x2", f"--workdir={tmp_path / 'run'}"
  )
  assert status == 0, error
  lines = out.splitlines()
  titles = [line.split("  ")[0] for line in lines]
  assert titles == ["compiled for", "launch", "memory", "collectives", "step"]
  assert "4 of 4" in lines[0] and "8 images, 2 on each device" in lines[1]
  assert "fits" in lines[2] and "all-reduce" in lines[3]
  assert not list(tmp_path.iterdir())


def test_the_parts_of_the_memory_add_up(devices_here, capfd):
  status, out, error = run(
    capfd, "--compile_for=v5e:2x2", "--config.dataset.placement=device"
  )
  assert status == 0, error
  line = out.splitlines()[2]
  units = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
  total, most, *parts = (
    float(number) * units[unit]
    for number, unit in re.findall(r"([\d.]+) (kB|MB|GB)", line)
  )
  assert most == 16e9 and sum(parts) == pytest.approx(total, rel=0.01)
  # Each device evaluates a quarter of the images of 64 bytes, not the budget's
  # alone.
  images = 60 + len(data.load("digits").test.labels)
  assert f"{images * 64 / 4 / 1e3:.3g} kB images to evaluate" in line


@pytest.mark.parametrize(
  "count, text",
  [
    (0, "0 kB"),
    (1234, "1.23 kB"),
    (99_000, "99 kB"),
    (186_044, "0.186 MB"),
    (999_700_000, "1.00 GB"),
  ],
)
def test_sizes(count, text):
  assert command._size(count) == text


def test_out_of_memory_says_what_to_lower(devices_here, capfd, monkeypatch):
  tiny = CHIPS["v5e"]._replace(memory=1e5)
  monkeypatch.setitem(CHIPS, "v5e", tiny)
  status, out, error = run(
    capfd, "--compile_for=v5e:2x2", "--config.dataset.placement=device"
  )
  assert status == 2 and not out and error.count("\n") == 1
  for words in ("out of memory", "batch_size (now 8)", "budget (now 60)"):
    assert words in error
  assert "dataset.placement=stream" in error and "dtype=bfloat16" in error


def test_a_black_box_gives_logits_only(devices_here, capfd):
  status, _, error = run(
    capfd,
    "--compile_for=v5e:2x2",
    "--config.teacher.source=callable",
    "--config.teacher.path=nowhere:ask",
  )
  assert status == 0, error
  assert errors.command(
    main.main,
    [
      f"--config={DIGITS}:method=fitnet,budget=60,batch_size=8",
      "--config.student=cnn",
      "--config.teacher.source=callable",
      "--config.teacher.path=nowhere:ask",
      "--compile_for=v5e:2x2",
    ],
  )
  assert "maps" in capfd.readouterr().err
  assert ahead.names()
