"""What is trained before the main part: only what it should, and resumable."""

import pathlib

import jax
import numpy as np
import pytest
from etils import epath

from ckd_jax import assemble, budget, data, logger, methods, models, stages
from ckd_jax.answers import Answers
from ckd_jax.methods import Outputs


def prepare(monkeypatch, name):
  """A run of digits with the answers of a network that knows nothing."""
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "configs")
  import digits

  config = digits.get_config(f"method={name},budget=40,batch_size=8")
  config.hyper.update(stage_epochs=2)
  config.log_every, config.checkpoint_every = 1, 4
  dataset = data.load("digits")
  chosen = budget.select(1438, budget=40, val_fraction=0.2, seed=0)
  images = dataset.train.images[chosen.train].astype(np.float32) / 255
  teacher = models.get("cnn", 10)
  weights = teacher.init(jax.random.key(5), images)
  outputs, _ = teacher.apply(*weights, images, train=False)
  answers = Answers(Outputs(*jax.device_get(tuple(outputs))), teacher="noise")
  method = methods.make(name, **config.hyper)
  settled = assemble.plan(config, dataset, chosen, method)
  mesh = assemble.make_mesh(8)
  return config, assemble.assemble(
    config, dataset, chosen, settled, answers, mesh
  )


def same(a, b) -> bool:
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_the_trunk_moves_and_the_classifier_does_not(tmp_path, monkeypatch):
  config, fit = prepare(monkeypatch, "ab")
  before = jax.device_get(fit.state)
  after = jax.device_get(stages.run(config, fit, epath.Path(tmp_path)))
  student = after.params["student"]
  assert same(before.params["student"]["fc"], student["fc"])
  assert not same(before.params["student"]["conv1"], student["conv1"])
  assert not same(before.model, after.model)
  assert after.step == 0 and after.params["method"] == {}
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(after.optimizer))
  lines = logger.read_metrics(tmp_path / "metrics_stage_0.jsonl")
  assert [line["step"] for line in lines] == list(range(1, 9))


def test_the_student_waits_while_the_paraphraser_learns(tmp_path, monkeypatch):
  config, fit = prepare(monkeypatch, "ft")
  before = jax.device_get((fit.state, fit.stages[0].begin))
  after = jax.device_get(stages.run(config, fit, epath.Path(tmp_path)))
  assert same(before[0].params["student"], after.params["student"])
  assert same(before[0].model, after.model)
  # Its place is now in the state: no gradient, no decay.
  assert jax.tree.structure(after) == jax.tree.structure(before[0])
  assert not same(before[0].method, after.method)
  assert same(before[0].params["method"], after.params["method"])


@pytest.mark.parametrize(
  "name", ["ab", pytest.param("ft", marks=pytest.mark.slow)]
)
def test_an_interrupted_stage_ends_the_same(name, tmp_path, monkeypatch):
  whole = stages.run(
    *prepare(monkeypatch, name), epath.Path(tmp_path / "whole")
  )
  training = logger.Display.training

  def stop(display, step, metrics):
    if step == 6:
      raise KeyboardInterrupt
    training(display, step, metrics)

  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(logger.Display, "training", stop)
    stages.run(*prepare(monkeypatch, name), epath.Path(tmp_path / "cut"))
  again = stages.run(*prepare(monkeypatch, name), epath.Path(tmp_path / "cut"))
  assert same(jax.device_get(whole), jax.device_get(again))
  lines = logger.read_metrics(tmp_path / "cut" / "metrics_stage_0.jsonl")
  assert [line["step"] for line in lines] == list(range(1, 9))
