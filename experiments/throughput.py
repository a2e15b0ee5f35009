"""How fast are the steps: images, comparisons, and the share of the device?

  python experiments/throughput.py [--students=resnet8,resnet32] [--batches=128]
    [--dtypes=float32,bfloat16] [--launches=1,32] [--estimators=all,groups]
    [--at_once=1,8] [--methods=ckd] [--rows=2000] [--repeats=5] [--seconds=1.0]

`batches` are images through one student in a step; `launches` steps in one
program; `at_once` students trained together. Every combination is compiled,
warmed up and timed, several launches in a row with one wait at their end; the
median of the repeats counts. The bare step is forward, backward and update on
one batch that lies on the device, without choosing, gathering or augmenting.
Each is a process of its own, or its peak of memory would be another's. They
start side by side, --start_at_once at a time, and compile and are timed one
after the other: XLA's autotuning measures on the device. One line each is
appended to results/throughput.jsonl.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import fake
import study

from ckd_jax.system.devices import use_every_core

RESULTS = study.HERE / "results" / "throughput.jsonl"
AXES = ("students", "batches", "dtypes", "launches", "estimators", "at_once")
AXES += ("methods",)
# Dense peak of one device, in 1e12 operations a second: bfloat16, and float32
# as JAX multiplies it by default (TensorFloat-32 on an NVIDIA device).
PEAKS = {
  "NVIDIA H200": (989.0, 494.0),
  "NVIDIA H100": (989.0, 494.0),
  "NVIDIA A100": (312.0, 156.0),
  "TPU v4": (275.0, 275.0),
  "TPU v5 lite": (197.0, 197.0),
  "TPU v5": (459.0, 459.0),
  "TPU v6 lite": (918.0, 918.0),
}


def timed(launch, carry, repeats: int, seconds: float, wait: bool):
  """Median seconds of one call of `launch`, which takes and gives `carry`.

  Args:
    launch: carry -> carry.
    carry: what it begins with.
    repeats: of which the median is taken.
    seconds: that one repeat should last.
    wait: whether a call must end before the next.
  """
  import jax

  def several(carry, count):
    start = time.perf_counter()
    for _ in range(count):
      carry = launch(carry)
      if wait:
        jax.block_until_ready(carry)
    jax.block_until_ready(carry)
    return carry, (time.perf_counter() - start) / count

  carry, once = several(carry, 2)
  count = max(1, round(seconds / once))
  times = []
  for _ in range(repeats):
    carry, each = several(carry, count)
    times.append(each)
  return statistics.median(times)


def bare_step(fit, state):
  """(state) -> state on one batch that lies there already, compiled."""
  import jax
  import jax.numpy as jnp

  from ckd_jax.step import gather, make_update, runtime_task

  recipe = fit.plan.recipe._replace(schedule=lambda step: jnp.float32(0.01))
  task = runtime_task(recipe.task, fit.examples)
  index = recipe.method.sample(fit.key, jnp.int32(0), task, fit.state.method)
  batch = gather(fit.examples, index)
  shown = recipe.view(None, batch.inputs)
  rows = jax.NamedSharding(fit.mesh, jax.sharding.PartitionSpec("data"))
  batch = jax.device_put(batch._replace(inputs=shown), rows)
  update = make_update(recipe)
  keys = tuple(jax.random.split(jax.random.key(0), 3))
  step = jax.jit(
    lambda state, batch: update(state, batch, keys)[0],
    donate_argnums=0,
    out_shardings=fit.sharding,
  )
  compiled = step.lower(state, batch).compile()
  return lambda state: compiled(state, batch)


def comparisons(fit) -> int:
  """Ordered pairs of images whose difference a step compares."""
  hyper, images = fit.plan.about.hyper, fit.plan.recipe.task.batch_size
  if "estimator" not in hyper:
    return 0
  if hyper["estimator"] == "all":
    return images * (images - 1)
  if hyper["estimator"] == "batch_groups":
    return hyper["groups_per_batch"]
  return images


def prepared(student, images, dtype, launch, estimator, at_once, method, rows):
  """Runs that differ in their seed, on one mesh."""
  from ckd_jax.step import make_mesh

  rows_a_step = images // 2 if estimator == "groups" else images
  options = {"batch_size": rows_a_step, "dtype": dtype}
  options |= {"steps_per_launch": launch}
  mesh = make_mesh(rows_a_step, at_once)
  fits, like = [], None
  for seed in range(at_once):
    like = fake.prepare(
      student,
      fake.Noise(rows),
      method=method,
      options=options | {"seed": seed},
      hyper={"estimator": estimator} if method == "ckd" else {},
      mesh=mesh,
      like=like,
    )
    fits.append(like)
  return fits


def utilisation(fit, images: int, dtype: str, step: float) -> float | None:
  """Of the device's peak, where that is known; forward and backward."""
  import jax

  from ckd_jax.data import shown
  from ckd_jax.models import cost

  forward = cost.flops(
    fit.plan.recipe.model,
    fit.state.params["student"],
    fit.state.model,
    shown(fit.plan.recipe.view),
  )
  kind = jax.devices()[0].device_kind
  peaks = (x for name, x in PEAKS.items() if kind.startswith(name))
  peak = next(peaks, None)
  if not peak:
    return None
  rate = 3 * forward * images / step / fit.mesh.size
  return round(rate / (1e12 * peak[dtype == "float32"]), 4)


def program_megabytes(compiled) -> float:
  """Arguments and temporaries of a program, as its compiler counts them."""
  memory = compiled.memory_analysis()
  held = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  return round(held / 2**20, 1)


