"""Is the device busy? A trace of the loop, as a share and as a picture.

  python experiments/busy.py [--student=resnet32] [--batch=128] [--steps=320]
    [--dtype=float32] [--shown=20]

`train.loop` runs under the profiler, warm, without validation. An accelerator
is busy while any of its kernels runs: the share of the time between the first
and the last one. CPU cores are busy as the operating system counts it:
processor time over wall time and cores. The picture is of the last `shown`
milliseconds, one row for each line of the trace in which the device works. One
line is appended to results/busy.jsonl, results/busy-DEVICE.png is drawn.
"""

import argparse
import datetime
import json
import os
import pathlib
import tempfile
import time

import fake
import study
from ckd_jax.main import use_every_core

RESULTS = study.HERE / "results" / "busy.jsonl"
# Of the lines that a device's plane has, those that are not kernels.
_SUMMARIES = ("XLA Modules", "Steps", "Framework", "Source", "TraceMe")


def spans(folder: pathlib.Path) -> dict[str, list[tuple[float, float]]]:
  """Milliseconds in which each line of the trace worked, by its name."""
  import jax

  (path,) = folder.rglob("*.xplane.pb")
  planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
  devices = [plane for plane in planes if plane.name.startswith("/device:")]
  found = {}
  for plane in devices or planes:
    for line in plane.lines:
      if devices and line.name.startswith(_SUMMARIES):
        continue
      if not devices and "XLA" not in line.name:  # Python's own threads
        continue
      events = [
        (event.start_ns / 1e6, event.end_ns / 1e6) for event in line.events
      ]
      if events:
        found[f"{plane.name} {line.name}"] = merged(events)
  return found


def merged(intervals) -> list[tuple[float, float]]:
  """Their union, in order."""
  result = []
  for start, end in sorted(intervals):
    if result and start <= result[-1][1]:
      result[-1] = result[-1][0], max(end, result[-1][1])
    else:
      result.append((start, end))
  return result


def share(lines) -> float:
  """Of the time from the first work to the last in which any line works."""
  union = merged(span for line in lines.values() for span in line)
  worked = sum(end - start for start, end in union)
  return worked / (union[-1][1] - union[0][0])


def draw(lines, shown: float, title: str, path: pathlib.Path) -> None:
  """The last milliseconds of the trace."""
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  end = max(line[-1][1] for line in lines.values())
  figure, axes = plt.subplots(
    figsize=(10, 1 + 0.3 * len(lines)), layout="constrained"
  )
  for row, line in enumerate(lines.values()):
    bars = [
      (start - end + shown, stop - start)
      for start, stop in line
      if stop > end - shown
    ]
    axes.broken_barh(bars, (row + 0.1, 0.8))
  axes.set_yticks([row + 0.5 for row in range(len(lines))], list(lines))
  axes.set(xlim=(0, shown), xlabel="milliseconds", title=title)
  figure.savefig(path, dpi=100)


def main() -> None:
  """Measures, draws, appends, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--student", default="resnet32")
  parser.add_argument("--batch", type=int, default=128)
  parser.add_argument("--steps", type=int, default=320)
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--shown", type=float, default=20.0)
  flags = parser.parse_args()
  use_every_core()
  import jax
  from etils import epath

  from ckd_jax import train

  options = {"batch_size": flags.batch, "dtype": flags.dtype}
  options |= dict.fromkeys(
    ("steps", "eval_every", "checkpoint_every"), flags.steps
  )
  config, fit = fake.prepare(
    flags.student, options=options, hyper={"estimator": "all"}
  )

  def loop():
    own = fit._replace(state=jax.tree.map(jax.numpy.copy, fit.state))
    with tempfile.TemporaryDirectory() as folder:
      return train.loop(config, own, epath.Path(folder))[2]

  loop()  # compiled
  with tempfile.TemporaryDirectory() as folder:
    jax.profiler.start_trace(folder)
    processor, wall = time.process_time(), time.perf_counter()
    record = loop()
    wall = time.perf_counter() - wall
    processor = time.process_time() - processor
    jax.profiler.stop_trace()
    lines = spans(pathlib.Path(folder))
  device = jax.devices()[0]
  on_cpu = device.platform == "cpu"
  cores = len(os.sched_getaffinity(0))
  busy = processor / wall / cores if on_cpu else share(lines)
  name = device.device_kind.replace(" ", "-")
  title = f"{flags.student}, {flags.batch} images a step, {device.device_kind}"
  draw(lines, flags.shown, title, RESULTS.parent / f"busy-{name}.png")
  row = {
    "date": str(datetime.date.today()),
    "student": flags.student,
    "images_a_step": flags.batch,
    "dtype": flags.dtype,
    "steps": flags.steps,
    "steps_a_launch": fit.longest,
    "busy_share": round(busy, 4),
    "milliseconds_a_step": round(
      1e3 * record["timed_seconds"] / max(record["timed_steps"], 1), 3
    ),
    "device": f"{fit.mesh.size} x {device.device_kind}",
    "cores": cores,
    "jax": jax.__version__,
  }
  print(json.dumps(row))
  with open(RESULTS, "a") as file:
    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
  main()
