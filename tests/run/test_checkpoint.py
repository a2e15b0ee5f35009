"""A checkpoint comes back bit for bit, or an older one does."""

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint, selection
from tests.helpers.checkpoints import (
  assert_same,
  bits,
  flip,
  make_state,
)
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("abstract", [False, True])
def test_round_trip_is_bit_exact(tmp_path, abstract):
  state = make_state(3)
  notes = {"best": 31.25, "history": [1, None, "x"], "worst": float("-inf")}
  checkpoint.save(tmp_path / "deep" / "er", 12, state, notes)
  other = make_state(4)
  like = jax.eval_shape(lambda: other) if abstract else other
  step, found, found_notes = checkpoint.restore(tmp_path / "deep" / "er", like)
  assert (step, found_notes) == (12, notes)
  assert_same(found, state)
  draw = jax.random.normal(found.key, (3,))  # a key that works, not just bits
  np.testing.assert_array_equal(draw, jax.random.normal(state.key, (3,)))


def test_a_checkpoint_from_before_snapshots_were_records(tmp_path):
  """Then the best weights were a dict; the names of the leaves are the same."""
  fields = {
    "params": {"w": np.arange(6.0)},
    "model": {"mean": np.ones(3)},
    "offset": np.arange(3, dtype=np.float32),
  }
  checkpoint.save(tmp_path, 1, {"best": {"fit": fields}}, {})
  wanted = {"best": {"fit": selection.Snapshot(**fields)}}
  _, found, _ = checkpoint.restore(tmp_path, wanted)
  assert isinstance(found["best"]["fit"], selection.Snapshot)
  assert_same(found, wanted)


def test_numpy_leaves_come_back_as_numpy(tmp_path):
  state = {"float64": np.arange(3.0), "int": np.int64(2) ** 40}
  checkpoint.save(tmp_path, 0, state, {})
  _, found, _ = checkpoint.restore(tmp_path, state)
  assert {type(leaf) for leaf in found.values()} == {np.ndarray}
  assert_same(found, jax.tree.map(np.asarray, state))


def test_restores_onto_the_sharding_of_like(tmp_path):
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
  split = NamedSharding(mesh, PartitionSpec("data"))
  whole = NamedSharding(mesh, PartitionSpec())
  checkpoint.save(
    tmp_path, 1, {"a": np.arange(8.0, dtype="f"), "k": jax.random.key(1)}, {}
  )
  like = {
    "a": jax.device_put(jnp.zeros(8), split),
    "k": jax.device_put(jax.random.key(0), whole),
  }
  _, found, _ = checkpoint.restore(tmp_path, like)
  assert found["a"].sharding == split
  assert len(found["k"].sharding.device_set) == 4
  np.testing.assert_array_equal(found["a"], np.arange(8))
  checkpoint.save(tmp_path, 2, found, {})  # and from sharded arrays
  assert_same(checkpoint.restore(tmp_path, like)[1], found)


def test_buffers_may_be_donated_after_the_save(tmp_path):
  state = {"w": jnp.arange(100_000.0)}
  wanted = np.array(state["w"])
  checkpoint.save(tmp_path, 1, state, {})
  step = jax.jit(lambda s: jax.tree.map(lambda x: x * -3, s), donate_argnums=0)
  jax.block_until_ready(step(state))
  _, found, _ = checkpoint.restore(tmp_path, {"w": jnp.zeros(100_000)})
  np.testing.assert_array_equal(found["w"], wanted)


def test_every_flipped_bit_is_found_and_the_older_step_restored(
  tmp_path, caplog
):
  rng = np.random.default_rng(0)
  state = make_state(1)
  checkpoint.save(tmp_path, 1, state, {"at": 1})
  checkpoint.save(tmp_path, 2, make_state(2), {"at": 2})
  newest, corrupt = tmp_path / "00000002", tmp_path / "00000002.corrupt"
  files = bits(newest)
  assert len(files) > 5
  for number in range(max(40, 3 * len(files))):
    path, size = files[number % len(files)]
    bit = int(rng.integers(size))
    flip(path, bit)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      step, found, notes = checkpoint.restore(tmp_path, state)
    assert (step, notes) == (1, {"at": 1}), (path, bit)
    assert_same(found, state)
    (record,) = caplog.records
    assert "00000002" in record.message and "\n" not in record.message
    assert corrupt.is_dir() and not newest.exists()
    corrupt.rename(newest)
    flip(path, bit)
  assert checkpoint.restore(tmp_path, state)[0] == 2  # whole again


