"""Places arrays: the mesh, a batch on it, and inputs there or on the host."""

import math
from collections.abc import Callable, Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ckd_jax.data import memory, size
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch


def make_mesh(
  batch_size: int,
  students: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """All devices, or as many as divide the batch, as (students, data).

  Args:
    batch_size: rows of one student's batch, divided over the axis `data`.
    students: number trained at once; as many devices as divide it make the
      axis `students`.
    devices: to choose from; None is all that are here.

  Raises:
    UserError: on several hosts every device must have its share.
  """
  devices = jax.devices() if devices is None else devices
  hosts = {device.process_index for device in devices}
  rows = math.gcd(students, len(devices))
  each = len(devices) // rows
  count = max(n for n in range(1, each + 1) if batch_size % n == 0)
  if count < each and len(hosts) > 1:
    raise UserError(
      f"batch_size {batch_size} is not a multiple of the {len(devices)} devices"
    )
  # Explicit axes, the default, break Linen convolutions.
  return jax.make_mesh(
    (rows, count),
    ("students", "data"),
    axis_types=(AxisType.Auto,) * 2,
    devices=devices[: rows * count],
  )


def make_batch_sharder(mesh: Mesh) -> Callable[[Batch], Batch]:
  """Makes the function that divides a batch's rows over the axis `data`."""

  def shard(batch: Batch) -> Batch:
    # Inside a shard_map over `students` that axis is of another kind.
    inside = jax.sharding.get_abstract_mesh()
    here = inside if "students" in inside.manual_axes else mesh
    rows = NamedSharding(here, PartitionSpec("data"))
    return jax.lax.with_sharding_constraint(batch, rows)

  return shard


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def host_device() -> jax.Device:
  """The CPU of this process, or its first device if JAX was given no CPU."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS without it
    return jax.local_devices()[0]


def streams(placement: str, inputs, memory_bytes: float = 0) -> bool:
  """Whether inputs stay with the host and are sent batch by batch.

  Args:
    placement: "device", "stream", or "auto": those that would take more than
      half of a device's memory.
    inputs: a tree of [n, ...], in memory or in files.
    memory_bytes: of a device; 0: it is asked.
  """
  if placement != "auto":
    return placement == "stream"
  return size(inputs) > (memory_bytes or _memory()) / 2


def _memory() -> float:
  """Bytes of a device's memory; a CPU shares it with the host."""
  found = jax.local_devices()[0].memory_stats() or {}
  return found.get("bytes_limit") or memory()
