"""What does a method's loss cost beside the student's own step?

  python experiments/method_cost.py [--students=resnet8,wrn_16_2]
    [--batches=64,512] [--methods=icd,crd] [--repeats=5]

The student's step is the supervised one: forward, backward, update, on so many
images. A method's loss and gradient, to the student's outputs and to its own
heads, is compiled alone and sharded as in a run, for as many images through the
student; answers are random, of the shapes that student and teacher give.
Milliseconds are medians, compilation apart; memory is what XLA sets aside for
intermediate results, per device. The growth is the exponent of the batch
between its smallest and its largest size. One line a measurement is appended to
results/method_cost.jsonl; the newest ones of this device are printed.
"""

import argparse
import json
import math
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import study
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ckd_jax import methods, models
from ckd_jax.data import ImageView
from ckd_jax.methods import Batch, Method, Outputs, Task
from ckd_jax.step import (
  Examples,
  Recipe,
  init_state,
  make_update,
  optimizer,
)
from ckd_jax.system.devices import use_every_core

RESULTS = study.HERE / "results" / "method_cost.jsonl"
TEACHERS = {"resnet8": "resnet56", "wrn_16_2": "wrn_40_2"}
CLASSES, ROWS, SIZE = 100, 50_000, (32, 32, 3)  # CIFAR-100
STEP = "the student's step"
VARIANTS = {
  "ckd": {
    f"ckd, {estimator}": {"estimator": estimator}
    for estimator in ("groups", "batch_groups", "all")
  },
  "ckd_features": {
    f"ckd + {features}": {"features": features}
    for features in ("fitnet", "cc", "vid")
  },
}


class Bench(NamedTuple):
  """How everything is measured."""

  rows: NamedSharding  # over the devices
  repeats: int

  def measure(self, function, *arguments) -> dict:
    """Compiles, weighs and times one function."""
    compiled = jax.jit(function).lower(*arguments).compile()

    def timed(count):
      start = time.perf_counter()
      for _ in range(count):
        jax.block_until_ready(compiled(*arguments))
      return (time.perf_counter() - start) / count

    timed(1)  # warm
    count = max(1, round(0.3 / timed(1)))
    times = [timed(count) for _ in range(self.repeats)]
    memory = compiled.memory_analysis()
    return {
      "milliseconds": round(1e3 * statistics.median(times), 4),
      "megabytes": round(memory.temp_size_in_bytes / 2**20, 2),
    }

  def draw(self, shape) -> jax.Array:
    """Random numbers, their first axis over the devices."""
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    return jax.device_put(values, self.rows)

  def outputs(self, network: str, lead, fields) -> Outputs:
    """What a network might answer; only the fields that are read."""
    shapes = outputs_of(network)
    kept = {field: getattr(shapes, field) for field in fields}
    return Outputs(
      **jax.tree.map(lambda x: self.draw((*lead, *x.shape[1:])), kept)
    )


def outputs_of(network: str) -> Outputs:
  """The shapes of a network's answer to one image."""
  model = models.get(network, CLASSES)
  image = jax.ShapeDtypeStruct((1, *SIZE), jnp.float32)

  def answer(image):
    weights = model.init(jax.random.key(0), image)
    return model.apply(*weights, image, train=False)[0]

  return jax.eval_shape(answer, image)


def student_step(bench: Bench, student: str, images: int) -> dict:
  """The supervised step on one batch."""
  method, model = methods.make("supervised"), models.get(student, CLASSES)
  labels = np.arange(images, dtype=np.int32) % CLASSES
  recipe = Recipe(
    method,
    model,
    task=Task(images, CLASSES, images, 1, labels),
    view=ImageView(SIZE, (0.0,) * 3, (1.0,) * 3),
    transform=optimizer.sgd(0.9, 5e-4),
    schedule=lambda step: jnp.float32(0.1),
  )
  examples = Examples(np.zeros((1, *SIZE), np.uint8), labels)
  state = jax.jit(lambda key: init_state(key, recipe, examples))(
    jax.random.key(0)
  )
  batch = Batch(
    index=labels[:, None],
    inputs=bench.draw((images, 1, *SIZE)),
    labels=jax.device_put(labels[:, None], bench.rows),
  )
  update = make_update(recipe)
  return bench.measure(
    update, state, batch, list(jax.random.split(jax.random.key(0), 3))
  )


