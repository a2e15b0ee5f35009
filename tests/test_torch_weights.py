"""PyTorch checkpoints: read without running them, converted, and accurate."""

import builtins
import json
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from ckd_jax import data, models, table, teacher, torch_weights
from ckd_jax.errors import UserError
from tests.helpers.paths import ROOT
from tests.helpers.torch_tensors import cnn

# Accuracy on the first 3,000 test images of CIFAR-10, in percent, as PyTorch
# measured it.
_TEACHERS = {
  "resnet20-12fca82f.th": 91.500,
  "resnet32-d509ac18.th": 92.467,
  "resnet44-014dd654.th": 93.033,
  "resnet56-4bfd9763.th": 92.633,
}


def test_convert_changes_the_layout_and_drops_the_prefix():
  tensors = cnn()
  wrapped = {f"module.{key}": value for key, value in tensors.items()}
  params, state = torch_weights.convert("cnn", wrapped, channels=1)
  kernel = np.asarray(tensors["conv2.weight"], np.float32)
  assert params["conv2"]["weight"][2, 0, 5, 9] == kernel[9, 5, 2, 0]
  classifier = np.asarray(tensors["fc.weight"], np.float32)
  np.testing.assert_array_equal(params["fc"]["weight"], classifier.T)
  variance = np.asarray(tensors["bn3.running_var"], np.float32)
  np.testing.assert_array_equal(state["bn3"]["running_var"], variance)
  assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {
    np.dtype("float32")
  }


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"conv1.weight": None}, "conv1.weight is missing"),
    ({"bn2.running_var": None}, "bn2.running_var is missing"),
    ({"extra.weight": np.ones(3)}, "extra.weight is not expected"),
    ({"conv1.weight": np.ones((16, 3, 3, 3))}, r"shape \(16, 3, 3, 3\), not"),
    ({"fc.bias": np.ones(8)}, r"fc.bias has shape \(8,\), not \(7,\)"),
    ({"fc.weight": None}, "one linear layer .* found 0"),
    ({f"x{i}": np.ones(1) for i in range(5)}, "and 2 more"),
  ],
)
def test_convert_names_what_does_not_fit(changes, message):
  tensors = {k: v for k, v in (cnn() | changes).items() if v is not None}
  with pytest.raises(UserError, match=message):
    torch_weights.convert("cnn", tensors, channels=1)


def test_load_says_how_to_get_pytorch(monkeypatch, tmp_path):
  real = builtins.__import__

  def without_torch(name, *args, **kwargs):
    if name == "torch":
      raise ImportError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", without_torch)
  with pytest.raises(UserError, match=r"pip install 'ckd_jax\[torch\]'"):
    torch_weights.load(tmp_path / "a.pth")


@pytest.mark.torch
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_load_unwraps(tmp_path, wrapper):
  torch = pytest.importorskip("torch")
  tensors = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.num_batches_tracked": torch.tensor(3),
    "half": torch.ones(2, dtype=torch.bfloat16, requires_grad=True),
  }
  path = tmp_path / "a.pth"
  torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, path)
  loaded = torch_weights.load(path)
  assert list(loaded) == list(tensors)
  assert all(type(array) is np.ndarray for array in loaded.values())
  np.testing.assert_array_equal(loaded["a.weight"], [[0, 1, 2], [3, 4, 5]])


class _Payload:
  """A pickle of this creates a file when it is read."""

  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return pathlib.Path.touch, (self.marker,)


@pytest.mark.torch
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_load_does_not_run_code(tmp_path, form):
  torch = pytest.importorskip("torch")
  path, marker = tmp_path / "a.pth", tmp_path / "marker"
  content = {"state_dict": {"a": torch.ones(2)}, "x": _Payload(marker)}
  if form == "pickle":
    path.write_bytes(pickle.dumps(content["x"]))
    pickle.loads(path.read_bytes())
  else:
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    torch.load(path, weights_only=False)
  assert marker.exists()  # the file is dangerous
  marker.unlink()
  with pytest.raises(UserError, match=r"a\.pth was refused"):
    torch_weights.load(path)
  assert not marker.exists()


