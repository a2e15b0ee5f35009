"""How many images a second does the host decode, with and without the step?

  python experiments/streaming.py [--dataset=cifar100] [--image_size=N]
    [--student=resnet8] [--rows=50000] [--batch=128] [--seconds=20]

The set is one that tensorflow-datasets has prepared (see TFDS_DATA_DIR); its
images stay in their files and are decoded by Grain for the step that wants
them. The step is timed on its own as well, on images that lie on the device:
decoding is free where `with the step` is as fast as `the step alone`. Lines are
appended to results/streaming.jsonl.
"""

import argparse
import itertools
import json
import time

import fake
import study

from ckd_jax.system.devices import use_every_core

RESULTS = study.HERE / "results" / "streaming.jsonl"


def rate(consume, batches, images: int, seconds: float) -> float:
  """Images a second, once the buffers have been emptied and filled again.

  Args:
    consume: what is done with a batch, and waited for.
    batches: an iterator without end.
    images: in one of them.
    seconds: to measure; as long again goes before.
  """
  for _ in range(2):
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
      consume(next(batches))
      done += 1
    elapsed = time.perf_counter() - start
  return done * images / elapsed


def main() -> None:
  """Measures, appends, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--dataset", default="cifar100")
  parser.add_argument("--image_size", type=int)
  parser.add_argument("--student", default="resnet8")
  parser.add_argument("--rows", type=int, default=50_000)
  parser.add_argument("--batch", type=int, default=128)
  parser.add_argument("--seconds", type=float, default=20.0)
  flags = parser.parse_args()
  use_every_core()
  import jax
  import jax.numpy as jnp

  from ckd_jax import data

  dataset = data.load(flags.dataset, image_size=flags.image_size, lazy=True)
  options = {"batch_size": flags.batch, "dataset.placement": "stream"}
  options |= {"budget": flags.rows}
  fit = fake.prepare(
    flags.student,
    dataset=dataset,
    options=options,
    hyper={"estimator": "all"},
  )
  launch, state = fit.launch(1), jax.tree.map(jnp.copy, fit.state)

  def step(examples):
    nonlocal state
    state, _ = launch(state, examples, fit.key)
    jax.block_until_ready(state.step)

  feed = fit.feed(fit.key, fit.state.method, 0)
  resident = next(feed)
  row = {
    "dataset": flags.dataset,
    "shape": list(resident.inputs.shape[-3:]),
    "student": flags.student,
    "images_a_step": flags.batch,
    "rows": flags.rows,
  }
  cases = {
    "decoding": (lambda examples: examples.inputs.block_until_ready(), feed),
    "decoding_and_step": (step, feed),
    "step": (step, itertools.repeat(resident)),
  }
  for name, (consume, batches) in cases.items():
    each = rate(consume, batches, flags.batch, flags.seconds)
    row[f"{name}_images_per_second"] = round(each, 1)
  row |= {
    "device": f"{fit.mesh.size} x {jax.devices()[0].device_kind}",
    "jax": jax.__version__,
    **study.stamp(),
  }
  with open(RESULTS, "a") as file:
    file.write(json.dumps(row) + "\n")
  print(json.dumps(row))


if __name__ == "__main__":
  main()
