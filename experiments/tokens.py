"""How many tokens a second, beside the bare step?

  python experiments/tokens.py --texts=DIR [--methods=kd,mixkd] [--repeats=7]

configs/sst2.py (64 texts of 40 tokens, transformer_tiny) with the answers that
texts.py uses. A step of a run samples, gathers and compares; the bare step
updates on one batch that lies there already. Both in turn, medians, in seconds
of the processor: other programs on the machine change those less than the
clock's. A token is a position of a text that goes through the student, padding
included. Lines go to results/tokens.jsonl.
"""

import argparse
import datetime
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
    "date": str(datetime.date.today()),
    "method": method,
    "tokens_a_step": tokens,
    "processor_milliseconds": round(1e3 * step, 2),
    "bare_processor_milliseconds": round(1e3 * bare, 2),
    "tokens_a_processor_second": round(tokens / step),
    "share_of_bare_step": round(bare / step, 3),
    "device": f"{fit.mesh.size} x {jax.devices()[0].device_kind}",
    "jax": jax.__version__,
  }


def main() -> None:
  """Measures every method."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--texts", type=pathlib.Path, required=True)
  parser.add_argument("--methods", default="kd,mixkd")
  parser.add_argument("--repeats", type=int, default=7)
  parser.add_argument("--steps", type=int, default=5)
  flags = parser.parse_args()
  for method in flags.methods.split(","):
    line = json.dumps(measure(method, flags))
    print(line, flush=True)
    with open(RESULTS, "a") as file:
      file.write(line + "\n")


if __name__ == "__main__":
  main()