def damage_half(folder):
  path = max(folder.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_lost_file(folder):
  next(folder.rglob("_METADATA")).unlink()


def damage_empty_manifest(folder):
  (folder / "manifest.json").write_bytes(b"")


def forge_manifest(folder, change):
  """Another manifest, with a right digest."""
  file = folder / "manifest.json"
  facts = json.loads(file.read_text().rpartition("\n}")[0] + "}")
  text = json.dumps(change(facts))
  digest = hashlib.sha256(text.encode()).hexdigest()
  file.write_text(f"{text}\n{digest}\n")


def forge_step(folder):
  forge_manifest(folder, lambda facts: facts | {"step": None})


def forge_list(folder):
  forge_manifest(folder, lambda facts: [facts])


def forge_leaves(folder):
  forge_manifest(folder, lambda facts: facts | {"leaves": 3})


@pytest.mark.parametrize(
  "damage",
  [
    damage_half,
    damage_lost_file,
    damage_empty_manifest,
    forge_step,
    forge_list,
    forge_leaves,
  ],
)
def test_other_damage(tmp_path, damage, caplog):
  state = make_state()
  for step in (1, 2, 3):  # the last one is left alone
    checkpoint.save(tmp_path, step, state, {}, keep=3)
  (tmp_path / "00000002.corrupt").mkdir()  # of an earlier accident
  damage(tmp_path / "00000002")
  assert checkpoint.restore(tmp_path, state, at_most=2)[0] == 1
  damage(tmp_path / "00000001")
  assert checkpoint.restore(tmp_path, state, at_most=2) is None
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "00000001.corrupt",
    "00000002.corrupt",
    "00000003",
  ]
  first, second = (record.message for record in caplog.records)
  assert first.endswith("renamed 00000002.corrupt, trying the one before")
  assert second.endswith("00000001.corrupt, and there is none before it")


def test_strays_are_ignored(tmp_path):
  state = make_state()
  assert checkpoint.restore(tmp_path / "absent", state) is None
  assert checkpoint.restore(tmp_path, state) is None
  checkpoint.save(tmp_path, 5, state, {})
  for name in ("7", "notes", "00000009", "00000011.corrupt", "٠٠٠٠٠٠٠٨"):
    (tmp_path / name).mkdir()
  (tmp_path / "00000010").write_text("a file")
  (tmp_path / "00000005" / ".DS_Store").write_text("a stray inside")
  shutil.copytree(
    tmp_path / "00000005" / "arrays", tmp_path / "00000006/arrays"
  )
  assert checkpoint.restore(tmp_path, state)[0] == 5
  checkpoint.save(tmp_path, 9, state, {})  # over an unfinished save
  assert checkpoint.restore(tmp_path, state)[0] == 9
  assert (tmp_path / "notes").is_dir()


def test_keeps_the_newest(tmp_path):
  state = {"w": jnp.zeros(3)}
  for step in (1, 5, 9, 9, 100_000_000):
    checkpoint.save(tmp_path, step, state, {"step": step}, keep=2)
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ["00000009", "100000000"]
  for step in (10, 11, 12):
    checkpoint.save(tmp_path / "five", step, state, {}, keep=5)
  (tmp_path / "five" / "00000013").mkdir()  # unfinished: does not count
  checkpoint.save(tmp_path / "five", 14, state, {}, keep=4)
  names = sorted(path.name for path in (tmp_path / "five").iterdir())
  assert names == ["00000010", "00000011", "00000012", "00000014"]
  shutil.rmtree(tmp_path / "five")
  checkpoint.save(tmp_path, 100_000_001, state, {}, keep=1)
  assert [path.name for path in tmp_path.iterdir()] == ["100000001"]


