"""A sweep consists of ordinary runs, also where they are trained together."""

import json

import numpy as np
import pytest
import safetensors.numpy

from ckd_jax import errors, sweep
from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint, logger, together
from tests.helpers.paths import DIGITS
from tests.helpers.runs import LINEAR, QUICK


def swept(workdir, *flags, how, method="ckd"):
  arg = f"{QUICK}method={method},teacher.source=table"
  return sweep.run(
    *sweep.read(
      [
        f"--config={DIGITS}:{arg}",
        f"--workdir={workdir}",
        f"--how={how}",
        *flags,
      ]
    )
  )


def students(folder):
  return {
    path.parent.name: safetensors.numpy.load_file(path)
    for path in folder.glob("*/student.safetensors")
  }


PLATEAU = (
  "--config.schedule=plateau",
  "--config.schedule_hyper.patience=2",
  "--config.schedule_hyper.levels=2",
  "--config.steps=100",
)
SEEDS = ("--over=seed=1,2", "--over=budget=60,100")
RATES = ("--over=optimizer.learning_rate=0.1,0.05",)
CASES = {
  "seeds and budgets": (*SEEDS, "--config.hyper.offset=none"),
  "rates and a plateau": (*RATES, *PLATEAU),
  "groups drawn once": (*SEEDS, "--config.hyper.estimator=groups"),
}


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(case, marks=() if "rates" in case else pytest.mark.slow)
    for case in CASES
  ],
)
def test_together_they_are_the_runs_that_they_are_alone(case, paid, tmp_path):
  flags = [LINEAR, f"--config.teacher.path={paid[0]}", *CASES[case]]
  if "groups" in case:
    flags += ["--config.hyper.max_groups=500", "--config.hyper.offset=none"]
  alone = swept(tmp_path / "alone", *flags, how="in_turn")
  crew = swept(tmp_path / "crew", *flags, how="together")
  assert len(alone) == len(crew) == (2 if "rates" in case else 4)
  for one, other in zip(alone, crew, strict=True):
    for key in ("seed", "budget", "label", "steps", "teacher_calls"):
      assert one[key] == other[key], key
    assert abs(one["val_accuracy"] - other["val_accuracy"]) < 6
  ours, theirs = students(tmp_path / "alone"), students(tmp_path / "crew")
  assert ours.keys() == theirs.keys() and len(ours) == len(alone)
  for name, weights in ours.items():
    for leaf, value in weights.items():
      np.testing.assert_allclose(
        theirs[name][leaf], value, rtol=1e-3, atol=1e-4
      )
    lines = [
      logger.read_metrics(tmp_path / part / name / "metrics.jsonl")
      for part in ("alone", "crew")
    ]
    assert [x["step"] for x in lines[0]] == [x["step"] for x in lines[1]]
  different = {str(one["params_sha256"]) for one in crew}
  assert len(different) == len(crew)  # or nothing would vary


@pytest.mark.slow
def test_both_ways_are_measured_where_tables_differ(
  paid, tmp_path, monkeypatch, capsys
):
  """Two groups of two students, on devices that were divided among four."""
  monkeypatch.setattr("ckd_jax.step.state._ROWS", 64)
  monkeypatch.setitem(
    sweep.TRAINERS,
    "auto",
    lambda runs: together.train_faster(runs, sweep.in_turn),
  )
  flags = [LINEAR, f"--config.teacher.path={paid[0]}", *SEEDS]
  ended = swept(tmp_path, *flags, how="auto", method="kd")
  assert len({one["params_sha256"] for one in ended}) == 4
  assert capsys.readouterr().out.count("a student's launch takes") == 2


@pytest.mark.slow
def test_what_turns_out_to_be_streamed_is_trained_in_turn(
  paid, tmp_path, monkeypatch
):
  monkeypatch.setattr("ckd_jax.run.context.streams", lambda *images: True)
  monkeypatch.setitem(
    sweep.TRAINERS,
    "auto",
    lambda runs: together.train_faster(runs, sweep.in_turn),
  )
  flags = [LINEAR, f"--config.teacher.path={paid[0]}", "--over=seed=1,2"]
  with pytest.raises(UserError, match="--how=in_turn"):
    swept(tmp_path, *flags, how="together", method="kd")
  ended = swept(tmp_path, *flags, how="auto", method="kd")
  assert len({one["params_sha256"] for one in ended}) == 2


