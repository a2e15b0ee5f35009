"""A student leaves the run bit for bit, and nothing else comes with it."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ckd_jax import export, student
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs
from ckd_jax.offset import find_bias, fold
from ckd_jax.system import sealed

METADATA = {
  "model": '"resnet8"',
  "classes": "3",
  "mean": "[0.5, 0.25, 0.125]",
  "std": "[1.0, 1.0, 1.0]",
}


def make_student():
  key = jax.random.key(0)
  params = {
    "conv": {"kernel": jax.random.normal(key, (3, 3, 2, 4))},
    "conv_1": {"kernel": jax.random.normal(key, (2,), jnp.bfloat16)},
    "mlp/~/linear": {"w": jnp.arange(6, dtype=jnp.float16).reshape(2, 3)},
    "scale": jnp.float32(-0.0),
    "empty": jnp.zeros((0, 3)),
  }
  state = {"bn": {"mean": jnp.array([jnp.nan, 1.0]), "count": jnp.int32(7)}}
  return params, state


def raw(tree):
  return jax.tree.map(
    lambda leaf: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()), tree
  )


def test_round_trip_is_bit_exact(tmp_path):
  params, state = make_student()
  path = tmp_path / "student.safetensors"
  student.save(path, params, state, METADATA)
  found_params, found_state, metadata = student.load(path)
  assert raw(found_params) == raw(params)
  assert raw(found_state) == raw(state)
  assert metadata == METADATA
  assert [p.name for p in tmp_path.iterdir()] == ["student.safetensors"]
  student.save(path, params, {}, {})
  assert student.load(path)[1:] == ({}, {})


def test_equal_students_are_equal_bytes(tmp_path):
  """Whatever the order in which their metadata were given."""
  files = set()
  for turn in range(8):
    items = list(METADATA.items())
    turned = dict(items[turn % 4 :] + items[: turn % 4])
    student.save(tmp_path / "s", *make_student(), turned)
    files.add((tmp_path / "s").read_bytes())
  assert len(files) == 1


def test_a_file_of_before_there_was_a_digest_is_read(tmp_path):
  path = tmp_path / "student.safetensors"
  safetensors.numpy.save_file({"params/b": np.ones(3, "f4")}, path, METADATA)
  params, _, metadata = student.load(path)
  assert metadata == METADATA and params["b"].shape == (3,)


def test_others_can_read_the_file(tmp_path):
  path = tmp_path / "student.safetensors"
  state = {"mean": jnp.ones(2)}
  student.save(path, {"fc": {"bias": jnp.arange(3.0)}}, state, METADATA)
  with safetensors.safe_open(path, framework="np") as file:
    assert sorted(file.keys()) == ["params/fc/bias", "state/mean"]
    np.testing.assert_array_equal(file.get_tensor("params/fc/bias"), [0, 1, 2])
    found = file.metadata()
  assert len(found.pop("sha256")) == 64
  assert found == METADATA


def test_digest_is_of_every_leaf_in_tree_order():
  params = {"b": jnp.arange(3.0), "a": {"x": jnp.ones((2, 1), jnp.bfloat16)}}
  state = {"m": jnp.int32(5)}
  text = (
    b"params/a/x bfloat16 (2, 1)\n\x80\x3f\x80\x3f"
    b"params/b float32 (3,)\n" + np.arange(3, dtype="<f4").tobytes() +
    b"state/m int32 ()\n\x05\x00\x00\x00"
  )  # fmt: skip
  wanted = hashlib.sha256(text).hexdigest()
  assert student.params_sha256(params, state) == wanted
  host = jax.tree.map(np.asarray, params)
  host["b"] = np.arange(6, dtype="f")[::2] / 2  # the same, not contiguous
  assert student.params_sha256(host, state) == wanted


def test_digest_survives_the_file_for_any_tree(tmp_path):
  params = {
    "layers": tuple(jnp.full(2, i) for i in range(12)),
    "a/b": jnp.ones(1),
  }
  student.save(tmp_path / "s", params, {}, {})
  found = student.load(tmp_path / "s")[0]
  digest = student.params_sha256(params, {})
  assert student.params_sha256(found, {}) == digest
  np.testing.assert_array_equal(found["layers"]["11"], [11, 11])


@pytest.mark.parametrize(
  "change",
  [
    lambda p: p | {"scale": jnp.float32(0.0)},  # only the sign of a zero
    lambda p: p | {"empty": jnp.zeros((3, 0))},
    lambda p: {("x" if k == "scale" else k): v for k, v in p.items()},
    lambda p: p | {"scale": jnp.int32(-(2**31))},  # the same bytes
  ],
)
def test_digest_sees_every_change(change):
  params, state = make_student()
  digest = student.params_sha256(params, state)
  assert student.params_sha256(change(params), state) != digest
  assert student.params_sha256(state, params) != digest


def test_cut_and_foreign_files_are_the_users_mistake(tmp_path):
  path = tmp_path / "student.safetensors"
  student.save(path, *make_student(), METADATA)
  whole = path.read_bytes()
  for size in [0, 4, 8, 100, len(whole) // 2, len(whole) - 1]:
    path.write_bytes(whole[:size])
    with pytest.raises(UserError, match="cut"):
      student.load(path)
  one = np.zeros(1, np.float32)
  for names in (
    ["fc.weight"],
    ["params"],
    ["optimizer/w"],
    ["params/a", "params/a/b"],
    ["params/a/b", "params/a"],
  ):
    safetensors.numpy.save_file(dict.fromkeys(names, one), path)
    with pytest.raises(UserError, match="is not a student"):
      student.load(path)
  path.write_bytes(b"\x80\x04cos\nsystem\n")  # a pickle
  with pytest.raises(UserError):
    student.load(path)
  with pytest.raises(UserError, match="cannot read"):
    student.load(tmp_path / "absent")


def apply(params, state, images, *, train, key=None):
  """A student with other vectors of the classes' size before its classifier."""
  del train, key
  x = images.reshape(len(images), -1) @ params["early"]["kernel"]
  x = jax.nn.relu(x + params["early"]["bias"][None]) * params["scale"][None]
  logits = x @ params["linear"]["kernel"]
  if "bias" in params["linear"]:
    logits = logits + params["linear"]["bias"][None]
  return Outputs(logits.astype(images.dtype)), state


