"""What does the loop cost over the bare jitted step?

  python experiments/loop_cost.py [--student=resnet8] [--steps=60] [--repeats=5]

--steps is for launches of one step; it is multiplied by the steps of a launch.

Both do the same steps on the same images in one process, in turn: the bare step
is launched again and again, the loop also logs every 10 steps, shows progress
and keeps its record (validation is timed apart and is not part of either). The
median of the repeats is printed and appended to results/loop_cost.jsonl.
"""

import argparse
import json
import statistics
import tempfile
import time
from typing import Any, NamedTuple

import fake
import study
from etils import epath

from ckd_jax.system.devices import use_every_core

RESULTS = study.HERE / "results" / "loop_cost.jsonl"


def bare(fit) -> float:
  """Milliseconds a step, launched as the loop launches them."""
  import jax

  state = jax.tree.map(jax.numpy.copy, fit.state)
  launch, times = fit.launch(fit.longest), fit.longest
  state, _ = launch(state, fit.examples, fit.key)
  jax.block_until_ready(state)
  start = time.perf_counter()
  launches = fit.plan.intervals.steps // times
  for _ in range(launches):
    state, _ = launch(state, fit.examples, fit.key)
    if fit.one_at_a_time:
      jax.block_until_ready(state.step)
  jax.block_until_ready(state)
  return 1e3 * (time.perf_counter() - start) / (launches * times)


class Timed(NamedTuple):
  """A run for the loop."""

  workdir: epath.Path
  context: Any


def looped(fit) -> float:
  """Milliseconds a step inside the loop."""
  import jax

  from ckd_jax.run.loop import train
  from ckd_jax.run.standing import start_or_resume
  from ckd_jax.run.stopping import stoppable

  fit = fit._replace(state=jax.tree.map(jax.numpy.copy, fit.state))
  with tempfile.TemporaryDirectory() as folder:
    run = Timed(epath.Path(folder), fit)
    with stoppable() as stop:
      [(_, ended)] = train([run], [start_or_resume(run, stop)], stop)
  return 1e3 * ended.record.timed_seconds / ended.record.timed_steps


def main() -> None:
  """Measures, prints, appends."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--student", default="resnet8")
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--steps", type=int, default=60)
  parser.add_argument("--repeats", type=int, default=5)
  flags = parser.parse_args()
  use_every_core()
  import jax

  from ckd_jax.run.programs import default_launch

  steps = flags.steps * default_launch()  # whole launches, most of them timed
  options = {"batch_size": flags.batch_size, "steps": steps}
  options |= {"eval_every": steps, "checkpoint_every": steps}
  fit = fake.prepare(flags.student, options=options)
  pairs = [(bare(fit), looped(fit)) for _ in range(flags.repeats)]
  bare_ms, loop_ms = map(statistics.median, zip(*pairs, strict=True))
  ratio = statistics.median(loop / step for step, loop in pairs)
  row = {
    **study.stamp(),
    "student": flags.student,
    "pairs_a_step": flags.batch_size,
    "bare_milliseconds": round(bare_ms, 3),
    "loop_milliseconds": round(loop_ms, 3),
    "loop_over_bare": round(ratio, 4),
    "repeats": flags.repeats,
    "steps_a_launch": fit.longest,
    "device": f"{fit.mesh.size} x {jax.devices()[0].device_kind}",
    "jax": jax.__version__,
  }
  print(json.dumps(row, indent=2))
  RESULTS.parent.mkdir(exist_ok=True)
  with open(RESULTS, "a") as file:
    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
  main()
