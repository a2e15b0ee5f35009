"""Local teachers: on devices, from files, whole or pruned."""

import json
import os

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import student, table, teacher
from ckd_jax.data import ImageView
from ckd_jax.errors import UserError
from ckd_jax.methods import Model, Outputs
from tests.helpers.asking import CLASSES, answers, build


def _network() -> tuple[Model, dict, dict]:
  """A linear network whose every output tells its input apart."""

  def apply(params, state, images, *, train, key=None):
    assert not train
    embedding = images.mean(axis=(1, 2))
    logits = embedding @ params["w"] + state["shift"][None]
    return Outputs(logits, embedding, (images, images[:, ::2])), state

  params = {"w": jnp.arange(12.0).reshape(3, 4) / 7}
  return Model(None, apply), params, {"shift": jnp.ones(4)}


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
VIEW = ImageView((6, 6, 3), MEAN, STD)


def _expected(images):
  x = (images.astype(np.float64) / 255 - MEAN) / np.asarray(STD)
  return x, x.mean((1, 2)) @ (np.arange(12.0).reshape(3, 4) / 7) + 1


@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_sharded_and_padded_answers(split, batch_size):
  """The same on one device, on four, and whatever the batch."""
  model, params, state = _network()
  needs = frozenset({"logits", "embedding", "maps"})
  images, logits = _expected(split.inputs[:13])
  alone = jax.make_mesh(
    (1,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:1],
  )
  assert jax.device_count() == 4
  for mesh in (None, alone):
    asked = teacher.from_model(
      "linear",
      teacher.Network(model, params, state, VIEW),
      batch_size=batch_size,
      mesh=mesh,
      needs=needs,
    )
    found = asked.ask(split.inputs[:13])
    np.testing.assert_allclose(found.values, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.maps[1], images[:, ::2], atol=1e-5)
    assert found.maps[0].shape == (13, 6, 6, 3) and found.preactivations == ()
    bare = asked.ask(split.inputs[:2], needs=frozenset({"logits"}))
    assert bare.embedding is None and bare.maps == ()


def test_one_shape_is_compiled(split):
  traces = []
  model, params, state = _network()

  def apply(params, state, images, **options):
    traces.append(images.shape)
    return model.apply(params, state, images, **options)

  asked = teacher.from_model(
    "linear",
    teacher.Network(Model(None, apply), params, state, VIEW),
    batch_size=16,
  )
  for count in (1, 16, 40):
    asked.ask(split.inputs[:count])
  assert traces == [(16, 6, 6, 3)]


def test_a_name_tells_weights_and_normalisation_apart():
  model, params, state = _network()

  def name(params=params, state=state, mean=MEAN):
    network = teacher.Network(model, params, state, VIEW._replace(mean=mean))
    return teacher.from_model("linear", network).name

  names = {
    name(),
    name(params={"w": params["w"].at[0, 0].add(1e-6)}),
    name(state={"shift": state["shift"] + 1}),
    name(mean=(0.5, 0.4, 0.31)),
  }
  assert len(names) == 4 and name() in names


def test_white_box_table(tmp_path, split):
  """Embeddings and maps are kept; a logits-only run may share the table."""
  model, params, state = _network()
  asked = teacher.from_model(
    "linear",
    teacher.Network(model, params, state, VIEW),
    batch_size=8,
  )
  every = frozenset({"logits", "embedding", "maps"})
  build(asked, split, range(10), tmp_path / "t", needs=every)
  read, paid, _ = build(asked, split, range(20), tmp_path / "t")
  assert paid == 10
  images, logits = _expected(split.inputs[:20])
  np.testing.assert_allclose(read.answers.values, logits, rtol=2e-3, atol=2e-3)
  np.testing.assert_allclose(read.answers.maps[0], images, atol=2e-3)
  assert read.info["fields"] == ["embedding", "logits", "maps_0", "maps_1"]
  build(asked, split, range(10), tmp_path / "u")
  with pytest.raises(UserError, match="holds logits, but not maps"):
    needs = frozenset({"maps"})
    build(asked, split, range(10), tmp_path / "u", needs=needs)
  with pytest.raises(UserError, match="gives no preactivations"):
    needs = frozenset({"preactivations"})
    build(asked, split, range(10), tmp_path / "v", needs=needs)


