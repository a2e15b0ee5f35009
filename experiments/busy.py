"""Is the device busy? A trace of the loop, as a share and as a picture.

  python experiments/busy.py [--student=resnet32] [--batch=128] [--steps=320]
    [--dtype=float32] [--shown=20]

The steps of a run, warm, logged as in a run, without validation. An accelerator
is busy while one of its kernels runs, copies apart: the share of the time
between the first and the last one; of several, that of the idlest. CPU cores
are busy as the operating system counts it: processor time over wall time and
cores. The picture is of `shown` milliseconds in the middle, a row for each line
of the trace in which the device works. One line is appended to
results/busy.jsonl, results/busy-DEVICE.png is drawn.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import fake
import study

from ckd_jax.system.devices import use_every_core

RESULTS = study.HERE / "results" / "busy.jsonl"


def works(plane: str, line: str) -> bool:
  """Whether a line of the trace is the device's own work.

  The others are summaries of it, copies, and Python's own threads.
  """
  if plane.startswith("/device:TPU"):
    return line == "XLA Ops"
  if plane.startswith("/device:"):
    # Named by all that a stream does: "Stream #13(Compute,MemcpyD2D)".
    return line.startswith("Stream") and "Compute" in line
  return "XLA" in line


def spans(folder: pathlib.Path) -> dict[str, dict[str, list]]:
  """{device: {line of its trace: milliseconds in which it worked}}."""
  import jax

  (path,) = folder.rglob("*.xplane.pb")
  trace = jax.profiler.ProfileData.from_file(str(path))
  found = {}
  for plane in trace.planes:
    for line in plane.lines:
      if not works(plane.name, line.name):
        continue
      events = [
        (event.start_ns / 1e6, event.end_ns / 1e6)
        for event in line.events
        if not event.name.startswith("Mem")  # copies on the kernels' stream
      ]
      if events:
        found.setdefault(plane.name, {})[line.name] = merged(events)
  accelerators = {name: found[name] for name in found if "/device:" in name}
  return accelerators or found


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
  """Some milliseconds in the middle of the trace."""
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  middle = statistics.mean(
    pick(moment for line in lines.values() for span in line for moment in span)
    for pick in (min, max)
  )
  begin = middle - shown / 2
  figure, axes = plt.subplots(
    figsize=(10, 1 + 0.3 * len(lines)), layout="constrained"
  )
  for row, line in enumerate(lines.values()):
    bars = [
      (start - begin, stop - start)
      for start, stop in line
      if stop > begin and start < begin + shown
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

  from ckd_jax.run.launcher import Launcher, Timer

  options = {"batch_size": flags.batch, "dtype": flags.dtype}
  options |= {"steps": 10**6, "eval_every": 10**6, "checkpoint_every": 10**6}
  fit = fake.prepare(flags.student, options=options, hyper={"estimator": "all"})
  steps = -(-flags.steps // fit.longest) * fit.longest  # whole launches
  state = jax.tree.map(jax.numpy.copy, fit.state)
  quiet = jax.profiler.ProfileOptions()
  quiet.python_tracer_level = 0  # it would slow down what it looks at
  with tempfile.TemporaryDirectory() as folder:
    unseen = lambda step, metrics: None  # noqa: E731
    launcher = Launcher(fit, lambda step: step % 10 == 0, unseen, Timer())
    state, _ = launcher.run(state, 0, fit.longest)  # compiled and warm
    jax.profiler.start_trace(folder, profiler_options=quiet)
    processor, wall = time.process_time(), time.perf_counter()
    launcher.run(state, fit.longest, fit.longest + steps)
    wall = time.perf_counter() - wall
    processor = time.process_time() - processor
    jax.profiler.stop_trace()
    devices = spans(pathlib.Path(folder))
  if not devices:
    sys.exit("no line of the trace is a device's work: works() must learn it")
  device = jax.devices()[0]
  on_cpu = device.platform == "cpu"
  cores = len(os.sched_getaffinity(0))
  shares = {name: share(lines) for name, lines in devices.items()}
  idlest = min(shares, key=shares.get)
  busy = processor / wall / cores if on_cpu else shares[idlest]
  name = device.device_kind.replace(" ", "-")
  title = f"{flags.student}, {flags.batch} images a step, {device.device_kind}"
  picture = RESULTS.parent / f"busy-{name}.png"
  draw(devices[idlest], flags.shown, title, picture)
  row = {
    **study.stamp(),
    "student": flags.student,
    "images_a_step": flags.batch,
    "dtype": flags.dtype,
    "steps": steps,
    "steps_a_launch": fit.longest,
    "busy_share": round(busy, 4),
    "milliseconds_a_step": round(1e3 * wall / steps, 3),
    "device": f"{fit.mesh.size} x {device.device_kind}",
    "cores": cores,
    "jax": jax.__version__,
  }
  print(json.dumps(row))
  with open(RESULTS, "a") as file:
    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
  main()
