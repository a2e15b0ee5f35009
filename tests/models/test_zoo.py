"""The zoo: names, shapes, and the outputs of the public PyTorch networks.

The .json and .npz files of golden/models come from RepDistiller's networks;
their weights follow the formula of `_weights`.
"""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import models, torch_weights
from ckd_jax.errors import UserError
from ckd_jax.models import linen
from ckd_jax.models.vgg import VGG
from tests.helpers.paths import GOLDEN

_GOLDEN = GOLDEN / "models"
_SHAPES = sorted(path.stem for path in _GOLDEN.glob("*.json"))
# By default: shapes of one of each family, numbers of two kinds of block.
_FAMILIES = ("model_ResNet50", "model_vgg11", "model_wrn_16_2")
_QUICK = ("model_resnet8", "model_MobileNetV2")
_COMPUTED = sorted(path.stem for path in _GOLDEN.glob("*.npz"))


def _weights(seed: int, shapes: dict) -> dict[str, np.ndarray]:
  """The PyTorch state dict that the golden files were made with."""

  def tensor(name, shape):
    rng = np.random.default_rng(zlib.crc32(f"{seed}/{name}".encode()))
    if name.endswith("num_batches_tracked"):
      return np.zeros(shape)
    if name.endswith("running_mean"):
      return rng.normal(size=shape) * 0.1
    if name.endswith("running_var"):
      return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1:
      is_weight = name.endswith("weight")
      return (
        rng.uniform(0.5, 1.5, shape)
        if is_weight
        else rng.normal(size=shape) * 0.1
      )
    return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))

  return {
    name: np.asarray(tensor(name, shape), np.float32)
    for name, shape in shapes.items()
  }


def _load(stem: str):
  """The facts of a golden file, and the network with its trees."""
  facts = json.loads((_GOLDEN / f"{stem}.json").read_text())
  weights = _weights(facts["seed"], facts["state"])
  params, state = torch_weights.convert(facts["model"], weights)
  return facts, models.get(facts["model"], facts["num_classes"]), params, state


def _outputs(model, params, state, images, train=False):
  """What the network says, as NumPy: jnp would compile once per shape."""
  run = jax.jit(lambda *trees: model.apply(*trees, train=train))
  return jax.device_get(run(params, state, images))


def _close(actual, expected, tolerance):
  """Within `tolerance` of the largest value."""
  error = np.abs(np.asarray(actual) - expected).max()
  assert error <= tolerance * np.abs(expected).max(), error


def test_names():
  assert len(_SHAPES) == 22
  assert {stem.removeprefix("model_") for stem in _SHAPES} < set(models.names())
  extra = {"cnn", "cnn_wide", "resnet20_a", "resnet32_a", "resnet44_a"}
  assert extra | {"resnet56_a"} < set(models.names())


def test_unknown_name():
  with pytest.raises(UserError, match=r"'ResNet5'.*mean 'ResNet50'"):
    models.get("ResNet5", 10)


@pytest.mark.parametrize(
  "stem",
  [  # one of each family; what is computed below has these shapes
    pytest.param(stem, marks=() if stem in _FAMILIES else pytest.mark.slow)
    for stem in _SHAPES
  ],
)
def test_shapes(stem):
  facts, model, params, state = _load(stem)
  images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
  trees = jax.eval_shape(model.init, jax.random.key(0), images)
  assert jax.tree.map(jnp.shape, trees) == jax.tree.map(
    jnp.shape, (params, state)
  )
  assert sum(x.size for x in jax.tree.leaves(params)) == facts["params"]

  def evaluate(*args):
    return model.apply(*args, train=False)

  outputs, _ = jax.eval_shape(evaluate, params, state, images)
  nchw = [[n, c, h, w] for n, h, w, c in (m.shape for m in outputs.maps)]
  assert [*nchw, list(outputs.embedding.shape)] == facts["features"]
  shapes = [preactivation.shape for preactivation in outputs.preactivations]
  assert shapes == [features.shape for features in outputs.maps]


@pytest.mark.parametrize(
  "stem",
  [
    pytest.param(stem, marks=() if stem in _QUICK else pytest.mark.slow)
    for stem in _COMPUTED
  ],
)
def test_golden(stem):
  facts, model, params, state = _load(stem)
  recorded = np.load(_GOLDEN / f"{stem}.npz", allow_pickle=False)
  images = recorded["x"].transpose(0, 2, 3, 1)
  outputs, same = _outputs(model, params, state, images)
  jax.tree.map(np.testing.assert_array_equal, same, state)
  _close(outputs.logits, recorded["logits_eval"], 1e-5)
  features = [np.transpose(x, (0, 3, 1, 2)) for x in outputs.maps]
  for i, feature in enumerate([*features, outputs.embedding]):
    expected = recorded[f"feat_{i}"]  # large ones of the first image only
    _close(feature[: len(expected)], expected, 1e-5)
  _check_preactivations(facts["model"], outputs)

  outputs, updated = _outputs(model, params, state, images, train=True)
  _close(outputs.logits, recorded["logits_train"], 1e-4)
  flat, _ = jax.tree.flatten_with_path(updated)
  updated = {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in flat
  }
  statistics = [name for name in recorded if name.startswith("stat/")]
  assert len(statistics) >= 4
  for name in statistics:
    _close(updated[name.removeprefix("stat/")], recorded[name], 1e-4)