def test_a_local_teacher_that_fails_midway(tmp_path, split):
  calls = []

  def ask(images, needs):
    calls.append(len(images))
    if len(calls) == 3:
      raise MemoryError("device")
    return table.Answers(answers(images))

  asked = teacher.Teacher("local", ask)
  with pytest.raises(MemoryError):
    build(asked, split, range(40), tmp_path)
  assert len(table.read(tmp_path).ids) == 16
  _, paid, repeated = build(asked, split, range(40), tmp_path)
  assert (paid, repeated) == (24, 0)
  assert sum(calls) == 48  # 8 of them came to nothing


@pytest.mark.torch
def test_public_checkpoint(shared):
  pytest.importorskip("torch")
  pytest.importorskip("ckd_jax.torch_weights")
  file = next((shared / "teachers/cifar10").glob("resnet20*.th"))
  asked = teacher.from_torch(
    file,
    "resnet20_a",
    view=ImageView((32, 32, 3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    batch_size=8,
  )
  data = np.load(shared / "data/cifar10_small.npz")
  found = asked.ask(data["x_test"][:10])
  assert asked.network.classes == 10
  np.testing.assert_allclose(found.values[0, 0], -5.30968, atol=1e-4)
  assert (found.values.argmax(1) == data["y_test"][:10]).mean() >= 0.8


def _save_run(folder, drop=(), **changes) -> tuple[Model, dict, dict]:
  """An untrained network as a run would leave it; JSON texts in `changes`."""
  from ckd_jax import models

  model = models.get("cnn", 5)
  params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  facts = {"model": "cnn", "classes": 5, "mean": MEAN, "std": STD}
  facts |= {"image_shape": (8, 8, 3)}
  metadata = {key: json.dumps(value) for key, value in facts.items()} | changes
  kept = {key: value for key, value in params.items() if key not in drop}
  student.save(folder / student.STUDENT, kept, state, metadata)
  return model, params, state


def test_our_run_as_teacher(tmp_path, split):
  model, params, state = _save_run(tmp_path)
  asked = teacher.from_run(tmp_path, batch_size=4)
  x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
  scaled = (x / 255 - np.asarray(MEAN)) / np.asarray(STD)
  direct, _ = model.apply(params, state, jnp.float32(scaled), train=False)
  np.testing.assert_allclose(
    asked.ask(x).values, direct.logits, rtol=1e-4, atol=1e-4
  )
  assert asked.network.classes == 5 and asked.name.startswith("run:cnn:")


@pytest.mark.parametrize(
  ("key", "text"),
  [
    *(("classes", x) for x in ("x", '"x"', "[]", "null", "0", "Infinity")),
    *(("mean", x) for x in ("3", "null", "{}", "[0.5]", '["a", 1, 2]')),
    *(("std", x) for x in ("3", "[1, 1, 0]", "[[1], [1], [1]]")),
    *(("image_shape", x) for x in ("8", "null", "[8, 8]", '["a", 8, 3]')),
  ],
)
def test_a_run_that_does_not_say_what_it_is(tmp_path, key, text):
  _save_run(tmp_path, **{key: text})
  with pytest.raises(UserError, match=r"student\.safetensors lacks"):
    teacher.from_run(tmp_path)


def test_a_run_with_the_tensors_of_another_network(tmp_path):
  wrong = r"student.safetensors are not those of {} \(.*\)"
  for drop, changes, name in (
    (("fc",), {}, "cnn"),
    ((), {"classes": "7"}, "cnn"),
    ((), {"model": '"resnet8"'}, "resnet8"),
    ((), {"image_shape": "[8, 8, 1]", "mean": "[0]", "std": "[1]"}, "cnn"),
  ):
    _save_run(tmp_path, drop, **changes)
    with pytest.raises(UserError, match=wrong.format(name)) as caught:
      teacher.from_run(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["os:system", "own_mark:make"])
def test_a_file_names_no_code(tmp_path, monkeypatch, name):
  """Only the config does: then it is called, and an exit there is one line."""
  mark = tmp_path / "mark"
  (tmp_path / "own_mark.py").write_text(
    f"open({str(mark)!r}, 'w').close()\n"
    "def make(classes):\n"
    "  raise SystemExit(f'called with {classes}')\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  called = []
  monkeypatch.setattr(os, "system", called.append)
  _save_run(tmp_path, model=json.dumps(name))
  for read in (teacher.from_run, student.load_student, student.open_student):
    with pytest.raises(UserError, match=f"names the code '{name}'"):
      read(tmp_path)
  assert not mark.exists() and not called
  with pytest.raises(UserError, match=r"called with 5|is a NoneType"):
    teacher.from_run(tmp_path, named={name})
  with pytest.raises(UserError, match=r"called with 5|is a NoneType"):
    student.load_student(tmp_path, network=name)
  assert mark.exists() or called == [5, 5]


def test_weights_that_the_run_did_not_write_are_no_teacher(tmp_path):
  """One check for all readers, before a table could be blamed."""
  _, params, state = _save_run(tmp_path)
  facts = {"params_sha256": student.params_sha256(params, state)}
  other = jax.tree.map(lambda leaf: leaf + 1, params)
  for name in ("summary.json", "config.json"):  # of a run, of an export
    folder = tmp_path / name.partition(".")[0]
    folder.mkdir()
    _save_run(folder)
    (folder / name).write_text(json.dumps(facts))
    teacher.from_run(folder)
    metadata = student.load(folder / student.STUDENT)[2]
    student.save(folder / student.STUDENT, other, state, metadata)
    for read in (teacher.from_run, student.load_student):
      with pytest.raises(UserError, match=rf"not what the run wrote.*{name}"):
        read(folder)


def test_a_flipped_bit_of_a_teacher_is_one_line(tmp_path):
  """Of weights, names, classes, mean and shape; 200 drawn at random.

  A bit of the digest's own name is without effect: the rest is as it was.
  """
  _, params, state = _save_run(tmp_path)
  _, _, facts = student.load(tmp_path / student.STUDENT)
  file = tmp_path / student.STUDENT
  whole, draw = file.read_bytes(), np.random.default_rng(0)
  header, refused = 8 + int.from_bytes(whole[:8], "little"), 0
  for low, high in ((0, header), (header, len(whole))):
    for bit in draw.integers(8 * low, 8 * high, 100):
      damaged = bytearray(whole)
      damaged[bit // 8] ^= 1 << bit % 8
      file.write_bytes(damaged)
      try:
        *trees, found = student.load(file)
      except UserError as error:
        assert "\n" not in str(error), bit
        refused += 1
        continue
      assert found.items() >= facts.items(), bit
      digest = student.params_sha256(params, state)
      assert student.params_sha256(*trees) == digest, bit
  assert refused > 190


def test_a_pruned_copy_lacks_the_smallest_weights_of_every_layer():
  def apply(params, state, images, *, train, key=None):
    flat = images.reshape(len(images), -1)
    hidden = flat @ params["first"]["weight"] + params["first"]["bias"][None]
    return Outputs(hidden @ params["last"]), state

  draw = np.random.default_rng(0)
  params = {
    "first": {
      "weight": draw.normal(size=(108, 7)).astype("f4"),
      "bias": np.full(7, 1e-6, "f4"),
    },
    "last": 100 * draw.normal(size=(7, CLASSES)).astype("f4"),
  }
  network = teacher.Network(
    Model(None, apply), params, {}, ImageView.plain(np.zeros((0, 6, 6, 3)))
  )
  whole = teacher.from_model("net", network)
  copy = teacher.pruned(whole, 0.1)
  for layer in (
    lambda tree: tree["first"]["weight"],
    lambda tree: tree["last"],
  ):
    before, after = layer(whole.network.params), layer(copy.network.params)
    gone = after == 0
    assert gone.sum() == round(0.1 * before.size) > 0
    assert np.abs(before[gone]).max() < np.abs(before[~gone]).min()
    np.testing.assert_array_equal(after[~gone], before[~gone])
  np.testing.assert_array_equal(
    copy.network.params["first"]["bias"], params["first"]["bias"]
  )
  assert copy.name.startswith(f"{whole.name}:pruned:")
  images = draw.integers(0, 256, (5, 6, 6, 3), np.uint8)
  assert not np.allclose(copy.ask(images).values, whole.ask(images).values)
  same = teacher.pruned(whole, 0.0).ask(images).values
  np.testing.assert_array_equal(same, whole.ask(images).values)


def test_a_program_is_no_teacher(tmp_path):
  """Only weights are read: a program could hold calls into the host."""
  answer = jax.jit(lambda images: images.reshape(-1, 12)[:, :5])
  shape = jax.ShapeDtypeStruct((4, 2, 2, 3), "f4")
  program = jax.export.export(answer)(shape).mlir_module_serialized
  alone, named = tmp_path / "program.bin", tmp_path / "folder"
  alone.write_bytes(program)
  named.mkdir()
  (named / student.STUDENT).write_bytes(program)
  for path in (alone, named):
    for read in (teacher.from_run, student.load_student):
      with pytest.raises(UserError, match=r"cannot read|is not a student"):
        read(path)
