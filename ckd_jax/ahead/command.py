"""`--compile_for=v5e:2x4`: does this run fit there, told in five lines."""

from typing import Any

import jax

from ckd_jax.ahead.answers import expected
from ckd_jax.ahead.compiling import Compiled, Launch, TooLarge, compiled, launch
from ckd_jax.ahead.figures import figures
from ckd_jax.ahead.reading import read
from ckd_jax.ahead.targets import Target, target
from ckd_jax.data import Dataset, count, size
from ckd_jax.run import (
  Plan,
  header,
  load_dataset,
  make_plan,
  refusing,
  rehearse_early,
)
from ckd_jax.system import console


def compile_for(config, name: str) -> None:
  """Compiles a run's longest launch and says what the compiler says of it.

  Nothing is asked, trained or written.

  Args:
    config: complete and checked.
    name: of a target.

  Raises:
    UserError: there is no such target or compiler, or the run does not fit.
  """
  jax.config.update("jax_platforms", "cpu")  # a device that is here rests
  place = target(name)
  dataset = load_dataset(config)
  plan = make_plan(config, dataset)
  with refusing(plan):
    rehearse_early(plan)
  kind = plan.recipe.view.kind
  outputs, live = expected(plan)
  made = launch(plan, place, outputs, live=live)
  try:
    built = compiled(made.function, made.given, place)
    beside = _evaluated(plan, dataset, made)
    _check_memory(built, beside, place)
  except TooLarge as error:
    raise TooLarge(
      f"--compile_for={name}: {error}: {_remedy(plan, made)}"
    ) from error
  report = read(built.text, made.tables)
  found = figures(report, made, built, place)
  console.say(header(_lines(found, made, built, place, beside, kind)))


def _evaluated(plan: Plan, dataset: Dataset, made: Launch) -> float:
  """Bytes on each device of what is evaluated, as a run places it."""
  if made.streamed:
    return 0.0
  counts = len(plan.rows.train), len(plan.rows.validation)
  rows = sum(counts) + len(dataset.test.labels)
  each = size(plan.inputs) / count(plan.inputs)
  return rows * each / made.mesh.size


def _check_memory(built: Compiled, beside: float, place: Target) -> None:
  needed = sum(built.memory.values()) + beside
  if needed > place.chip.memory:
    raise TooLarge(
      f"out of memory: {_size(needed)} of {_size(place.chip.memory)} on each "
      "device"
    )


def _remedy(plan: Plan, made: Launch) -> str:
  """What to lower, the most likely first."""
  task, given = plan.recipe.task, made.given
  remedies = [f"batch_size (now {task.batch_size})"]
  if given.examples.teachers:
    remedies.append(f"budget (now {plan.about.budget}), which tables grow with")
  text = f"lower {' or '.join(remedies)}"
  if not made.streamed:
    text += ", set dataset.placement=stream"
  if plan.about.dtype == "float32":
    text += ", set dtype=bfloat16"
  return f"{text}, or take more devices"


def _lines(
  found: dict[str, Any],
  made: Launch,
  built: Compiled,
  place: Target,
  beside: float,
  rows: str,
) -> list[tuple[str, str]]:
  """The five lines."""
  memory = built.memory
  total = sum(memory.values()) + beside
  kind = place.devices[0].device_kind
  streamed = ", sent by the host" if made.streamed else ""
  return [
    (
      "compiled for",
      f"{place.name}, {built.devices} of {len(place.devices)} x {kind}, in "
      f"{built.seconds:.0f} s; nothing ran: figures are the compiler's "
      "estimates",
    ),
    (
      "launch",
      f"{made.times} steps of {made.images} {rows}{streamed}, "
      f"{made.images // built.devices} on each device",
    ),
    (
      "memory",
      f"fits: {_size(total)} of {_size(place.chip.memory)} on each device: "
      f"{_parts(memory, beside, rows)}",
    ),
    ("collectives", _collectives(found["collectives"])),
    ("step", _step(found)),
  ]


def _parts(memory: dict[str, int], beside: float, rows: str) -> str:
  """What the memory of a device holds: all that is counted, but for zeros."""
  held = {
    "state and tables": memory["arguments"],
    "results": memory["results"],
    "temporary": memory["temporary"],
    "code": memory["code"],
    f"{rows} to evaluate": beside,
  }
  return ", ".join(f"{_size(held[what])} {what}" for what in held if held[what])


def _size(number: float) -> str:
  """Bytes in kB, MB or GB of the decimal kind."""
  if number < 1e5:
    return f"{number / 1e3:.3g} kB"
  if number < 999.5e6:
    return f"{number / 1e6:.3g} MB"
  return f"{number / 1e9:.2f} GB"


def _collectives(found: dict[str, dict[str, float]]) -> str:
  """Those of a step: "31 all-reduce of 0.19 MB together"."""
  texts = [
    f"{each['count']:.0f} {kind} of {_size(each['bytes'])} together"
    for kind, each in found.items()
  ]
  return f"{', '.join(texts)}, in a step" if texts else "none"


def _step(found: dict[str, Any]) -> str:
  """What it costs, and whatever is suspicious about it."""
  least = found["roofline"]["microseconds"]
  limits = f"{least:,.2f} microseconds by the chip's limits"
  if "cycles" in found:
    ratio = found["roofline"]["ratio"]
    text = f"{found['cycles']:,} cycles, {ratio:,.1f} x {limits}"
  else:
    text = (
      f"{found['microseconds']:,.0f} microseconds of fusions in "
      f"{found['kernels']:.0f} kernels, convolutions apart; {limits}"
    )
  suspicious = {
    "loops over rows": found["row_loops"],
    "loops of unknown length": found["endless_loops"],
    "copies of tables": found["table_copies"],
    "host transfers": found["host"],
  }
  noted = [f"{what}: {len(all)}" for what, all in suspicious.items() if all]
  return "; ".join([text, *noted])
