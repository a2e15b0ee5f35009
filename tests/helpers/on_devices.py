"""One step of every method on 1, 2, 4 and 8 devices, in a process of its own.

  python -m tests.helpers.on_devices [METHOD ...]

Prints {method: {mesh: largest deviation from one device}} as JSON: relative to
the largest number of each leaf of what the step returns. A mesh is S x D: S
students, D devices each; at the end, two students on the same four devices.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ckd_jax import augment, methods, models
from ckd_jax.data import ImageView
from ckd_jax.methods import Outputs, Task
from ckd_jax.step import (
  Examples,
  Recipe,
  finish_stage,
  init_state,
  make_batch_sharder,
  make_step,
  optimizer,
  shard_vmap,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
ROWS, BATCH, CLASSES = 40, 16, 5
HYPER = {
  "ckd": {"max_groups": 200},
  "ckd_features": {"max_groups": 200},
  "crd": {"negatives": 16},
  "rrd": {"rows": 32},
  **{name: {"max_groups": 200} for name in ("cutmix", "mixup", "mixup3")},
}


def mesh_of(students: int, devices: int) -> Mesh:
  places = np.array(jax.devices()[: students * devices])
  return Mesh(
    places.reshape(students, devices),
    ("students", "data"),
    axis_types=(AxisType.Auto,) * 2,
  )


def examples_for(model, method) -> Examples:
  """Random images, and what a random network says about them."""
  draw = np.random.default_rng(0)
  images = draw.integers(0, 256, (ROWS, 8, 8, 3), np.uint8)
  labels = draw.integers(0, CLASSES, ROWS).astype(np.int32)
  floats = augment.normalise(images, MEAN, STD)
  weights = model.init(jax.random.key(7), floats[:1])
  outputs, _ = model.apply(*weights, floats, train=False)
  fields = method.needs | {"logits"}
  outputs = Outputs(**{field: getattr(outputs, field) for field in fields})
  several = method.consult is not None  # whose answers differ
  teachers = tuple(
    outputs._replace(logits=scale * outputs.logits)
    for scale in ((1.0, 2.0, 3.0) if several else (1.0,))
  )
  return Examples(images, labels, teachers if method.needs else ())


def one_step(name: str):
  """(mesh, students) -> what the step of each of them returns; 0: one a row."""
  method = methods.make(name, **HYPER.get(name, {}))
  model = models.get("cnn", CLASSES)
  examples = jax.device_get(examples_for(model, method))
  crop_flip = augment.make("crop_flip", 1)
  view = ImageView(examples.inputs.shape[1:], MEAN, STD, crop_flip)
  recipe = Recipe(
    method,
    model,
    task=Task(ROWS, CLASSES, BATCH, 3, examples.labels),
    view=view,
    transform=optimizer.sgd(0.9, 5e-4),
    schedule=lambda step: jnp.float32(0.1),
  )
  state = jax.jit(lambda key: init_state(key, recipe, examples))(
    jax.random.key(3)
  )
  for stage in method.stages:
    state = finish_stage(stage, state, recipe.transform)
  state = jax.device_get(state)

  def run(mesh, students=0):
    step = make_step(recipe, shard=make_batch_sharder(mesh))
    students = students or mesh.shape["students"]
    keys = jax.random.split(jax.random.key(5), 2)[:students]
    where = NamedSharding(mesh, PartitionSpec("students"))
    stacked = jax.tree.map(
      lambda x: np.stack([x] * students), (state, examples)
    )
    return jax.device_get(
      jax.jit(shard_vmap(step, mesh))(*jax.device_put((*stacked, keys), where))
    )

  return run


def deviation(one, other) -> float:
  """The largest, of any leaf, relative to its largest number."""

  def of_leaf(a, b):
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    scale = max(float(np.abs(a).max(initial=0)), 1e-3)
    return float(np.abs(a - b).max(initial=0)) / scale

  return max(jax.tree.leaves(jax.tree.map(of_leaf, one, other)))


def main() -> None:
  """Before anything has started the devices."""
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 8)
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  found = {}
  for name in sys.argv[1:] or methods.names():
    run = one_step(name)
    both = run(mesh_of(2, 1))
    first = jax.tree.map(lambda x: x[:1], both)
    found[name] = {
      "1x1": deviation(first, run(mesh_of(1, 1))),
      **{f"1x{n}": deviation(first, run(mesh_of(1, n))) for n in (2, 4, 8)},
      "2x4": deviation(both, run(mesh_of(2, 4))),
      "2 on 1x4": deviation(both, run(mesh_of(1, 4), 2)),
    }
    print(name, found[name], file=sys.stderr, flush=True)
  print(json.dumps(found))


if __name__ == "__main__":
  main()
