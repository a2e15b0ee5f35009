"""The host streams what the device would have gathered: the same student."""

import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from ckd_jax import config as configuration
from ckd_jax import data
from ckd_jax.data import Lazy
from ckd_jax.run import logger, train
from ckd_jax.step import Examples, stream
from tests.helpers.paths import DIGITS
from tests.helpers.runs import LINEAR, from_table, run

STREAM = "--config.dataset.placement=stream"
GROUPS = ("--config.hyper.estimator=groups", "--config.hyper.max_groups=500")
SLOW = pytest.mark.slow
CASES = {
  "kd": ("kd", LINEAR),
  "groups": ("ckd", LINEAR, *GROUPS),
  "mixed": ("mixup", LINEAR),
}


def weights(folder):
  return safetensors.numpy.load_file(folder / "student.safetensors")


@SLOW
@pytest.mark.parametrize("case", CASES)
def test_streamed_batches_make_the_same_student(case, paid, tmp_path):
  method, *flags = CASES[case]
  flags, arg = from_table(paid, *flags, method=method)
  resident = run(tmp_path / "resident", *flags, arg=arg)
  streamed = run(tmp_path / "streamed", *flags, STREAM, arg=arg)
  for key in ("test_accuracy", "val_accuracy", "train_agreement"):
    assert streamed[key] == pytest.approx(resident[key], abs=1.5), key
  ours, theirs = weights(tmp_path / "resident"), weights(tmp_path / "streamed")
  for name, value in ours.items():
    np.testing.assert_allclose(theirs[name], value, rtol=1e-5, atol=1e-6)


def test_the_iterator_resumes_exactly(paid, tmp_path, monkeypatch):
  flags, arg = from_table(paid, LINEAR, STREAM, method="kd")
  whole = run(tmp_path / "whole", *flags, arg=arg)
  log = logger.Logger.log

  def stop(self, step, **metrics):
    if step > 12:
      raise KeyboardInterrupt
    log(self, step, **metrics)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(logger.Logger, "log", stop)
    run(tmp_path / "parts", *flags, arg=arg)
  parts = run(tmp_path / "parts", *flags, arg=arg)
  assert whole["params_sha256"] == parts["params_sha256"]
  # The best student may be older than the resumed steps: so their losses, too.
  metrics = [tmp_path / name / "metrics.jsonl" for name in ("whole", "parts")]
  assert metrics[0].read_bytes() == metrics[1].read_bytes()


def test_batches_come_in_order_from_any_step_on():
  images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
  fetched = []

  def fetch(rows):
    fetched.append(rows)
    return images[rows]

  def index_of(step):
    return (np.arange(8).reshape(4, 2) + step) % 40

  mesh = jax.make_mesh(
    (4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  where = [
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    for axes in (("data",), ())
  ]
  labels = np.arange(40)
  feed = stream.stream_batches(
    Examples(None, labels), 5, index_of, fetch, *where
  )
  for step in range(5, 25):
    examples = next(feed)
    np.testing.assert_array_equal(examples.index, index_of(step))
    np.testing.assert_array_equal(examples.inputs[..., 0, 0, 0], index_of(step))
    assert examples.labels is labels
    assert len(examples.inputs.sharding.device_set) == 4


def test_a_host_decodes_the_rows_of_its_own_devices(monkeypatch):
  """Every other one, as where a mesh follows how devices are connected."""
  mesh = jax.make_mesh(
    (4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows, copies = (
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    for axes in (("data",), ())
  )
  own = [rows.mesh.devices.flat[place] for place in (1, 3)]
  whole = rows.addressable_devices_indices_map((8,))
  place, fetched = jax.make_array_from_callback, []

  class Rows:
    def addressable_devices_indices_map(self, shape):
      return {device: whole[device] for device in own}

  def of_own(shape, sharding, part):
    if isinstance(sharding, Rows):
      return {device: part((whole[device][0],)) for device in own}
    return place(shape, sharding, part)

  def fetch(index):
    fetched.append(index)
    return index.astype(np.uint8)[:, None, None, None]

  monkeypatch.setattr(jax, "make_array_from_callback", of_own)
  feed = stream.stream_batches(
    Examples(None, None),
    0,
    lambda step: 10 * np.arange(8)[:, None],
    fetch,
    Rows(),
    copies,
  )
  images = next(feed).inputs
  for device, there in zip(own, ([20, 30], [60, 70]), strict=True):
    assert images[device].ravel().tolist() == there
  assert fetched[0].tolist() == [20, 30, 60, 70]  # and no other


def test_a_mistake_in_decoding_reaches_the_run():
  def fetch(rows):
    raise ValueError("cannot decode the image train_3")

  mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
  where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  feed = stream.stream_batches(
    Examples(None, None), 0, lambda step: np.zeros((2, 1)), fetch, where, where
  )
  with pytest.raises(Exception, match="cannot decode the image train_3"):
    next(feed)


def test_what_half_of_the_memory_does_not_hold_is_streamed(monkeypatch):
  from ckd_jax.step import sharding

  images = np.zeros((100, 8, 8, 1), np.uint8)
  assert not sharding.streams("auto", images)
  monkeypatch.setattr(sharding, "memory", lambda: 2 * images.size - 1)
  assert sharding.streams("auto", images)
  for where, streamed in (("device", False), ("stream", True)):
    assert sharding.streams(where, images) == streamed


@pytest.mark.slow
def test_a_prepared_set_streams_from_its_files(shared, tmp_path, monkeypatch):
  """CIFAR-100 as tensorflow-datasets left it, images decoded for each step."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(shared / "tfds"))
  monkeypatch.setenv("CKD_JAX_CACHE", str(tmp_path / "cache"))
  root = pathlib.Path(DIGITS).parent
  results = {}
  for placement in ("device", "stream"):
    arg = (
      "method=kd,teacher.source=table,budget=200,batch_size=16,steps=10,"
      f"eval_every=5,checkpoint_every=5,dataset.placement={placement},"
      f"student=tests.helpers.runs:linear,schedule=constant,"
      f"teacher.path={shared}/tables/cifar100_resnet20_logits.npz"
    )
    config = configuration.from_flags([f"--config={root}/cifar100.py:{arg}"])[0]
    results[placement] = train.run(config, tmp_path / placement)
  one, other = results["device"], results["stream"]
  assert one["teacher_calls"] == other["teacher_calls"] == 160
  assert one["table_digest"] == other["table_digest"]  # the same fingerprint
  ours, theirs = weights(tmp_path / "device"), weights(tmp_path / "stream")
  for name, value in ours.items():
    np.testing.assert_allclose(theirs[name], value, rtol=1e-5, atol=1e-6)
  assert one["test_accuracy"] == other["test_accuracy"]
  assert os.listdir(tmp_path / "cache")


def test_lazy_images_are_an_array_that_is_decoded_on_demand():
  pixels = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 1), np.uint8)
  reads = []

  def read(row):
    reads.append(row)
    return pixels[row]

  lazy = Lazy(read, pixels.shape)
  assert lazy.shape == pixels.shape and len(lazy) == 20 and not reads
  rows = np.array([7, 3, 3, 11])
  np.testing.assert_array_equal(lazy[rows], pixels[rows])
  np.testing.assert_array_equal(lazy[4:9], pixels[4:9])
  part = data.subset(data.subset(lazy, rows), np.array([3, 0]))
  assert part.shape == (2, 2, 3, 1)
  np.testing.assert_array_equal(np.asarray(part), pixels[[11, 7]])
  assert len(reads) == 4 + 5 + 2
  np.testing.assert_array_equal(data.subset(pixels, rows), pixels[rows])