def losses(bench: Bench, method: Method, student: str, images: int):
  """Measurements of a method's stages, in order, and of what comes after."""
  labels = np.arange(ROWS, dtype=np.int32) % CLASSES
  fields = method.needs | {"logits"}
  one = [
    jax.tree.map(lambda x: jnp.zeros((1, *x.shape)), outputs_of(network))
    for network in (student, TEACHERS[student])
  ]

  def begin(key, batch_size):
    """Heads, memories, and the rows of the first step."""
    task = Task(ROWS, CLASSES, batch_size, ROWS // batch_size, labels)
    params, state = method.init(key, task, *one)
    return params, state, method.sample(key, jnp.int32(0), task, state)

  def show(index):
    """The batch as the student gets it."""
    answers = bench.outputs(TEACHERS[student], index.shape, fields)
    return jax.jit(method.prepare)(
      jax.random.key(2),
      Batch(
        index=jax.device_put(index, bench.rows),
        inputs=bench.draw((*index.shape, *SIZE)),
        labels=jax.device_put(labels[np.asarray(index)], bench.rows),
        teachers=(answers,),
      ),
    )

  begin = jax.jit(begin, static_argnums=1)
  *_, few = begin(jax.random.key(1), 8)
  per_row = show(few).inputs.shape[1]  # through the student
  params, state, index = begin(jax.random.key(1), images // per_row)
  batch = show(index)
  answers = bench.outputs(student, batch.inputs.shape[:2], fields)

  def graded(loss):
    def call(params, outputs, state, batch, key):
      return loss(params, state, outputs, batch, key, jnp.int32(0))

    return jax.value_and_grad(call, argnums=(0, 1), has_aux=True)

  for stage in method.stages:
    yield bench.measure(
      graded(stage.loss), params, answers, state, batch, jax.random.key(3)
    )
    params, state = stage.finish(params, state)
  yield bench.measure(
    graded(method.loss), params, answers, state, batch, jax.random.key(3)
  )


def cases(names: list[str]):
  """(label, method) of every method and of its variants."""
  for name in names:
    for label, hyper in VARIANTS.get(name, {name: {}}).items():
      yield label, methods.make(name, **hyper)


def table_of_results(device: str) -> str:
  """Markdown: milliseconds and megabytes, by student and batch."""
  lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
  rows = [row for row in map(json.loads, lines) if row["device"] == device]
  found = {(row["student"], row["what"], row["images"]): row for row in rows}
  sizes = sorted({size for _, _, size in found})
  body = []
  for student, what in dict.fromkeys(key[:2] for key in found):
    by_size = [found.get((student, what, size)) for size in sizes]
    cells = []
    for size, row in zip(sizes, by_size, strict=True):
      step = found.get((student, STEP, size))
      cells += (
        [
          f"{row['milliseconds']:.2f}",
          f"{100 * row['milliseconds'] / step['milliseconds']:.0f}",
          f"{row['megabytes']:.1f}",
        ]
        if row and step
        else ["-"] * 3
      )
    growth = "-"
    if len(sizes) > 1 and by_size[0] and by_size[-1]:
      ratio = by_size[-1]["milliseconds"] / by_size[0]["milliseconds"]
      growth = f"{math.log(ratio) / math.log(sizes[-1] / sizes[0]):.2f}"
    body.append([student, what, *cells, growth])
  head = ["student", "what"]
  for size in sizes:
    head += [f"ms at {size}", f"% of step at {size}", f"MB at {size}"]
  return study.markdown([*head, "growth"], body)


def main() -> None:
  """Measures, appends, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--students", default="resnet8,wrn_16_2")
  parser.add_argument("--batches", default="64,512")
  parser.add_argument("--methods", default=",".join(methods.names()))
  parser.add_argument("--repeats", type=int, default=5)
  flags = parser.parse_args()
  use_every_core()
  devices = jax.devices()
  mesh = jax.make_mesh(
    (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
  )
  bench = Bench(NamedSharding(mesh, PartitionSpec("data")), flags.repeats)
  device = f"{len(devices)} x {devices[0].device_kind}"
  facts = {"device": device, "jax": jax.__version__, **study.stamp()}
  RESULTS.parent.mkdir(exist_ok=True)

  def keep(student, images, what, found):
    row = {"student": student, "images": images, "what": what, **found, **facts}
    print(json.dumps(row), flush=True)
    with open(RESULTS, "a") as file:
      file.write(json.dumps(row) + "\n")

  for student in flags.students.split(","):
    for images in map(int, flags.batches.split(",")):
      keep(student, images, STEP, student_step(bench, student, images))
      for label, method in cases(flags.methods.split(",")):
        found = list(losses(bench, method, student, images))
        for number, one in enumerate(found[:-1], 1):
          keep(student, images, f"{label}, stage {number}", one)
        keep(student, images, label, found[-1])
  print(table_of_results(device))


if __name__ == "__main__":
  main()