@pytest.mark.parametrize(
  "like, words",
  [
    ({"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, ["'w'", "[2,3]", "[3,2]"]),
    ({"w": jnp.zeros((2, 3))}, ["'b'", "absent here"]),
    (
      {"w": jnp.zeros((2, 3)), "b": jnp.zeros(2), "c": jnp.zeros(1)},
      ["'c'", "absent there"],
    ),
    (
      {"w": jnp.zeros((2, 3)), "b": jnp.zeros(2, jnp.bfloat16)},
      ["float32[2]", "bfloat16[2]"],
    ),
    (
      {"w": jnp.zeros((2, 3)), "b": jax.ShapeDtypeStruct((2,), jnp.int32)},
      ["int32[2]"],
    ),
  ],
)
def test_another_structure_is_the_users_mistake(tmp_path, like, words):
  checkpoint.save(tmp_path, 1, {"w": jnp.zeros((2, 3)), "b": jnp.ones(2)}, {})
  with pytest.raises(UserError) as error:
    checkpoint.restore(tmp_path, like)
  assert all(word in str(error.value) for word in [*words, "--workdir"])
  assert "\n" not in str(error.value)
  assert (tmp_path / "00000001").is_dir()  # it is not damaged


def test_unwritable_place_is_the_users_mistake(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write"):
    checkpoint.save(tmp_path / "file", 1, {"w": jnp.zeros(3)}, {})


def test_notes_that_are_not_json_leave_the_older_save(tmp_path):
  state = {"w": jnp.zeros(3)}
  checkpoint.save(tmp_path, 1, state, {"a": 1})
  with pytest.raises(TypeError):
    checkpoint.save(tmp_path, 1, state, {"a": {1, 2}})
  assert checkpoint.restore(tmp_path, state)[2] == {"a": 1}


def test_is_fast_enough_to_be_used_often(tmp_path):
  shapes = [(3, 3, 16, 16)] * 10 + [(3, 3, 32, 64)] * 3 + [(64,)] * 24
  state = {
    part: {str(i): jnp.ones(shape) * i for i, shape in enumerate(shapes)}
    for part in ("params", "momentum", "best")
  }
  assert 70_000 < sum(np.prod(shape) for shape in shapes) < 90_000
  save_seconds, restore_seconds = [], []
  for step in range(3):
    begin = time.perf_counter()
    checkpoint.save(tmp_path, step, state, {})
    save_seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    checkpoint.restore(tmp_path, state)
    restore_seconds.append(time.perf_counter() - begin)
  print(f"save {min(save_seconds):.3f} s, restore {min(restore_seconds):.3f} s")
  assert max(min(save_seconds), min(restore_seconds)) < 1.0  # 0.1 when quiet


def test_a_relative_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  state = {"weight": jnp.arange(3.0)}
  checkpoint.save("runs/one", 5, state, {})
  step, restored, _ = checkpoint.restore("runs/one", state)
  assert step == 5
  np.testing.assert_array_equal(restored["weight"], state["weight"])


FULL = """
import resource, sys
import jax, numpy as np
from ckd_jax import errors
from ckd_jax.run import checkpoint

state = {"a": np.random.default_rng(0).normal(size=300_000).astype("f4")}
checkpoint.save(sys.argv[1], 1, state, {})
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
status = errors.command(
  lambda argv: checkpoint.save(sys.argv[1], 2, state, {}), [])
print(sys.unraisablehook is sys.__unraisablehook__)
sys.exit(status)
"""


@pytest.mark.parametrize(
  "limit",
  [20_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (100, 400_000))],
)
def test_a_full_disk_is_one_line_and_the_older_checkpoint_stays(
  tmp_path, limit
):
  """In orbax, whose errors of this kind are pages."""
  done = subprocess.run(
    [sys.executable, "-c", FULL, str(tmp_path), str(limit)],
    env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and done.stdout == "True\n"
  (line,) = done.stderr.splitlines()
  assert re.search(r"error: cannot write the checkpoint .*: File too lar", line)
  assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
  assert checkpoint.restore(tmp_path, {"a": np.zeros(300_000, "f4")})[0] == 1


def test_a_ctrl_c_waits_for_the_checkpoint(tmp_path, monkeypatch):
  """Else orbax would leave a coroutine behind, and a warning."""
  save, handled = checkpoint.ocp.save, []

  def interrupted(*args):
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.raise_signal(number)
    save(*args)

  monkeypatch.setattr(checkpoint.ocp, "save", interrupted)
  before = signal.signal(signal.SIGTERM, lambda *args: handled.append(args[0]))
  try:
    with pytest.raises(KeyboardInterrupt):
      checkpoint.save(tmp_path, 1, {"a": np.arange(3.0)}, {})
    assert (tmp_path / "00000001" / "arrays").exists() and not handled
  finally:
    signal.signal(signal.SIGTERM, before)