def make_classifier(classes=5, dtype=jnp.float32, bias=True):
  keys = jax.random.split(jax.random.key(1), 5)
  linear = {"kernel": jax.random.normal(keys[1], (classes, classes)) * 5}
  if bias:
    linear["bias"] = jax.random.normal(keys[2], (classes,))
  params = {
    "early": {
      "kernel": jax.random.normal(keys[0], (12, classes)),
      "bias": jnp.zeros(classes),
    },
    "linear": linear,
    "scale": jnp.ones(classes),
  }
  images = jax.random.normal(keys[3], (6, 2, 2, 3)).astype(dtype)
  return jax.tree.map(lambda leaf: leaf.astype(dtype), params), images


def logits_of(images):
  def logits(params):
    outputs, _ = apply(params, {}, images, train=False)
    return np.asarray(outputs.logits, np.float32)

  return logits


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_offset_is_folded_into_the_classifier(dtype):
  params, images = make_classifier(dtype=dtype)
  path = find_bias(logits_of(images), params)
  assert path == ("linear", "bias")
  offset = jnp.array([1.0, -2.0, 0.5, 0.0, 8.0])
  folded = fold(params, offset, path)
  change = apply(folded, {}, images, train=False)[0].logits.astype(
    jnp.float32
  ) - apply(params, {}, images, train=False)[0].logits.astype(jnp.float32)
  tolerance = 1e-4 if dtype == jnp.float32 else 0.25
  np.testing.assert_allclose(
    change, np.broadcast_to(offset, change.shape), atol=tolerance
  )
  assert folded["linear"]["bias"].dtype == dtype
  folded["linear"]["bias"] = params["linear"]["bias"]
  assert raw(folded) == raw(params)  # nothing else was touched


def test_no_bias_to_fold_into():
  params, images = make_classifier(bias=False)
  with pytest.raises(UserError, match="no bias"):
    find_bias(logits_of(images), params)