@pytest.mark.slow
def test_a_sweep_resumes_and_ends_the_same(paid, tmp_path, monkeypatch):
  flags = [LINEAR, f"--config.teacher.path={paid[0]}", "--over=seed=1,2,3"]
  whole = swept(tmp_path / "whole", *flags, how="together")
  log = logger.Logger.log

  def stop(self, step, **metrics):
    if step > 12:
      raise KeyboardInterrupt
    log(self, step, **metrics)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(logger.Logger, "log", stop)
    swept(tmp_path / "parts", *flags, how="together")
  parts = swept(tmp_path / "parts", *flags, how="together")
  for one, other in zip(whole, parts, strict=True):
    assert one["params_sha256"] == other["params_sha256"]
  again = swept(tmp_path / "parts", *flags, how="together")
  assert [x["params_sha256"] for x in again] == [
    x["params_sha256"] for x in parts
  ]


@pytest.mark.slow
@pytest.mark.parametrize("saves", [3, 1])
def test_a_kill_between_two_saves_takes_nobody_out_of_the_program(
  saves, paid, tmp_path, monkeypatch
):
  """One student alone can be rounded otherwise than two: they go back."""
  flags = (LINEAR, f"--config.teacher.path={paid[0]}", "--over=seed=1,2")
  save, left = checkpoint.save, [None] * saves

  def stop(*args, **options):
    if not left:
      raise KeyboardInterrupt
    left.pop()
    save(*args, **options)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(checkpoint, "save", stop)
    swept(tmp_path, *flags, how="together", method="kd")
  folders = [tmp_path / f"seed={seed}" for seed in (1, 2)]
  steps = [checkpoint.latest(folder / "checkpoints") for folder in folders]
  assert steps == [5 * (saves + 1), 5 * (saves - 1) or None]
  vmapped, sizes = together.vmapped, []

  def counted(contexts, states):
    sizes.append(len(contexts))
    return vmapped(contexts, states)

  monkeypatch.setattr(together, "vmapped", counted)
  swept(tmp_path, *flags, how="together", method="kd")
  assert sizes == [2]
  for folder in folders:
    lines = logger.read_metrics(folder / "metrics.jsonl")
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["together", "in_turn"])
def test_one_that_diverges_leaves_the_others(how, paid, tmp_path):
  flags = [
    LINEAR,
    f"--config.teacher.path={paid[0]}",
    "--over=optimizer.learning_rate=0.1,1e30",
  ]
  with pytest.raises(UserError, match=r"1 of 2 runs diverged.*1e30"):
    swept(tmp_path, *flags, how=how)
  (summary,) = tmp_path.glob("*/summary.json")
  assert "0.1" in summary.parent.name
  assert json.loads(summary.read_text())["test_accuracy"] > 50


@pytest.mark.slow
def test_what_is_asked_is_asked_once(teacher_run, tmp_path):
  results = sweep.run(
    *sweep.read(
      [
        f"--config={DIGITS}:{QUICK}method=kd,teacher.source=checkpoint",
        LINEAR,
        f"--config.teacher.path={teacher_run}",
        f"--workdir={tmp_path}",
        "--over=budget=60,100",
        "--over=seed=1,2",
      ]
    )
  )
  assert [one["teacher_calls"] for one in results] == [48, 48, 80, 80]
  assert sum(one["paid_calls"] for one in results) == 80


def test_a_student_of_a_finished_run_that_is_not_whole_is_told(tmp_path):
  """Nothing else is trained; without its summary the run is made again."""
  arg = f"{QUICK}method=supervised,teacher.source=none,steps=2,eval_every=2"
  argv = [f"--config={DIGITS}:{arg}", LINEAR, f"--workdir={tmp_path}"]

  def again(seeds):
    return sweep.run(*sweep.read([*argv, f"--over=seed={seeds}"]))

  (wanted,) = again("1")
  file = tmp_path / "seed=1" / "student.safetensors"
  whole = file.read_bytes()
  file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  with pytest.raises(UserError, match="is not what the run wrote"):
    again("1,2")
  file.unlink()
  with pytest.raises(UserError, match="seed=1 is finished, and its student"):
    again("1,2")
  assert not (tmp_path / "seed=2").exists()
  (tmp_path / "seed=1" / "summary.json").unlink()
  (found,) = again("1")
  assert found["params_sha256"] == wanted["params_sha256"]
  assert file.read_bytes() == whole


