"""Output of a run: header, progress, metrics, curves."""

import io
import json
import math
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from ckd_jax import offset as offsets
from ckd_jax.errors import UserError
from ckd_jax.step import SKIPPED
from ckd_jax.system import console, files


def to_json(value: Any) -> Any:
  """Converts arrays of one number to plain ones, non-finite ones to None."""
  if isinstance(value, Mapping):
    return {str(key): to_json(inner) for key, inner in value.items()}
  if isinstance(value, list | tuple):
    return [to_json(inner) for inner in value]
  if hasattr(value, "item"):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def json_bytes(value: Any) -> bytes:
  """The bytes of a .json file."""
  return (json.dumps(to_json(value), indent=2) + "\n").encode()


class Logger:
  """Appends one JSON object per line to a file.

  Args:
    path: the metrics file; made if absent.
    from_step: the step that the run resumes from; later lines and lines cut by
      a kill are dropped. None begins a new file.
  """

  def __init__(self, path, from_step: int | None = None):
    self._path = path
    lines = [] if from_step is None else read_metrics(path)
    kept = [line for line in lines if line["step"] <= from_step]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    files.write(path, text.encode())

  def log(self, step: int, **metrics) -> None:
    """Appends the metrics of a finished step."""
    line = to_json({"step": step, **metrics})
    files.append(self._path, json.dumps(line, allow_nan=False))


def read_metrics(path) -> list[dict[str, Any]]:
  """The lines of a metrics file, without lines cut by a kill."""
  path = epath.Path(path)
  lines = []
  try:
    data = files.read(path) if path.exists() else b""
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror}") from error
  for text in data.splitlines():
    try:
      line = json.loads(text)
    except (RecursionError, ValueError):
      continue
    if isinstance(line, dict) and isinstance(line.get("step"), int):
      lines.append(line)
  return lines