def _check_preactivations(name, outputs):
  """How each family's preactivations and its other outputs hang together."""
  if name == "MobileNetV2":  # bottlenecks have no ReLU
    pairs = zip(outputs.maps, outputs.preactivations, strict=True)
  elif name.startswith("wrn"):  # the last norm and ReLU come after the last map
    active = np.maximum(outputs.preactivations[-1], 0)
    pairs = [(outputs.embedding, active.mean((1, 2)))]
  else:
    active = [np.maximum(x, 0) for x in outputs.preactivations]
    pairs = list(zip(outputs.maps, active, strict=True))
    if name == "ShuffleV2":  # shuffled, and one half passed the ReLU by
      pairs = pairs[:1]
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  assert all((x < 0).any() for x in outputs.preactivations[1:])


def test_the_gradient_reaches_every_parameter():
  _, model, params, state = _load("model_resnet8")
  images = np.random.default_rng(0).normal(size=(4, 16, 16, 3))

  def loss(params):
    outputs, _ = model.apply(params, state, images, train=True)
    return jnp.square(outputs.logits).mean()

  grads = jax.device_get(jax.jit(jax.grad(loss))(params))
  for path, grad in jax.tree.leaves_with_path(grads):
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path


def test_bfloat16():
  images = np.random.default_rng(0).normal(size=(4, 16, 16, 1))
  wide = models.get("cnn", 5)
  narrow = models.get("cnn", 5, dtype=jnp.bfloat16)
  trees = narrow.init(jax.random.key(0), images)
  outputs, state = _outputs(narrow, *trees, images, train=True)
  expected, _ = _outputs(wide, *trees, images, train=True)
  assert {leaf.dtype for leaf in jax.tree.leaves((trees, state))} == {
    jnp.dtype("float32")
  }
  assert outputs.logits.dtype == jnp.float32
  assert {x.dtype for x in (*outputs.maps, outputs.embedding)} == {
    jnp.dtype("bfloat16")
  }
  _close(outputs.logits, expected.logits, 0.05)


def test_vgg_initialisation():
  model = linen.model(VGG(num_classes=100, blocks=(1,)))
  params, _ = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)))
  np.testing.assert_allclose(np.std(params["classifier"]["weight"]), 0.01, 0.05)
  assert not np.any(params["classifier"]["bias"])
  assert not np.any(params["block0.0"]["bias"])


def test_own_model(tmp_path, monkeypatch):
  (tmp_path / "own_net.py").write_text(
    "from ckd_jax import models\n"
    "def good(num_classes):\n"
    "  return models.get('cnn', num_classes)\n"
    "def wrong(num_classes):\n"
    "  return num_classes\n"
    "def broken(num_classes):\n"
    "  return 1 / 0\n"
  )
  (tmp_path / "own_broken.py").write_text("import no_such_module\n")
  monkeypatch.syspath_prepend(tmp_path)
  model = models.load("own_net:good", 7)
  images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
  params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
  assert params["fc"]["bias"].shape == (7,)
  for student, message in [
    ("own_net:wrong", "is a int, which is not a network"),
    ("own_net:broken", "ZeroDivisionError"),
    ("own_net:absent", "has no function 'absent'"),
    ("own_broken:good", "no_such_module"),
    ("own_absent:good", "No module named 'own_absent'"),
    (":good", "':good'"),
    ("resnet7", "did you mean"),
  ]:
    with pytest.raises(UserError, match=message) as caught:
      models.load(student, 7)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "name",
  [
    "cnn",
    *(pytest.param(x, marks=pytest.mark.slow) for x in ("resnet8", "wrn_16_1")),
  ],
)
def test_bfloat16_is_near_float32(name):
  """Of a whole batch, in both modes, with nothing but the logits asked for."""
  r = np.random.default_rng(0)
  images = r.normal(size=(90, 16, 16, 3)).astype(np.float32)
  exact = models.get(name, 10)
  params, state = exact.init(jax.random.key(1), images)
  for train in (False, True):

    def logits(model, train=train):
      return jax.jit(
        lambda p, s, x: model.apply(p, s, x, train=train)[0].logits
      )(params, state, images)

    half = logits(models.get(name, 10, dtype=jnp.bfloat16))
    full = logits(exact)
    np.testing.assert_allclose(half, full, atol=0.05 * np.abs(full).max())