def test_crews_hold_what_can_share_a_program():
  config = f"--config={DIGITS}:{QUICK}"
  flags = ["--over=seed=1,2,3,4,5", "--over=batch_size=16,8"]
  runs, how, at_once = sweep.read([config, *flags, "--at_once=3"])
  assert (how, at_once, len(runs)) == ("auto", 3, 10)
  sizes = [len(crew) for crew in sweep.groups(runs, "together", 3)]
  assert sorted(sizes) == [2, 2, 3, 3]
  assert len(sweep.groups(runs, "in_turn", 3)) == 10


@pytest.mark.parametrize(
  "flags, why",
  [
    (["--config.batch_norm=device"], "batch_norm=device"),
    (["--config.dataset.placement=stream"], "dataset.placement=stream"),
    (["--config.teacher.live=True"], "teacher.live"),
    ([], "stages of ab"),
  ],
)
def test_what_cannot_share_a_program_is_said_once(
  flags, why, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(
    sweep,
    "in_turn",
    lambda runs: [(name, {"test_accuracy": 0.0}) for name in runs],
  )
  method = "kd" if flags else "ab"
  runs, *_ = sweep.read(
    [
      f"--config={DIGITS}:{QUICK}method={method}",
      f"--workdir={tmp_path}",
      "--over=seed=1,2",
      *flags,
    ]
  )
  assert not any(map(sweep.can_share, runs.values()))
  for how, count in (("together", 1), ("in_turn", 0), ("auto", 0)):
    sweep.run(runs, how, 16)
    said = f"in turn: {why} cannot share a program\n"
    assert capsys.readouterr().out.count(said) == count


def test_labels_tell_variants_apart():
  flags = ["--over=seed+budget_seed=1,2", "--over=optimizer.momentum=0.9,0.5"]
  runs, *_ = sweep.read([f"--config={DIGITS}:{QUICK}", *flags])
  labels = [config.label for config in runs.values()]
  assert labels == ["momentum=0.9", "momentum=0.5"] * 2
  assert [config.budget_seed for config in runs.values()] == [1, 1, 2, 2]


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ("", "nothing to vary"),
    ("--over=seed", "KEY=VALUE"),
    ("--over=seed=1,1", "twice"),
    ("--over=sed=1,2", "'seed'"),
    ("--over=seed=1,x", "int"),
    ("--over=seed=1 --how=togethr", "'together'"),
    ("--over=seed=1 --at_once=0", "whole number"),
    ("--over=budget=0,1", "budget"),
  ],
)
def test_mistakes_are_one_line(flags, words, capfd):
  argv = [f"--config={DIGITS}", *flags.split()]
  assert errors.command(sweep.main, argv) == 2
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith("ckd_jax: error:") and words in line


def test_the_parts_of_a_stack():
  trees = [{"a": np.full((2, 3), float(i))} for i in range(4)]
  stacked = together.stack(trees, None)
  np.testing.assert_array_equal(together.take(stacked, 2)["a"], trees[2]["a"])
  changed = together.replace(stacked, 1, {"a": np.full((2, 3), 9.0)})
  assert changed["a"][:, 0, 0].tolist() == [0, 9, 2, 3]


def test_a_method_comes_with_its_own_hyper_parameters(tmp_path):
  runs, _, _ = sweep.read(
    [
      f"--config={DIGITS}:{QUICK}method=kd,teacher.source=none",
      "--config.teacher.source=table",
      "--config.teacher.path=answers",
      f"--workdir={tmp_path}",
      "--over=method=kd,ckd,dkd",
      "--over=seed=1,2",
    ]
  )
  found = {(one.method, one.seed): one for one in runs.values()}
  assert len(found) == 6
  assert found["ckd", 1].hyper.estimator == "all"  # as configs/digits.py has it
  assert found["dkd", 2].hyper.beta == 8.0
  assert set(found["kd", 1].hyper) == {
    "cross_entropy_weight",
    "kd_weight",
    "temperature",
  }
  for one in runs.values():  # the report tells methods and seeds apart
    assert (one.label, one.steps, one.budget) == ("", 20, 100)


@pytest.mark.parametrize("value", ["teacher.path=0.0", f"seed={'[' * 5000}"])
def test_a_value_of_another_type_is_one_line(value):
  with pytest.raises(UserError, match=r"must be a path|should be int"):
    sweep.read([f"--config={DIGITS}:method=kd", f"--over={value}"])