def header(pairs: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
  """Two aligned columns, one line per pair; None is shown as '-'."""
  pairs = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
  width = max((len(name) for name, _ in pairs), default=0)
  return "\n".join(
    f"{name:<{width}}  {'-' if value is None else value}"
    for name, value in pairs
  )


class Progress:
  """One line that overwrites itself, or a plain line now and then.

  Args:
    steps: number of training steps in the whole run.
    rows_per_step: student inputs per step, for the rate.
    kind: of the inputs, "images" or "texts".
    first: the step that the run resumes from.
    stream: a terminal gets the overwriting line; anything else a plain line
      every `interval` seconds and one at the end.
    interval: seconds between plain lines.
    clock: () -> seconds.
  """

  def __init__(
    self,
    steps: int,
    rows_per_step: int,
    *,
    kind: str = "images",
    first: int = 0,
    stream=None,
    interval: float = 10.0,
    clock=time.monotonic,
  ):
    self._steps, self._rows, self._kind = steps, rows_per_step, kind
    self._stream = stream or sys.stderr  # None where that is closed
    self._terminal = bool(self._stream) and self._stream.isatty()
    self._interval = 0.1 if self._terminal else interval
    self._clock = clock
    self._begin = self._last = (first, clock())
    self._width = 0
    self._rate = 0.0

  def show(self, step: int, *, last: bool = False, **metrics) -> None:
    """Shows a finished step, if the last one is long enough ago.

    Args:
      step: number of the steps done so far.
      last: whether it is the run's last one, which is always shown.
      **metrics: names that end in `accuracy` are in percent.
    """
    now = self._clock()
    last_step, last_time = self._last
    if not last and now - last_time < self._interval:
      return
    if step > last_step:
      self._rate = (step - last_step) / max(now - last_time, 1e-9)
    first, begin = self._begin
    left = (self._steps - step) * (now - begin) / max(step - first, 1)
    self._last = (step, now)
    speed = f"{self._rate * self._rows:,.0f} {self._kind}/s"
    line = progress_line(step, self._steps, metrics, speed, left)
    if self._terminal:
      line = line[: shutil.get_terminal_size().columns - 1]  # never wraps
      end = "\n" if last else ""
      console.show("\r" + line.ljust(self._width), self._stream, end)
      self._width = len(line)
    else:
      console.show(line, self._stream)


class Diverged(UserError):
  """Numbers of training are not finite.

  Args:
    message: one line.
    step: number of the step after which that was seen.
    rollbacks: how often the run had gone back because of it.
    stage: index of the method's stage that it was; None is the main part.
  """

  def __init__(self, message, step, rollbacks=0, stage: int | None = None):
    super().__init__(message)
    self.step, self.rollbacks, self.stage = step, rollbacks, stage


class Display:
  """Writes every metric to metrics.jsonl, and shows some on the bar.

  Args:
    path: the metrics file.
    steps: number of training steps in the whole run.
    rows_per_step: student inputs per step, for the rate.
    kind: of the inputs, "images" or "texts".
    first: the step that the run resumes from.
    log: whether metrics are written.
    bar: whether they are shown.
    mode: the mode of `ckd_jax.offset` that is reported. Where an offset is
      fitted, accuracies without one are not shown.
  """

  def __init__(
    self,
    path,
    steps: int,
    rows_per_step: int,
    *,
    kind: str,
    first: int,
    log: bool = True,
    bar: bool = True,
    mode: str = offsets.NONE,
  ):
    self._log, self._bar = None, None
    self._steps_done = first
    self._telling = (
      ("loss",) if mode == offsets.FIT else ("loss", "train_accuracy")
    )
    if log:
      self._log = Logger(path, from_step=first or None)
    if bar and not console.is_silent():
      self._bar = Progress(steps, rows_per_step, kind=kind, first=first)
    self._shown: dict[str, float] = {}

  def training(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Enters the metrics of a finished step.

    Args:
      step: number of the steps done so far.
      metrics: scalars by name, `loss` among them, and `skipped` where a step
        may be.

    Raises:
      Diverged: the loss is not finite, and the step was not skipped.
    """
    values = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(values["loss"]) and SKIPPED not in values:
      raise Diverged(f"the loss is {values['loss']} at step {step}", step)
    shown = {key: values[key] for key in self._telling}
    self._tell(step, values, shown)

  def accuracies(self, step: int, values: Mapping[str, float]) -> None:
    """Enters validation figures by name."""
    shown = {
      key: value for key, value in values.items() if offsets.is_reported(key)
    }
    self._tell(step, values, shown)

  def finish(self) -> None:
    """Shows the last line of the bar."""
    if self._bar:
      self._bar.show(self._steps_done, last=True, **self._shown)

  def _tell(self, step: int, values, shown) -> None:
    self._shown |= shown
    self._steps_done = step
    console.tell(step, values)
    if self._log:
      self._log.log(step, **values)
    if self._bar:
      self._bar.show(step, **self._shown)


def progress_line(
  step: int,
  steps: int,
  metrics: Mapping[str, Any],
  speed: str,
  seconds_left: float,
) -> str:
  """One line: bar, step, metrics, speed and the time left."""
  share = min(step / max(steps, 1), 1.0)
  bar = ("#" * round(10 * share)).ljust(10, ".")
  minutes, seconds = divmod(round(seconds_left), 60)
  hours, minutes = divmod(minutes, 60)
  # The time left before the metrics: a narrow terminal cuts the end.
  parts = [
    f"[{bar}] {step}/{steps}",
    f"ETA {hours}:{minutes:02d}:{seconds:02d}",
    speed,
  ]
  for name, value in to_json(metrics).items():
    if value is None:
      parts.append(f"{name} -")
    elif name.endswith("accuracy"):
      parts.append(f"{name} {value:.2f}%")
    else:
      parts.append(f"{name} {value:.4g}")
  return "  ".join(parts)


def _label(name: str, names: list[str]) -> str:
  """A metric as a reader would call it; `names` are all of the file."""
  for mode, words in offsets.LABELS.items():
    if name.startswith(start := offsets.metric(mode, "", "")):
      return f"val {name.removeprefix(start)}, {words}"
  # A training step knows no offset; where one is fitted that has to be said.
  is_fitted = offsets.metric(offsets.NONE, offsets.FIT) in names
  without = f", {offsets.LABELS[offsets.NONE]}"
  readable = name.replace("_", " ")
  return readable + without * (is_fitted and name == "train_accuracy")


def _is_figure(name: str) -> bool:
  return name.endswith("accuracy") or "val_" in name


def curves(path_png, metrics_path) -> None:
  """Draws a metrics file: losses and learning rate, and figures, by step.

  Metrics with `loss` in their name are on the left, `learning_rate` too, on an
  axis of its own; accuracies (in percent) and validation's on the right. A
  short or empty file gives axes with few or no points. No display is needed.

  Args:
    path_png: the picture to write.
    metrics_path: metrics.jsonl of a run.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  from matplotlib.ticker import MaxNLocator

  lines = read_metrics(metrics_path)
  names = list(dict.fromkeys(name for line in lines for name in line))
  figure = Figure(figsize=(11, 4.4), layout="constrained")
  FigureCanvasAgg(figure)
  left, right = figure.subplots(1, 2)

  def draw(axes, name, **style):
    points = [
      (line["step"], line[name]) for line in lines if line.get(name) is not None
    ]
    if points:
      # a line needs two points: mark them while there are few
      style.setdefault("marker", "o" if len(points) <= 30 else None)
      label = _label(name, names)
      axes.plot(*zip(*points, strict=True), ms=3.5, label=label, **style)

  for name in (name for name in names if "loss" in name):
    draw(left, name, lw=1.3)
  figures = [name for name in names if _is_figure(name)]
  for name in figures:
    draw(right, name, lw=1.6)
  drawn = left.get_lines()
  if "learning_rate" in names:
    rates = left.twinx()
    draw(rates, "learning_rate", color="0.55", lw=1.2, drawstyle="steps-post")
    rates.set(ylabel="learning rate", ylim=(0, None))
    drawn = [*drawn, *rates.get_lines()]
  below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 3}
  if drawn:
    left.legend(handles=drawn, frameon=False, **below)
  if right.get_lines():
    right.legend(frameon=False, **below)
  left.set(title="Loss", ylabel="loss")
  plain = all(name.endswith("accuracy") for name in figures)
  right.set(
    title="Accuracy" if plain else "Validation",
    ylabel="accuracy (%)" if plain else "",
  )
  for axes in (left, right):
    axes.set(xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3, lw=0.6)
    axes.spines["top"].set_visible(False)
  right.spines["right"].set_visible(False)
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=150)
  files.write(path_png, picture.getvalue())
