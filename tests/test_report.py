"""The table says what numpy says, and the picture shows it."""

import json
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from ckd_jax import report
from ckd_jax.errors import UserError

RUN = {
  "dataset": "cifar100",
  "student": "resnet8",
  "teacher": "outside",
  "method": "ckd",
  "seed": 0,
  "budget": 1600,
  "teacher_calls": 1440,
  "test_accuracy": 30.0,
  "val_accuracy": None,
  "train_seconds": 100.0,
}


def write(folder, **changes):
  folder.mkdir(parents=True)
  (folder / "summary.json").write_text(json.dumps(RUN | changes))


def _change(run, **changes):
  (run / "summary.json").write_text(json.dumps(RUN | changes))


@pytest.fixture
def runs(tmp_path):
  """Two methods, three budgets, three seeds; one cell has a single run."""
  rng = np.random.default_rng(0)
  wanted = {}
  for method, budgets in {"ckd": (400, 1600, None), "kd": (400, 1600)}.items():
    for budget in budgets:
      seeds = 1 if budget is None else 3
      accuracies = rng.uniform(20, 40, seeds)
      for seed, accuracy in enumerate(accuracies):
        write(
          tmp_path / "runs" / f"{method}-{budget}-{seed}",
          method=method,
          budget=budget,
          seed=seed,
          test_accuracy=accuracy,
          teacher_calls=int(0.9 * (budget or 50_000)),
          train_seconds=100.0 + seed,
        )
      wanted[method, budget] = accuracies
  return tmp_path / "runs", wanted


def test_cells_are_what_numpy_says(runs):
  folder, wanted = runs
  finished, unfinished = report.find([folder])
  assert len(finished) == 13 and unfinished == []
  (methods,) = report.group(list(map(report.read, finished))).values()
  assert {(m, b) for m, cells in methods.items() for b in cells} == set(wanted)
  for (method, budget), accuracies in wanted.items():
    cell = methods[method][budget]
    assert cell.mean == pytest.approx(np.mean(accuracies))
    if len(accuracies) > 1:
      assert cell.std == pytest.approx(np.std(accuracies, ddof=1))
      assert cell.seconds == 101.0
    else:
      assert cell.std is None
      assert cell.seconds == 100.0
    assert cell.calls == int(0.9 * (budget or 50_000))


def test_printed_table(runs, capsys):
  folder, wanted = runs
  report.main([str(folder)])
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("cifar100: outside -> resnet8, test accuracy")
  assert lines[1].split() == ["method", "400", "1,600", "all"]
  for line, method in zip(lines[2:4], ("ckd", "kd"), strict=True):
    cells = re.findall(r"(\S+) ± (\S+) \((\d)\)", line)
    budgets = [budget for m, budget in wanted if m == method]
    assert line.split()[0] == method and len(cells) == len(budgets)
    for (mean, std, count), budget in zip(cells, budgets, strict=True):
      accuracies = wanted[method, budget]
      assert mean == f"{np.mean(accuracies):.2f}"
      several = len(accuracies) > 1
      assert std == (f"{np.std(accuracies, ddof=1):.2f}" if several else "-")
      assert int(count) == len(accuracies)
  assert lines[2].index(" ± ") == lines[3].index(" ± ")  # columns line up
  assert lines[7].split()[:9] == "ckd 360 / 101 s 1,440 / 101 s".split()
  with PIL.Image.open(folder / "accuracy_vs_calls.png") as image:
    pixels = np.asarray(image.convert("RGB")).astype(int)
  for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):  # one per method
    assert (np.abs(pixels - colour).sum(-1) == 0).sum() > 200


