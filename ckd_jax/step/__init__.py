"""The training step as a pure function, its input and its evaluation.

`Recipe` describes a step, `make_step` makes it, it changes a `State` and reads
`Examples`.
"""

from ckd_jax.step import optimizer
from ckd_jax.step.begin import init_state
from ckd_jax.step.evaluate import (
  Encode,
  Forward,
  Placed,
  Predict,
  make_branches,
  make_encode,
  make_forward,
  make_predict,
  make_vectors,
  measures,
  percent,
  place,
)
from ckd_jax.step.guard import SKIPPED, guarded, is_finite, is_sound
from ckd_jax.step.per_device import per_device
from ckd_jax.step.rows import Rows, take_rows
from ckd_jax.step.sharding import (
  host_device,
  make_batch_sharder,
  make_mesh,
  replicated,
  streams,
)
from ckd_jax.step.stage import KEEP_GRADIENT, finish_stage, staged
from ckd_jax.step.state import (
  Examples,
  Live,
  State,
  capacity,
  gather,
  pad,
  runtime_task,
)
from ckd_jax.step.step import (
  Recipe,
  Step,
  Update,
  forward,
  make_step,
  make_update,
  repeat,
)
from ckd_jax.step.stream import prefetch, stream_batches
from ckd_jax.step.students import replace, shard_vmap, stack, take

__all__ = [
  "KEEP_GRADIENT",
  "SKIPPED",
  "Encode",
  "Examples",
  "Forward",
  "Live",
  "Placed",
  "Predict",
  "Recipe",
  "Rows",
  "State",
  "Step",
  "Update",
  "capacity",
  "finish_stage",
  "forward",
  "gather",
  "guarded",
  "host_device",
  "init_state",
  "is_finite",
  "is_sound",
  "make_batch_sharder",
  "make_branches",
  "make_encode",
  "make_forward",
  "make_mesh",
  "make_predict",
  "make_step",
  "make_update",
  "make_vectors",
  "measures",
  "optimizer",
  "pad",
  "per_device",
  "percent",
  "place",
  "prefetch",
  "repeat",
  "replace",
  "replicated",
  "runtime_task",
  "shard_vmap",
  "stack",
  "staged",
  "stream_batches",
  "streams",
  "take",
  "take_rows",
]