def peak_megabytes() -> float | None:
  """What the device held at most so far; None where it does not say."""
  import jax

  found = jax.devices()[0].memory_stats() or {}
  return round(found.get("peak_bytes_in_use", 0) / 2**20, 1) or None


def take_turn(folder: str) -> None:
  """Says that all is prepared, and waits until the others are done."""
  if not folder:
    return
  place = pathlib.Path(folder)
  (place / "ready").touch()
  while not (place / "go").exists():
    time.sleep(0.05)


def measure(
  student, images, dtype, launch, estimator, at_once, method, flags
) -> dict:
  """One line of the results; every axis as in the command line."""
  use_every_core()
  import jax
  import jax.numpy as jnp

  from ckd_jax.run.programs import default_launch
  from ckd_jax.run.together import vmapped

  images, at_once = int(images), int(at_once)
  launch = int(launch) or default_launch()
  fits = prepared(
    student, images, dtype, launch, estimator, at_once, method, flags.rows
  )
  first = fits[0]
  fit, state = first, jax.tree.map(jnp.copy, first.state)
  if at_once > 1:
    lanes = vmapped(fits, [one.state for one in fits])
    fit, state = lanes.launched, lanes.state
  take_turn(flags.turn)
  began = time.perf_counter()
  compiled = fit.launch(launch).lower(state, fit.examples, fit.key).compile()
  compile_seconds = time.perf_counter() - began
  again = jax.tree.map(jnp.copy, first.state)
  bare_launch = bare_step(first, again)
  how = flags.repeats, flags.seconds, fit.one_at_a_time
  seconds = timed(
    lambda state: compiled(state, fit.examples, fit.key)[0], state, *how
  )
  bare = timed(bare_launch, again, *how)
  step = seconds / launch / at_once  # of one student
  return {
    "student": student,
    "method": method,
    "images_a_step": images,
    "dtype": dtype,
    "steps_a_launch": launch,
    "estimator": estimator,
    "students_at_once": at_once,
    "rows": flags.rows,
    "milliseconds_a_step": round(1e3 * step, 4),
    "images_per_second": round(images / step, 1),
    "comparisons_per_second": round(comparisons(first) / step, 1),
    "bare_milliseconds": round(1e3 * bare, 4),
    "share_of_bare_step": round(bare / step, 4),
    "model_flop_utilisation": utilisation(first, images, dtype, step),
    "program_megabytes": program_megabytes(compiled),
    "peak_megabytes": peak_megabytes(),
    "compile_seconds": round(compile_seconds, 2),
    "device": f"{first.mesh.size} x {jax.devices()[0].device_kind}",
    "jax": jax.__version__,
    **study.stamp(),
  }


def side_by_side(cases: list[dict], flags) -> list[dict]:
  """Prepares all cases at once; compiles and times them one by one."""
  # Together they would each take most of an accelerator's memory.
  environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  numbers = {key: getattr(flags, key) for key in ("rows", "repeats", "seconds")}
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    begun = []
    for number, case in enumerate(cases):
      place = pathlib.Path(folder, str(number))
      place.mkdir()
      options = {**case, **numbers, "turn": place}
      command = [sys.executable, __file__]
      command += [f"--{key}={value}" for key, value in options.items()]
      process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
      )
      begun.append((place, process))
    for place, process in begun:
      while process.poll() is None and not (place / "ready").exists():
        time.sleep(0.05)
    for place, process in begun:
      (place / "go").touch()
      said, _ = process.communicate()
      if process.returncode:
        print(f"failed: {process.args}", file=sys.stderr)
        continue
      rows.append(json.loads(said.splitlines()[-1]))
      keep(rows[-1])
  return rows


def keep(row: dict) -> None:
  """Prints and appends one line."""
  print(json.dumps(row), flush=True)
  RESULTS.parent.mkdir(exist_ok=True)
  with open(RESULTS, "a") as file:
    file.write(json.dumps(row) + "\n")


def table(rows) -> str:
  """Markdown of measured lines."""
  columns = {
    "student": "student",
    "method": "method",
    "images_a_step": "images",
    "dtype": "dtype",
    "steps_a_launch": "steps a launch",
    "estimator": "estimator",
    "students_at_once": "at once",
    "milliseconds_a_step": "ms a step",
    "images_per_second": "images/s",
    "comparisons_per_second": "comparisons/s",
    "share_of_bare_step": "bare / step",
    "model_flop_utilisation": "MFU",
    "program_megabytes": "MB",
    "compile_seconds": "compile s",
  }
  body = [
    ["-" if row[key] is None else f"{row[key]}" for key in columns]
    for row in rows
  ]
  return study.markdown(list(columns.values()), body)


def main() -> None:
  """Measures, appends, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--students", default="resnet8")
  parser.add_argument("--batches", default="128")
  parser.add_argument("--dtypes", default="float32")
  parser.add_argument("--launches", default="0", help="0: as a run chooses")
  parser.add_argument("--estimators", default="all,batch_groups,groups")
  parser.add_argument("--at_once", default="1")
  parser.add_argument("--methods", default="ckd")
  parser.add_argument("--rows", type=int, default=2000)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--seconds", type=float, default=1.0)
  parser.add_argument("--start_at_once", type=int, default=1)
  parser.add_argument("--turn", default="", help=argparse.SUPPRESS)
  flags = parser.parse_args()
  cases = [
    dict(zip(AXES, values, strict=True))
    for values in itertools.product(
      *(getattr(flags, axis).split(",") for axis in AXES)
    )
  ]
  if flags.turn:
    print(json.dumps(measure(*cases[0].values(), flags)))
    return
  rows = []
  for start in range(0, len(cases), flags.start_at_once):
    rows += side_by_side(cases[start : start + flags.start_at_once], flags)
  print(table(rows))


if __name__ == "__main__":
  main()
