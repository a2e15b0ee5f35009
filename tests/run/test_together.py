"""Students trained in one program equal those trained alone."""

import jax
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ckd_jax.step import shard_vmap

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize(
  ("students", "rows", "columns"), [(2, 2, 1), (4, 2, 2), (4, 4, 1)]
)
@pytest.mark.parametrize("size", [1, 3])
def test_convolutions_are_of_one_student(size, students, rows, columns):
  draw = np.random.default_rng(0)
  images = draw.normal(size=(students, 4, 3, 3, 8)).astype(np.float32)
  weights = draw.normal(size=(students, size, size, 8, 6)).astype(np.float32)

  def both(images, weights):
    def output(images, weights):
      return lax.conv_general_dilated(
        images, weights, (1, 1), "SAME", dimension_numbers=LAYOUT
      )

    value, pull = jax.vjp(output, images, weights)
    return value, pull(lax.cos(value))

  mesh = jax.make_mesh(
    (rows, columns),
    ("students", "data"),
    axis_types=(AxisType.Auto,) * 2,
    devices=jax.devices()[: rows * columns],
  )
  placed = [
    jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
    for x, axes in ((images, ("students", "data")), (weights, ("students",)))
  ]
  together = jax.jit(shard_vmap(both, mesh))(*placed)
  alone = jax.jit(both)
  for student in range(students):
    jax.tree.map(
      lambda x, y, at=student: np.testing.assert_allclose(
        x[at], y, rtol=1e-5, atol=1e-4
      ),
      together,
      alone(images[student], weights[student]),
    )
