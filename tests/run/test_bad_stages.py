"""Numbers of a stage that are not finite: named, kept, skipped, gone back."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ckd_jax import errors, main
from ckd_jax.errors import UserError
from ckd_jax.run import logger, train
from tests.helpers.paths import DIGITS
from tests.helpers.runs import (
  CNN,
  LINEAR_TEACHER,
  QUICK,
  interrupt_after,
  read,
  run,
)

pytestmark = pytest.mark.slow


def lines(folder, name="metrics.jsonl"):
  return logger.read_metrics(folder / name)


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


STAGED = QUICK + "teacher.source=checkpoint,method="


def of_stage(method: str, teacher, *flags: str, epochs: int = 2):
  """Flags and overrides of a run that begins with a stage of 5 steps each."""
  arg = f"{STAGED}{method},hyper.stage_epochs={epochs}"
  return (
    [CNN, LINEAR_TEACHER, f"--config.teacher.path={teacher}", *flags],
    arg,
  )


def poison(monkeypatch, method: str, *bad: int) -> None:
  """The loss of these steps of the method's stage is NaN; 0 is the first."""
  module = importlib.import_module(f"ckd_jax.methods.{method}")
  make_sound = module.make

  def make(**hyper):
    made = make_sound(**hyper)
    (stage,) = made.stages

    def loss(params, state, student, batch, key, step):
      value, rest = stage.loss(params, state, student, batch, key, step)
      is_bad = jnp.isin(step, jnp.asarray(bad))
      return value * jnp.where(is_bad, jnp.nan, 1.0), rest

    return made._replace(stages=(stage._replace(loss=loss),))

  make.__kwdefaults__ = make_sound.__kwdefaults__
  make.__signature__ = inspect.signature(make_sound)
  monkeypatch.setattr(module, "make", make)


@pytest.mark.parametrize("method", ["fsp", "ab", "ft"])
def test_the_first_bad_step_of_a_stage_is_named_and_made_again(
  method, fitted, tmp_path, monkeypatch, capfd
):
  poison(monkeypatch, method, 6, 7, 8)
  flags, arg = of_stage(
    method, fitted[1], "--config.log_every=1000", "--config.checkpoint_every=5"
  )
  with pytest.raises(UserError) as raised:
    run(tmp_path / "run", *flags, arg=arg)
  said = str(raised.value)
  assert said.startswith(
    "stage 1: the loss is nan at step 7, of the images dig"
  )
  assert "the gradient of " in said and "\n" not in said
  assert "the checkpoint of step 5 of stage 1 is whole" in said
  ready = train.prepare(read(*flags, arg=arg), epath.Path(tmp_path / "run"))
  key = jax.random.fold_in(ready.context.key, 0)  # of the first stage
  plan, memory = ready.plan, ready.context.state.method
  rows = plan.method.sample(key, jnp.int32(6), plan.recipe.task, memory)
  ids = ready.dataset.train.ids[plan.rows.train][np.asarray(rows).ravel()]
  assert f"of the images {', '.join(ids[:5])} and" in said
  kept = tmp_path / "run" / "bad_step"
  assert [path.name for path in kept.iterdir()] == ["00000006"]
  argv = [f"--config={DIGITS}:{arg}", *flags, f"--workdir={tmp_path / 'run'}"]
  capfd.readouterr()
  assert errors.command(main.main, [*argv, "--replay"]) == 0
  shown = capfd.readouterr().out
  assert said.split("; lower")[0] in shown
  assert shown.endswith("these numbers are the same as the run's\n")


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_a_skipped_step_of_a_stage_is_counted(
  placement, fitted, tmp_path, monkeypatch
):
  """In its metrics and in the summary; also after a Ctrl-C in the main part."""
  poison(monkeypatch, "fsp", 3, 6)
  flags, arg = of_stage("fsp", fitted[1], "--config.bad_numbers=skip")
  flags += [f"--config.dataset.placement={placement}"]
  whole = run(tmp_path / "whole", *flags, arg=arg)
  assert whole["skipped_steps"] == 2
  found = lines(tmp_path / "whole", "metrics_stage_0.jsonl")
  assert [x["skipped"] for x in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
  assert [x["step"] for x in found if x["loss"] is None] == [4, 7]
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 12)
    run(tmp_path / "parts", *flags, arg=arg)
  parts = run(tmp_path / "parts", *flags, arg=arg)
  assert parts["params_sha256"] == whole["params_sha256"]
  assert parts["skipped_steps"] == 2
  assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_a_stage_goes_on_after_a_way_back(fitted, tmp_path, met):
  """And the main part in the same order, stopped before its checkpoint, too."""
  rollback = "--config.bad_numbers=rollback"
  flags, arg = of_stage("fsp", fitted[1], rollback, epochs=3)
  whole = run(tmp_path / "whole", *flags, arg=arg)
  sound = run(tmp_path / "sound", *flags, arg=arg)
  assert (whole["rollbacks"], sound["rollbacks"]) == (1, 0)
  first, other = (
    lines(tmp_path / name, "metrics_stage_0.jsonl")
    for name in ("whole", "sound")
  )
  assert [x["step"] for x in first] == list(range(1, 16))
  assert first[:10] == other[:10] and first[10] != other[10]
  met.clear()
  log = logger.Logger.log

  def stop(self, step, **metrics):
    if self._path.name == "metrics.jsonl" and step > 3:
      raise KeyboardInterrupt
    log(self, step, **metrics)

  with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(logger.Logger, "log", stop)
    run(tmp_path / "parts", *flags, arg=arg)
  parts = run(tmp_path / "parts", *flags, arg=arg)
  assert parts["params_sha256"] == whole["params_sha256"]
  assert parts["rollbacks"] == 1
  assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


@pytest.mark.parametrize("method", ["fsp", "ab", "ft"])
@pytest.mark.parametrize("choice", ["skip", "rollback", "raise"])
def test_a_rate_of_a_stage_that_explodes(
  choice, method, fitted, tmp_path, capfd
):
  """Or leaves weights so large that the main part's first step shows it."""
  flags, arg = of_stage(method, fitted[1], f"--config.bad_numbers={choice}")
  flags += ["--config.hyper.stage_learning_rate=1e38"]
  said = {
    "raise": r"the loss is .* at step \d+, of the images ",
    "rollback": r"the loss .* after 3 ways back; lower",
    "skip": r"all of the last \d+ steps were skipped at step \d+: .*loss is",
  }
  with pytest.raises(UserError, match=said[choice]) as met:
    run(tmp_path / "run", *flags, arg=arg)
  its_own = "stage 1" in str(met.value)
  key = "hyper.stage_learning_rate" if its_own else "optimizer.learning_rate"
  assert f"lower {key}" in str(met.value)
  argv = [f"--config={DIGITS}:{arg}", *flags, f"--workdir={tmp_path / 'run'}"]
  assert errors.command(main.main, [*argv, "--replay"]) == 0
  assert "the same as the run's" in capfd.readouterr().out
