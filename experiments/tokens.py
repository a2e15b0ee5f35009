"""How many tokens a second, beside the bare step?

  python experiments/tokens.py --texts=DIR [--methods=kd,mixkd] [--repeats=7]
  python experiments/tokens.py --teacher=DIR

configs/sst2.py (64 texts of 40 tokens, transformer_tiny) with the answers that
texts.py uses. A step of a run samples, gathers and compares; the bare step
updates on one batch that lies there already. Both in turn, medians, in seconds
of the processor: other programs on the machine change those less than the
clock's. A token is a position of a text that goes through the student, padding
included. Lines go to results/tokens.jsonl.

With a teacher, a run as language.py needs it: what share of a step of
configs/names.py is the writing of texts, by the student, by the teacher or by
both (SKD)? It is what the step costs more than that on texts of the data.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import study

RESULTS = study.HERE / "results" / "tokens.jsonl"


def prepared(method: str, texts: pathlib.Path, workdir):
  """A run that is ready for its first step, on devices."""
  from ckd_jax import config as configuration
  from ckd_jax.run.train import prepare

  keys = {
    "dataset.path": str(texts / "sst2"),
    "teacher.source": "table",
    "teacher.path": str(texts / "teachers" / "sst2_e5_logits.npz"),
  }
  config = configuration.get_config("sst2", method=method, **keys)
  return prepare(config, workdir).context


def seconds(step, carry, steps: int):
  """(processor seconds a step, what the last one gave)."""
  import jax

  began = time.process_time()
  for _ in range(steps):
    carry = step(carry)
    jax.block_until_ready(carry)
  return (time.process_time() - began) / steps, carry


def measure(method: str, flags) -> dict:
  """One line of the results."""
  import jax
  import jax.numpy as jnp
  from etils import epath
  from throughput import bare_step

  with tempfile.TemporaryDirectory() as folder:
    fit = prepared(method, flags.texts, epath.Path(folder))
  launch, recipe = fit.launch(1), fit.plan.recipe
  copies = [jax.tree.map(jnp.copy, fit.state) for _ in range(2)]
  steps = {
    "step": lambda state: launch(state, fit.examples, fit.key)[0],
    "bare": bare_step(fit, copies[1]),
  }
  carries = dict(zip(steps, copies, strict=True))
  times: dict[str, list[float]] = {name: [] for name in steps}
  for turn in range(flags.repeats + 1):  # the first one warms up
    for name, step in steps.items():
      each, carries[name] = seconds(step, carries[name], flags.steps)
      if turn:
        times[name].append(each)
  step, bare = (statistics.median(times[name]) for name in steps)
  tokens = fit.images_per_step * recipe.view.length
  return {
    **study.stamp(),
    "method": method,
    "tokens_a_step": tokens,
    "processor_milliseconds": round(1e3 * step, 2),
    "bare_processor_milliseconds": round(1e3 * bare, 2),
    "tokens_a_processor_second": round(tokens / step),
    "share_of_bare_step": round(bare / step, 3),
    "device": f"{fit.mesh.size} x {jax.devices()[0].device_kind}",
    "jax": jax.__version__,
  }


def measure_writing(flags) -> dict:
  """One line of the results: on_policy by who writes the texts."""
  import jax
  from etils import epath

  from ckd_jax import config as configuration
  from ckd_jax.run.train import prepare

  keys = {"teacher.source": "checkpoint", "teacher.path": flags.teacher}
  steps, carries, times = {}, {}, {}
  for source in ("data", "student", "teacher", "skd"):
    config = configuration.get_config(
      "names", method="on_policy", **keys, **{"hyper.source": source}
    )
    with tempfile.TemporaryDirectory() as folder:
      fit = prepare(config, epath.Path(folder)).context
    launch = fit.launch(1)
    # Each step of the loop is that of its own fit.
    steps[source] = lambda state, launch=launch, fit=fit: launch(
      state, fit.examples, fit.key
    )[0]
    carries[source], times[source] = fit.state, []
  tokens = fit.images_per_step * fit.plan.recipe.view.length
  for turn in range(flags.repeats + 1):  # the first one warms up
    for source, step in steps.items():
      each, carries[source] = seconds(step, carries[source], flags.steps)
      if turn:
        times[source].append(each)
  cost = {source: statistics.median(every) for source, every in times.items()}
  return {
    **study.stamp(),
    "method": "on_policy",
    "tokens_a_step": tokens,
    "processor_milliseconds": {
      source: round(1e3 * each, 2) for source, each in cost.items()
    },
    "tokens_a_processor_second": {
      source: round(tokens / each) for source, each in cost.items()
    },
    "share_of_writing": {
      source: round(1 - cost["data"] / each, 3) for source, each in cost.items()
    },
    "device": f"{fit.mesh.size} x {jax.devices()[0].device_kind}",
    "jax": jax.__version__,
  }


def main() -> None:
  """Measures every method, or who writes the texts."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument("--texts", type=pathlib.Path)
  source.add_argument("--teacher")
  parser.add_argument("--methods", default="kd,mixkd")
  parser.add_argument("--repeats", type=int, default=7)
  parser.add_argument("--steps", type=int, default=5)
  flags = parser.parse_args()
  methods = flags.methods.split(",")
  lines = (
    [measure_writing(flags)]
    if flags.teacher
    else (measure(method, flags) for method in methods)
  )
  for line in map(json.dumps, lines):
    print(line, flush=True)
    with open(RESULTS, "a") as file:
      file.write(line + "\n")


if __name__ == "__main__":
  main()
