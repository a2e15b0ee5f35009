"""The output of a run is readable for people and programs."""

import io
import json
import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from ckd_jax.run import logger
from tests.helpers.paths import ROOT


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_object_per_line_at_once(tmp_path):
  path = tmp_path / "metrics.jsonl"
  log = logger.Logger(path)
  log.log(10, loss=jnp.float32(0.5), accuracy=np.float64(12.5), name="a\nb")
  assert read(path) == [
    {"step": 10, "loss": 0.5, "accuracy": 12.5, "name": "a\nb"}
  ]  # without a close: a kill loses nothing
  log.log(20, loss=float("nan"), parts={"a": [np.float32("inf"), 1]})
  text = path.read_text()
  assert read(path)[1] == {"step": 20, "loss": None, "parts": {"a": [None, 1]}}
  assert "NaN" not in text and "Infinity" not in text


def test_a_resumed_run_writes_no_step_twice(tmp_path):
  path = tmp_path / "metrics.jsonl"
  log = logger.Logger(path)
  for step in (10, 20, 30):
    log.log(step, loss=1.0)
  path.write_text(path.read_text() + '{"step": 40, "lo')  # cut by a kill
  log = logger.Logger(path, from_step=20)
  log.log(30, loss=2.0)
  assert read(path) == [
    {"step": 10, "loss": 1.0},
    {"step": 20, "loss": 1.0},
    {"step": 30, "loss": 2.0},
  ]
  logger.Logger(path, from_step=0)
  assert path.read_text() == ""
  logger.Logger(tmp_path / "absent.jsonl", from_step=3).log(4)
  logger.Logger(path)
  assert [p.name for p in sorted(tmp_path.iterdir())] == [
    "absent.jsonl",
    "metrics.jsonl",
  ]


def test_a_damaged_line_is_left_out(tmp_path):
  """A byte that is no text, too."""
  log = logger.Logger(tmp_path / "metrics.jsonl")
  for step in (1, 2, 3):
    log.log(step, loss=1.0)
  file = tmp_path / "metrics.jsonl"
  file.write_bytes(file.read_bytes().replace(b'"step": 2', b'"st\xe5p": 2'))
  assert [x["step"] for x in logger.read_metrics(file)] == [1, 3]


def test_header_is_aligned():
  assert logger.header({"student": "resnet8", "teacher calls": 1_440}) == (
    "student        resnet8\nteacher calls  1440"
  )
  assert logger.header([("a", None), ("bb", 0)]) == "a   -\nbb  0"
  assert logger.header([]) == ""


def test_progress_on_a_terminal_overwrites_one_line(monkeypatch):
  monkeypatch.setenv("COLUMNS", "120")
  stream, clock = Terminal(), Clock()
  progress = logger.Progress(100, 64, stream=stream, clock=clock)
  clock.now = 5.0
  progress.show(50, loss=1.23456, test_accuracy=12.3)
  text = stream.getvalue()
  assert text.startswith("\r[#####.....] 50/100  ETA 0:00:05  640 images/s")
  # 50 steps of 64 images in 5 s, 50 more to go
  assert text.endswith("loss 1.235  test_accuracy 12.30%")
  assert "\n" not in text
  clock.now = 5.01
  progress.show(51, loss=9.0)  # too soon to be read
  assert stream.getvalue() == text
  clock.now = 10.0
  progress.show(100, last=True, loss=float("nan"))
  last = stream.getvalue()[len(text) :]
  assert last.endswith("\n") and last.count("\r") == 1 and "loss -" in last
  assert len(last.strip("\r\n")) >= len(text) - 1  # covers the longer line


def test_progress_fits_a_narrow_terminal(monkeypatch):
  monkeypatch.setenv("COLUMNS", "40")
  stream, clock = Terminal(), Clock()
  progress = logger.Progress(100, 64, stream=stream, clock=clock)
  clock.now = 1.0
  progress.show(1, **{f"loss_{i}": 1.0 for i in range(20)})
  assert len(stream.getvalue()) == 1 + 39


def test_progress_without_a_terminal_prints_plain_lines_now_and_then():
  stream, clock = io.StringIO(), Clock()
  progress = logger.Progress(
    1000, 10, first=900, stream=stream, interval=10.0, clock=clock
  )
  for step in range(901, 1001):
    clock.now += 0.25
    progress.show(step, last=step == 1000, loss=1.0)
  lines = stream.getvalue().splitlines()
  steps = [line.split()[1] for line in lines]
  assert steps == ["940/1000", "980/1000", "1000/1000"]
  assert "\r" not in stream.getvalue()
  assert "ETA 0:00:15  40 images/s" in lines[0]  # of the steps done here
  assert "ETA 0:00:00" in lines[-1]


@pytest.mark.parametrize(
  "seconds, text", [(59.6, "0:01:00"), (3725, "1:02:05")]
)
def test_time_left(seconds, text):
  assert f"ETA {text} " in logger.progress_line(0, 0, {}, "", seconds)


def pixels(path):
  with PIL.Image.open(path) as image:
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def colourful(image) -> int:
  """Pixels that are no shade of grey: drawn curves."""
  return int((np.ptp(image, axis=-1) > 60).sum())


def test_curves_of_empty_short_and_whole_runs(tmp_path):
  path, picture = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
  logger.curves(picture, path)  # there is no file yet
  log = logger.Logger(path)
  logger.curves(picture, path)
  empty = pixels(picture)
  assert colourful(empty) == 0 and empty.min() < 50
  log.log(1, loss=2.0, learning_rate=0.1)
  logger.curves(picture, path)
  short = colourful(pixels(picture))
  assert short > 0
  for step in range(2, 60):
    loss = math.nan if step == 30 else 1 / step
    log.log(step, loss=loss, learning_rate=0.1, val_accuracy=float(step))
  logger.curves(picture, path)
  image = pixels(picture)
  assert colourful(image) > 5 * short
  half = image.shape[1] // 2
  assert colourful(image[:, :half]) and colourful(image[:, half:])


def test_curves_say_which_accuracies_have_no_offset():
  plain = ["step", "loss", "train_accuracy", "val_accuracy"]
  assert logger._label("train_accuracy", plain) == "train accuracy"
  fitted = [*plain, "offset_none_val_accuracy"]
  assert logger._label("train_accuracy", fitted) == "train accuracy, no offset"
  assert logger._label("val_accuracy", fitted) == "val accuracy"
  assert [
    logger._label(f"offset_{mode}_val_accuracy", fitted)
    for mode in ("none", "fit")
  ] == ["val accuracy, no offset", "val accuracy, offset fitted"]


def test_curves_touch_no_global_state(tmp_path):
  code = (
    "import sys; from ckd_jax.run import logger;"
    "assert 'matplotlib' not in sys.modules;"
    f"logger.curves({str(tmp_path / 'c.png')!r}, 'absent');"
    "assert 'matplotlib.pyplot' not in sys.modules"
  )
  subprocess.run(
    [sys.executable, "-W", "error", "-c", code],
    cwd=ROOT,
    check=True,
    timeout=60,
    env={"PATH": "", "HOME": str(tmp_path)},  # no display
  )