def test_groups_by_pair_and_label(tmp_path, capsys):
  write(tmp_path / "a", label="ckd all")
  write(tmp_path / "b", label="mean_weight=1")
  write(tmp_path / "c")
  write(tmp_path / "d", label=None, seed=1)
  write(tmp_path / "e", student="resnet20")
  write(tmp_path / "f", method="supervised", teacher_calls=0)
  groups = report.group([report.read(tmp_path / name) for name in "abcdef"])
  assert {
    pair[2]: {m: len(c[1600].figures) for m, c in methods.items()}
    for pair, methods in groups.items()
  } == {
    "resnet20": {"ckd": 1},
    "resnet8": {
      "ckd": 2,
      "ckd all": 1,
      "ckd mean_weight=1": 1,
      "supervised": 1,
    },
  }
  out = tmp_path / "deep" / "plot.png"
  report.main([str(tmp_path), f"--out={out}"])
  assert out.stat().st_size > 5_000
  assert not (tmp_path / "accuracy_vs_calls.png").exists()
  assert "note" not in capsys.readouterr().out


def test_unfinished_runs_are_named_and_repeated_seeds_noted(tmp_path, capsys):
  write(tmp_path / "a")
  write(tmp_path / "b")
  (tmp_path / "late").mkdir()
  (tmp_path / "late" / "config.json").write_text("{}")
  (tmp_path / "no run").mkdir()
  # the same runs twice are still the same runs
  report.main([str(tmp_path), str(tmp_path / "a"), str(tmp_path / "late")])
  lines = capsys.readouterr().out.splitlines()
  assert "unfinished: late" in lines
  (note,) = (line for line in lines if line.startswith("note:"))
  assert "seed 0" in note and "2 runs" in note


@pytest.mark.parametrize(
  "damage, words",
  [
    (lambda run: (run / "summary.json").write_text("{"), "not JSON"),
    (lambda run: (run / "summary.json").write_text("3"), "not JSON"),
    (lambda run: (run / "summary.json").write_text('{"seed": 1}'), "lacks"),
    *(
      (lambda run, x=x: _change(run, **x), f"lacks a usable {next(iter(x))};")
      for x in ({"test_accuracy": None}, {"budget": "all"}, {"method": 3})
    ),
    (lambda run: (run / "summary.json").write_text("[]"), "lacks"),
    (lambda run: (run / "summary.json").unlink(), "no finished run"),
    (lambda run: run.rename(run.parent / "moved"), "not a folder"),
  ],
)
def test_mistakes_are_one_line(tmp_path, damage, words):
  write(tmp_path / "run")
  damage(tmp_path / "run")
  with pytest.raises(UserError, match=words):
    report.main([str(tmp_path / "run")])


@pytest.mark.slow
def test_command_line(tmp_path):
  write(tmp_path / "run")

  def call(*arguments):
    return subprocess.run(
      [sys.executable, "-W", "error", "-m", "ckd_jax.report", *arguments],
      cwd=report.__file__.rpartition("/ckd_jax/")[0],
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )

  good = call(str(tmp_path / "run"))
  assert good.returncode == 0 and "30.00 ± - (1)" in good.stdout
  assert (tmp_path / "accuracy_vs_calls.png").exists()
  for bad in (call(), call(str(tmp_path / "run"), "--outt=x"), call("absent")):
    assert bad.returncode == 2 and bad.stdout == ""
    assert bad.stderr.startswith("ckd_jax: error: ")
    assert bad.stderr.count("\n") == 1


def test_unlike_runs_are_not_averaged(tmp_path, capsys):
  """Configs that differ in more than the seed, or in what the run is for."""
  for number, (steps, path) in enumerate(
    [(600, "a.npz"), (600, "a.npz"), (6000, "a.npz"), (600, "b.npz")]
  ):
    folder = tmp_path / "runs" / str(number)
    write(folder, seed=number, test_accuracy=30.0 + number)
    config = {"seed": number, "steps": steps, "dataset": {"path": path}}
    config["table"] = {"path": f"elsewhere-{number}"}
    (folder / "config.json").write_text(json.dumps(config))
  report.main([str(tmp_path / "runs"), f"--out={tmp_path / 'r.csv'}"])
  printed = capsys.readouterr().out
  assert "30.50" in printed and "(2)" in printed
  assert "dataset.path=a.npz steps=6000" in printed
  assert "dataset.path=b.npz steps=600" in printed
  lines = (tmp_path / "r.csv").read_text().splitlines()
  assert len(lines) == 4 and not any("elsewhere" in line for line in lines)
