"""Numbers that are not finite: found, kept, made again, skipped, gone back."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import errors, main
from ckd_jax.errors import UserError
from ckd_jax.run import context, logger
from ckd_jax.step import Rows
from tests.helpers.paths import DIGITS
from tests.helpers.runs import (
  LINEAR,
  from_table,
  interrupt_after,
  run,
)
from tests.test_sweep import swept

slow = pytest.mark.slow


def plant(monkeypatch, rows=(3,), value=np.nan):
  """The answers about these rows are no numbers, once they are on a device."""
  examples_of = context._examples

  def planted(*args):
    examples = examples_of(*args)
    (teacher,) = examples.teachers
    flat = teacher.logits.flat.at[jnp.asarray(rows)].set(value)
    logits = Rows(jax.device_put(flat, teacher.logits.flat.sharding), (10,))
    return examples._replace(teachers=(teacher._replace(logits=logits),))

  monkeypatch.setattr(context, "_examples", planted)
  monkeypatch.setattr(context, "check_finite", lambda *args: None)


def lines(folder):
  return logger.read_metrics(folder / "metrics.jsonl")


@pytest.mark.parametrize("log_every", [1000, pytest.param(1, marks=slow)])
def test_the_first_step_is_named_with_its_part_and_its_image(
  log_every, paid, tmp_path, monkeypatch, capfd
):
  """And it is made again from what was kept, with the same numbers."""
  plant(monkeypatch)
  flags, arg = from_table(paid, LINEAR, f"--config.log_every={log_every}")
  arg += ",steps=20,hyper.cross_entropy_weight=0.5"
  with pytest.raises(UserError) as raised:
    run(tmp_path / "run", *flags, arg=arg)
  said = str(raised.value)
  assert "the loss is nan at step " in said and "kd is nan" in said
  step = int(said.split("at step ")[1].split(",")[0])
  assert 1 <= step <= 5  # one of the first pass over the images
  image = said.split("the answers about ")[1].split(" are")[0]
  assert image.startswith("digits_") and "cross_entropy is" not in said
  kept = tmp_path / "run" / "bad_step"
  assert [path.name for path in kept.iterdir()] == [f"{step - 1:08d}"]
  argv = [f"--config={DIGITS}:{arg}", *flags, f"--workdir={tmp_path / 'run'}"]
  capfd.readouterr()
  assert errors.command(main.main, [*argv, "--replay"]) == 0
  shown = capfd.readouterr().out
  assert f"the loss is nan at step {step}, of the images" in shown
  assert f"the answers about {image} are not finite" in shown
  assert shown.endswith("these numbers are the same as the run's\n")
  monkeypatch.undo()  # with sound answers the step is a sound one
  assert errors.command(main.main, [*argv, "--replay"]) == 0
  assert "these numbers are not those of the run" in capfd.readouterr().out


def test_without_a_kept_step_there_is_nothing_to_replay(tmp_path, capfd):
  argv = [f"--config={DIGITS}:method=supervised,teacher.source=none"]
  argv += [f"--workdir={tmp_path / 'run'}", "--replay"]
  assert errors.command(main.main, argv) == 2
  (line,) = capfd.readouterr().err.splitlines()
  assert "no numbers of this run were found not to be finite" in line
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_gradient_alone_is_noticed_before_it_is_saved(
  paid, tmp_path, monkeypatch
):
  """The loss of the last step is finite, and there is no next one to see it."""
  from ckd_jax.methods import kd

  def slope(x):
    return jnp.sqrt(jnp.maximum(x, 0.0))  # infinite slope at 0, times 0

  loss_of = kd.make

  def make(**hyper):
    method = loss_of(**hyper)

    def loss(params, state, student, batch, key, step):
      value, rest = method.loss(params, state, student, batch, key, step)
      last = (step == 19).astype(jnp.float32)
      gap = student.logits.sum() * 0.0
      return value + last * slope(gap), rest

    return method._replace(loss=loss)

  make.__kwdefaults__ = loss_of.__kwdefaults__
  make.__signature__ = inspect.signature(loss_of)
  monkeypatch.setattr(kd, "make", make)
  flags, arg = from_table(paid, LINEAR)
  with pytest.raises(UserError) as raised:
    run(tmp_path, *flags, arg=arg)
  assert "at step 20, of the images" in str(raised.value)
  assert "the gradient of student/bias, student/weight is not" in str(
    raised.value
  )
  assert "the checkpoint of step 10 is whole" in str(raised.value)


def test_a_skipped_step_is_counted_and_changes_nothing(
  paid, tmp_path, monkeypatch
):
  """Also over a Ctrl-C and the command that goes on."""
  plant(monkeypatch)
  flags, arg = from_table(paid, LINEAR, "--config.bad_numbers=skip")
  whole = run(tmp_path / "whole", *flags, arg=arg)
  assert whole["skipped_steps"] == 4  # 20 steps are 4 passes over 80 images
  found = lines(tmp_path / "whole")
  losses = [line for line in found if "skipped" in line]
  bad = [line["step"] for line in losses if line["loss"] is None]
  assert len(bad) == 4
  assert [line["skipped"] for line in losses] == [
    sum(step <= line["step"] for step in bad) for line in losses
  ]
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 12)
    run(tmp_path / "parts", *flags, arg=arg)
  parts = run(tmp_path / "parts", *flags, arg=arg)
  assert parts["params_sha256"] == whole["params_sha256"]
  assert parts["skipped_steps"] == 4
  assert lines(tmp_path / "parts") == found


@slow
def test_skipping_costs_no_sound_run_anything(paid, tmp_path):
  digests = set()
  for name in ("raise", "skip"):
    flags, arg = from_table(paid, LINEAR, f"--config.bad_numbers={name}")
    digests.add(run(tmp_path / name, *flags, arg=arg)["params_sha256"])
  assert len(digests) == 1


@slow
def test_a_run_that_only_skips_ends(paid, tmp_path, monkeypatch):
  plant(monkeypatch, rows=range(80))
  flags, arg = from_table(
    paid, LINEAR, "--config.bad_numbers=skip", "--config.steps=300"
  )
  with pytest.raises(
    UserError, match=r"last 100 steps were skipped at step 100: "
  ):
    run(tmp_path, *flags, arg=arg)
  assert lines(tmp_path)[-1]["step"] < 120


@slow
def test_a_way_back_takes_another_order_and_ends_three_times(
  paid, tmp_path, monkeypatch
):
  """A bad row is met in any order: an honest error in the end."""
  plant(monkeypatch)
  flags, arg = from_table(paid, LINEAR, "--config.bad_numbers=rollback")
  with pytest.raises(UserError, match=r"nan at step .* after 3 ways back"):
    run(tmp_path, *flags, arg=arg)


@pytest.fixture
def met(monkeypatch) -> list[int]:
  """One bad step, while this list is empty: in the first order of rows."""
  training, met = logger.Display.training, []

  def meet_once(self, step, metrics):
    if step == 14 and not met:
      met.append(step)
      metrics = {**metrics, "loss": float("nan")}
    training(self, step, metrics)

  monkeypatch.setattr(logger.Display, "training", meet_once)
  return met


@pytest.mark.slow
def test_a_run_goes_on_after_a_way_back(paid, tmp_path, met):
  """In another order of rows; also if it is stopped on the way."""
  flags, arg = from_table(paid, LINEAR, "--config.bad_numbers=rollback")
  whole = run(tmp_path / "whole", *flags, arg=arg)
  sound = run(tmp_path / "sound", *flags, arg=arg)
  assert (whole["rollbacks"], sound["rollbacks"]) == (1, 0)
  met.clear()
  with pytest.MonkeyPatch.context() as stop, pytest.raises(KeyboardInterrupt):
    interrupt_after(stop, 17)
    run(tmp_path / "parts", *flags, arg=arg)
  assert met
  met.clear()  # it begins again in the first order, and meets it again
  parts = run(tmp_path / "parts", *flags, arg=arg)
  assert parts["params_sha256"] == whole["params_sha256"]
  first, other = lines(tmp_path / "whole"), lines(tmp_path / "sound")
  assert [x["step"] for x in first] == [x["step"] for x in other]
  assert first[:11] == other[:11] and first[11] != other[11]
  assert first == lines(tmp_path / "parts")


@slow
@pytest.mark.parametrize("how", ["together", "in_turn"])
@pytest.mark.parametrize("choice", ["skip", "rollback", "raise"])
def test_each_student_of_a_sweep_on_its_own(
  choice, how, paid, tmp_path, monkeypatch
):
  """Row 70 is bad: the student of the smaller budget has no such row."""
  plant(monkeypatch, rows=(70,))
  flags = [LINEAR, f"--config.teacher.path={paid[0]}"]
  flags += [f"--config.bad_numbers={choice}", "--over=budget=60,100"]
  if choice == "skip":
    sound, bad = swept(tmp_path, *flags, how=how, method="kd")
    assert (sound["skipped_steps"], bad["skipped_steps"]) == (0, 4)
  else:
    with pytest.raises(UserError, match=r"1 of 2 runs diverged.*budget=100"):
      swept(tmp_path, *flags, how=how, method="kd")
    (kept,) = tmp_path.glob("*/bad_step")
    assert kept.parent.name == "budget=100"
    (summary,) = tmp_path.glob("*/summary.json")
    assert summary.parent.name == "budget=60"


@slow
def test_a_sweep_together_goes_on_after_a_way_back(paid, tmp_path, met):
  flags = [LINEAR, f"--config.teacher.path={paid[0]}", "--over=seed=1,2,3"]
  flags += ["--config.bad_numbers=rollback"]
  found = swept(tmp_path, *flags, how="together", method="kd")
  assert sorted(one["rollbacks"] for one in found) == [0, 0, 1]
  assert len({one["params_sha256"] for one in found}) == 3


@slow
@pytest.mark.parametrize("choice", ["skip", "rollback", "raise"])
def test_images_that_are_streamed(choice, paid, tmp_path, monkeypatch, capfd):
  plant(monkeypatch)
  flags, arg = from_table(
    paid,
    LINEAR,
    f"--config.bad_numbers={choice}",
    "--config.dataset.placement=stream",
  )
  if choice == "skip":
    assert run(tmp_path / "run", *flags, arg=arg)["skipped_steps"] == 4
    return
  with pytest.raises(UserError, match=r"the loss is nan at step .*kd is nan"):
    run(tmp_path / "run", *flags, arg=arg)
  argv = [f"--config={DIGITS}:{arg}", *flags, f"--workdir={tmp_path / 'run'}"]
  assert errors.command(main.main, [*argv, "--replay"]) == 0
  assert "the same as the run's" in capfd.readouterr().out


@slow
@pytest.mark.parametrize("choice", ["skip", "rollback", "raise"])
def test_a_rate_that_explodes(choice, tmp_path):
  """Every order of rows explodes; skipping leaves a finite student."""
  flags = [LINEAR, "--config.optimizer.learning_rate=1e30"]
  flags += ["--config.schedule=constant", f"--config.bad_numbers={choice}"]
  arg = "steps=300,method=supervised,teacher.source=none"
  said = {
    "raise": r"too large for float32; lower optimizer",
    "rollback": r"after 3 ways back",
    "skip": r"all of the last 100 steps were skipped",
  }
  with pytest.raises(UserError, match=said[choice]):
    run(tmp_path, *flags, arg=arg)