@pytest.fixture
def run_dir(tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  params, state = make_student()
  student.save(run / "student.safetensors", params, state, METADATA)
  digest = student.params_sha256(params, state)
  (run / "summary.json").write_text(json.dumps({"params_sha256": digest}))
  (run / "config.json").write_text(json.dumps({"dataset": {"image_size": 8}}))
  return run


def test_exports_the_student_alone(run_dir, tmp_path, capsys):
  (run_dir / "table").mkdir()
  (run_dir / "table" / "table.json").write_text(
    json.dumps({"class_names": ["cat", "dog", "eel"]})
  )
  out = tmp_path / "deep" / "out"
  export.main([str(run_dir), f"--out={out}"])
  params, state = make_student()
  found_params, found_state, metadata = student.load(
    out / "student.safetensors"
  )
  assert raw((found_params, found_state)) == raw((params, state))
  assert metadata == METADATA
  digest = student.params_sha256(params, state)
  assert digest in capsys.readouterr().out
  config = json.loads((out / "config.json").read_text())
  assert sealed.is_sealed(config)
  del config["sha256"]
  assert config == {
    "model": "resnet8",
    "classes": 3,
    "class_names": ["cat", "dog", "eel"],
    "mean": [0.5, 0.25, 0.125],
    "std": [1.0, 1.0, 1.0],
    "image_size": 8,
    "image_shape": [8, 8, 3],
    "params_sha256": digest,
  }
  assert (out / "labels.txt").read_text() == "cat\ndog\neel\n"
  assert len(list(out.iterdir())) == 3
  export.main([str(run_dir), f"--out={out}"])  # again
  file = out / "config.json"
  file.write_text(file.read_text().replace("dog", "dig"))
  with pytest.raises(UserError, match=r"config\.json is damaged"):
    student.load(out / "student.safetensors")


def test_metadata_come_before_the_files_of_the_run(run_dir, tmp_path):
  names = ["a", "b", "ü"]
  facts = {"class_names": json.dumps(names), "image_shape": "[4, 4, 1]"}
  metadata = METADATA | facts | {"model": "plain"}
  path = run_dir / "student.safetensors"
  student.save(path, *make_student(), metadata)
  export.run(run_dir, tmp_path / "out")
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert config["class_names"] == names and config["model"] == "plain"
  assert config["image_size"] == 4
  labels = (tmp_path / "out" / "labels.txt").read_text(encoding="utf-8")
  assert labels == "a\nb\nü\n"


def test_classes_without_names_are_numbers(run_dir, tmp_path):
  export.run(run_dir, tmp_path / "out")
  assert (tmp_path / "out" / "labels.txt").read_text() == "0\n1\n2\n"


@pytest.mark.parametrize(
  ("file", "text"),
  [
    ("summary.json", "[]"),
    ("summary.json", "null"),
    ("summary.json", '{"params_sha256": 3}'),
    ("config.json", "[]"),
    ("config.json", '{"dataset": null}'),
    ("table/table.json", "[3]"),
    ("table/table.json", '{"class_names": 3}'),
  ],
)
def test_damaged_files_of_a_run_are_one_line(run_dir, tmp_path, file, text):
  (run_dir / "table").mkdir()
  (run_dir / file).write_text(text)
  with pytest.raises(UserError, match="run it again"):
    export.run(run_dir, tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "facts",
  [
    {"classes": "x"},
    {"classes": "[]"},
    {"class_names": "3"},
    {"image_shape": "8"},
    {"image_shape": "[]"},
    {"image_shape": "{}"},
  ],
)
def test_damaged_metadata_are_one_line(run_dir, tmp_path, facts):
  student.save(
    run_dir / "student.safetensors", *make_student(), METADATA | facts
  )
  with pytest.raises(UserError, match="run it again"):
    export.run(run_dir, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_mistakes(run_dir, tmp_path):
  out = tmp_path / "out"
  with pytest.raises(UserError, match="folder of a run"):
    export.run(run_dir, run_dir)
  with pytest.raises(UserError, match="no finished run"):
    export.run(tmp_path / "absent", out)
  with pytest.raises(UserError, match="--out"):
    export.main([str(run_dir)])
  with pytest.raises(UserError, match="--out names no folder"):
    export.main([str(run_dir), "--out="])
  path = run_dir / "student.safetensors"
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  with pytest.raises(UserError, match="not what the run wrote"):
    export.run(run_dir, out)
  path.unlink()
  with pytest.raises(UserError, match="cannot read"):
    export.run(run_dir, out)
  assert not out.exists()  # nothing half done
