"""The program that a run launches, compiled for devices that are not there."""

import re
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ckd_jax.ahead.shapes import (
  Arguments,
  arguments,
  images_per_step,
  tables,
)
from ckd_jax.ahead.targets import Target
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs
from ckd_jax.run import Plan, longest_launch, make_own_step, make_programs
from ckd_jax.step import (
  Live,
  Step,
  make_mesh,
  make_step,
  streams,
)


class Compiled(NamedTuple):
  """What came of it.

  Attributes:
    text: the program, as the compiler wrote it.
    memory: bytes on each device: arguments, results, temporary, code.
    seconds: of compiling.
    devices: on which it runs.
  """

  text: str
  memory: dict[str, int]
  seconds: float
  devices: int


class Launch(NamedTuple):
  """A run's launch, not yet compiled.

  Attributes:
    function: jitted.
    given: shapes of its arguments.
    step: one step of it, for one device, not jitted.
    times: steps in it.
    batch: rows of a step's index.
    images: through the student in a step.
    mesh: the devices.
    streamed: whether the host sends the images of each step.
    tables: {name: jax.ShapeDtypeStruct} of which no copy should be made.
  """

  function: Any
  given: Arguments | tuple
  step: Step
  times: int
  batch: int
  images: int
  mesh: Mesh
  streamed: bool
  tables: dict[str, jax.ShapeDtypeStruct]


class TooLarge(UserError):
  """A program does not fit into the memory of its devices."""


def launch(
  plan: Plan,
  target: Target,
  outputs: tuple[Outputs, ...],
  *,
  live: Live | None = None,
  times: int = 0,
  count: int = 0,
  finished: int | None = None,
) -> Launch:
  """What a run of this plan would launch there.

  Args:
    plan: what the run will do.
    target: the devices.
    outputs: shapes [rows, ...] of the answers of each teacher.
    live: teachers inside the step, whose weights are shapes.
    times: steps in a launch; 0: as many as the run's longest has.
    count: of the devices, the first ones; 0: all of them.
    finished: stages of the method that are done; None: all of them.

  Raises:
    UserError: the devices do not divide the batch, and are of several hosts.
  """
  devices = target.devices[: count or None]
  mesh = make_mesh(plan.recipe.task.batch_size, devices=devices)
  streamed = streams(plan.placement, plan.inputs, target.chip.memory)
  step = make_own_step(plan, mesh, live)
  programs = make_programs(plan, mesh, live, step)
  weights = () if live is None else live.weights
  given = arguments(
    plan,
    programs,
    outputs,
    mesh,
    weights=weights,
    streamed=streamed,
    finished=finished,
  )
  times = times or longest_launch(plan, streamed, mesh)
  images = images_per_step(plan, given)
  return Launch(
    function=programs.launch(times),
    given=given,
    step=make_step(plan.recipe, live=live),
    times=times,
    batch=plan.recipe.task.batch_size,
    images=images,
    mesh=mesh,
    streamed=streamed,
    tables=tables(given, streamed),
  )


def compiled(function, given, target: Target) -> Compiled:
  """Compiles a jitted function for a target.

  Args:
    function: jitted.
    given: its arguments: shapes that know their place.
    target: the devices of that place.

  Raises:
    TooLarge: it needs more memory than the devices have.
  """
  lowered = function.lower(*given)
  began = time.perf_counter()
  try:
    made = lowered.compile(compiler_options=target.options or None)
  except jax.errors.JaxRuntimeError as error:
    found = re.search(r"Used ([\d.]+\w+) of ([\d.]+\w+) hbm", str(error))
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    how = f": {found[1]} of {found[2]}" if found else ""
    raise TooLarge(f"out of memory{how}") from error
  seconds = time.perf_counter() - began
  found = made.memory_analysis()
  memory = {
    "arguments": found.argument_size_in_bytes,
    "results": found.output_size_in_bytes - found.alias_size_in_bytes,
    "temporary": found.temp_size_in_bytes,
    "code": found.generated_code_size_in_bytes,
  }
  devices = len(jax.tree.leaves(made.input_shardings)[0].device_set)
  return Compiled(made.as_text(), memory, seconds, devices)