@pytest.mark.torch
def test_a_pickle_is_refused_in_one_line(tmp_path):
  pytest.importorskip("torch")
  path, marker = tmp_path / "a.pth", tmp_path / "marker"
  path.write_bytes(pickle.dumps(_Payload(marker), protocol=4))
  code = (
    "from ckd_jax import errors, torch_weights;"
    f"errors.command(lambda argv: torch_weights.load(*argv), [{str(path)!r}])"
  )
  done = subprocess.run(
    [sys.executable, "-W", "default", "-c", code],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  (line,) = done.stderr.splitlines()
  assert line.startswith(f"ckd_jax: error: {path} was refused")
  assert not marker.exists()


@pytest.mark.torch
@pytest.mark.parametrize("modern", [True, False])
def test_load_refuses_damaged_and_missing_files(tmp_path, modern):
  torch = pytest.importorskip("torch")
  path = tmp_path / "a.pth"
  with pytest.raises(UserError, match="there is no file"):
    torch_weights.load(path)
  torch.save(
    {"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=modern
  )
  content = path.read_bytes()
  for length in (0, 1, 20, len(content) // 2, len(content) - 40):
    path.write_bytes(content[:length])
    with pytest.raises(UserError, match="was refused"):
      torch_weights.load(path)
  for content in ({"a": 3}, {7: torch.ones(1)}):
    torch.save(content, path)
    with pytest.raises(UserError, match="no state dict"):
      torch_weights.load(path)


@pytest.mark.torch
def test_hostile_files_are_one_line_and_take_no_memory(tmp_path):
  pytest.importorskip("torch")
  done = subprocess.run(
    [sys.executable, "-m", "tests.helpers.hostile_torch", str(tmp_path)],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  )
  assert done.returncode == 0, done.stderr
  said = json.loads(done.stdout)
  assert len(said) == 29  # as docs/reliability.md says
  read = {case for case, line in said.items() if line == "READ"}
  assert read == {"weights two dots", "weights other case"}
  for case, line in said.items():
    assert not line.startswith("RAW") and "\n" not in line, (case, line)
  assert not list(tmp_path.rglob("*evil*"))
  assert not list(pathlib.Path("/tmp").glob("ckd_jax_evil*"))


@pytest.mark.torch
def test_a_pytorch_that_can_be_misled_is_refused(tmp_path, monkeypatch):
  torch = pytest.importorskip("torch")
  torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
  old = type(torch.__version__)("2.9.1+cpu")
  monkeypatch.setattr(torch, "__version__", old)
  with pytest.raises(UserError, match=r"PyTorch 2\.9\.1.* install 'torch>=2"):
    torch_weights.load(tmp_path / "a.pth")


@pytest.mark.torch
def test_what_is_saved_beside_the_tensors_does_no_harm(tmp_path):
  """Moments, a schedule, names of types: what a training loop saves."""
  torch = pytest.importorskip("torch")
  model = torch.nn.Linear(3, 2)
  optimizer = torch.optim.Adam(model.parameters())
  rate = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4])
  content = {
    "state_dict": dict(model.named_parameters()),
    "others": [optimizer.state_dict(), rate.state_dict(), {1, 2}, 1j, b"x"],
    "types": [torch.float16, torch.Size([1]), torch.device("cpu")],
    "tensors": [torch.ones(2, dtype=x) for x in (torch.bfloat16, torch.bool)],
  }
  for modern in (True, False):
    path = tmp_path / f"{modern}.pth"
    torch.save(content, path, _use_new_zipfile_serialization=modern)
    found = torch_weights.load(path)
    np.testing.assert_array_equal(found["bias"], model.bias.detach().numpy())


@pytest.mark.torch
def test_weights_that_changed_since_they_answered_are_told(tmp_path):
  """In the older format nothing else knows of it."""
  torch = pytest.importorskip("torch")
  tensors = {key: torch.tensor(value) for key, value in cnn().items()}
  path = tmp_path / "a.pth"
  torch.save(tensors, path, _use_new_zipfile_serialization=False)
  view = data.ImageView((8, 8, 1), (0.5,), (0.5,))
  split = data.Split(
    np.zeros((9, 8, 8, 1), np.uint8),
    np.zeros(9, np.int32),
    np.asarray([f"train_{row}" for row in range(9)]),
    "f00d",
  )
  subject = table.Subject("pets", "train", split, tuple("abcdefg"))

  def ask(rows: int):
    asked = teacher.from_torch(path, "cnn", view=view, batch_size=8)
    order = teacher.Order(subject, range(rows))
    return teacher.build(asked, order, tmp_path / "table", budget=rows).paid

  assert ask(4) == 4 and ask(9) == 5
  content = path.read_bytes()
  one = cnn()["fc.weight"].tobytes()[:8]
  path.write_bytes(content.replace(one, one[:-1] + bytes([one[-1] ^ 0x80])))
  with pytest.raises(UserError, match="the same network with other weights"):
    ask(9)


@pytest.mark.torch
@pytest.mark.parametrize(
  "file",
  [
    "resnet20-12fca82f.th",
    *(
      pytest.param(file, marks=pytest.mark.slow) for file in list(_TEACHERS)[1:]
    ),
  ],
)
def test_public_teachers_keep_their_accuracy(shared, file):
  pytest.importorskip("torch")
  name = file.partition("-")[0] + "_a"
  tensors = torch_weights.load(shared / "teachers" / "cifar10" / file)
  params, state = torch_weights.convert(name, tensors)
  model = models.get(name, 10)

  mean = np.array([[[[0.485, 0.456, 0.406]]]], np.float32)
  std = np.array([[[[0.229, 0.224, 0.225]]]], np.float32)

  @jax.jit
  def predict(images):
    normal = (images.astype("float32") / 255 - mean) / std
    return model.apply(params, state, normal, train=False)[0].logits

  with np.load(shared / "data" / "cifar10_small.npz") as data:
    images, labels = data["x_test"], data["y_test"]
  logits = np.concatenate(
    [predict(x) for x in images.reshape(6, 500, 32, 32, 3)]
  )
  accuracy = 100 * (logits.argmax(-1) == labels).mean()
  print(f"\n{name}: {accuracy:.3f} %, first logit {logits[0, 0]:.5f}")
  assert abs(accuracy - _TEACHERS[file]) <= 0.05
  if name == "resnet20_a":
    np.testing.assert_allclose(logits[0, 0], -5.30968, atol=1e-4)
