"""The command `ckd-jax sweep`: many runs of one config.

Every combination is an ordinary run in its own folder, to be resumed, reported
and exported like any other. The runs share the teacher's answers.
"""

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence

import jax
from etils import epath

from ckd_jax import config as configuration
from ckd_jax import errors
from ckd_jax.errors import UserError
from ckd_jax.system import console

HELP = """\
ckd-jax sweep --config=FILE[:key=value,...] --over=KEY[+KEY]=V,V ... [FLAGS]
              (the same: python -m ckd_jax.sweep)

Runs the config for every combination of the values. The same command resumes.
Then: ckd-jax report DIR

  ckd-jax sweep --config=configs/digits.py --over=method=kd,ckd,dkd \\
    --over=seed=1,2,3
  ckd-jax sweep --config=configs/cifar100.py --over=seed+budget_seed=1,2,3 \\
    --over=budget=500,1000,2000 --over=optimizer.learning_rate=0.1,0.05

flags
  --over=KEY[+KEY]=V,V       keys joined by + get the same value; a method comes
                             with its own hyper-parameters
  --config.KEY=VALUE         for all of them
  --workdir=DIR              one folder in it for each run
  --how=auto|together|in_turn
                             runs that differ in seed, budget or rate alone can
                             share one program, `together`; `auto` measures what
                             is faster on an accelerator, and trains in turn on
                             a CPU
  --at_once=16               students in one program, at most
  --debug                    show tracebacks
  --hosts=auto, --coordinator=HOST:PORT --processes=N --process=I
                             as of ckd-jax train
"""
# Runs that differ in nothing else can be trained by one program.
_SHARED = (
  "seed",
  "budget",
  "budget_seed",
  "label",
  "optimizer.learning_rate",
  "table.path",
)
_CHOICES = {"how": "auto", "at_once": "16"}


def main(argv: list[str]) -> None:
  """Runs the config for every combination of the values in the flags."""
  if {"-h", "--help"} & set(argv):
    print(HELP, configuration.keys(), configuration.epilog(), sep="\n", end="")
    return
  from ckd_jax.system import compile_cache, devices, hosts

  devices.use_every_core()
  argv = hosts.join(argv)
  with hosts.together(), compile_cache.persistent_cache():
    run(*read(argv))


def read(argv: Sequence[str]) -> tuple[dict, str, int]:
  """({folder: config}, how, max_students), everything checked.

  Raises:
    UserError: a flag or a value is wrong.
  """
  overs, chosen, rest = [], dict(_CHOICES), []
  for item in argv:
    name, _, value = item.removeprefix("--").partition("=")
    if item.startswith("--over="):
      overs.append(_over(value))
    elif item.startswith("--") and name in chosen:
      chosen[name] = value
    else:
      rest.append(item)
  if not overs:
    raise UserError("nothing to vary: give --over=seed=1,2,3")
  hows = ("auto", "in_turn", "together")
  if chosen["how"] not in hows:
    hint = errors.nearest(chosen["how"], hows)
    raise UserError(f"unknown --how={chosen['how']}: {hint}")
  if not chosen["at_once"].isdecimal() or int(chosen["at_once"]) < 1:
    raise UserError(
      f"--at_once={chosen['at_once']}: give a whole number of 1 or more"
    )
  config, workdir = configuration.from_flags(rest)
  if not any(item.startswith("--workdir") for item in rest):
    digest = hashlib.sha256(json.dumps(overs).encode()).hexdigest()[:8]
    workdir = f"{workdir}-sweep-{digest}"
  bases = {config.method: config}
  runs = {}
  for options in combinations(overs):
    method = options.get("method", config.method)
    if method not in bases:
      bases[method], _ = configuration.from_flags(_with_method(rest, method))
    one = vary(bases[method], options, epath.Path(workdir))
    runs[epath.Path(workdir) / name_of(options)] = one
  return runs, chosen["how"], int(chosen["at_once"])


def _with_method(argv: Sequence[str], method: str) -> list[str]:
  """The same flags with another method after the colon of --config."""

  def renamed(item: str) -> str:
    if not item.startswith("--config="):
      return item
    path, _, arg = item.partition(":")
    kept = [x for x in arg.split(",") if x and not x.startswith("method=")]
    return f"{path}:{','.join([*kept, f'method={method}'])}"

  return [renamed(item) for item in argv]


def _over(text: str) -> tuple[list[str], list[str]]:
  """`seed+budget_seed=1,2` as its keys and its values."""
  keys, equals, values = text.partition("=")
  parts = keys.split("+"), values.split(",")
  if not equals or not all(itertools.chain(*parts)):
    raise UserError(f"--over={text}: write --over=KEY=VALUE,VALUE")
  if len(set(parts[1])) < len(parts[1]):
    raise UserError(f"--over={text}: a value comes twice")
  return parts


def combinations(overs) -> list[dict[str, str]]:
  """One {key: value} for every choice of a value from each."""
  choices = [
    [dict.fromkeys(keys, value) for value in values] for keys, values in overs
  ]
  return [
    {key: value for part in parts for key, value in part.items()}
    for parts in itertools.product(*choices)
  ]


def name_of(options: dict[str, str]) -> str:
  """The folder of a combination."""
  return ",".join(f"{key}={value}" for key, value in options.items())


def vary(config, options: dict[str, str], workdir):
  """The config of one combination.

  Raises:
    UserError: there is no such key, or a value is out of range.
  """
  one = config.copy_and_resolve_references()
  one.unlock()
  configuration.override(one, options)
  configuration.check(one)  # before a path is taken from it
  # The report already separates method, seed and budget; other values go into
  # `label`.
  shown = ("method", "seed", "budget", "budget_seed")
  rest = {key: value for key, value in options.items() if key not in shown}
  if rest and not config.label and "label" not in options:
    one.label = name_of({key.split(".")[-1]: rest[key] for key in rest})
  # One teacher, and one table for each choice of images and their views.
  source = "several" if one.teacher.sources else one.teacher.source
  if source == "train" and not one.teacher.path:
    one.teacher.path = str(workdir / "teacher")
  if source not in ("none", "table"):
    if not one.table.path:
      one.table.path = str(workdir / f"table-{one.budget_seed}")
  one.lock()
  return one


def run(runs: dict, how: str, max_students: int) -> list[dict]:
  """Runs or resumes every run.

  Args:
    runs: {folder: config}.
    how: "auto", "together" or "in_turn".
    max_students: students in one program, at most.

  Returns:
    The contents of each summary.json, in the order of `runs`.

  Raises:
    UserError: a mistake of the user, or some runs diverged.
  """
  from ckd_jax.run import check_workdir, figure

  finished = {
    folder: check_workdir(folder, config, "--workdir")
    for folder, config in runs.items()
  }
  open_runs = {
    folder: config for folder, config in runs.items() if not finished[folder]
  }
  console.say(
    f"{len(runs)} runs, {len(runs) - len(open_runs)} of them finished"
  )
  if how == "together":
    for why in filter(None, dict.fromkeys(map(why_apart, open_runs.values()))):
      console.say(f"in turn: {why} cannot share a program")
  for group in groups(open_runs, how, max_students):
    train_group = in_turn if len(group) == 1 else TRAINERS[how]
    for folder, results in train_group(group):
      finished[folder] = results
      if results:
        console.say(f"{folder.name}: {figure(results, 'test')}")
  if lacking := [folder.name for folder in runs if not finished[folder]]:
    raise UserError(
      f"{len(lacking)} of {len(runs)} runs diverged, the others are finished: "
      f"leave out their values ({'; '.join(lacking)})"
    )
  return list(finished.values())


def groups(runs: dict, how: str, max_students: int) -> list[dict]:
  """The runs that one program could train, at most `max_students` each."""
  alike: dict[str, list] = {}
  for folder, config in runs.items():
    alone = how == "in_turn" or not can_share(config)
    facts = configuration.flatten(configuration.to_json(config))
    kept = {key: facts[key] for key in facts if key not in _SHARED}
    key = str(folder) if alone else json.dumps(kept, sort_keys=True)
    alike.setdefault(key, []).append((folder, config))
  result = []
  for group in alike.values():
    count = math.ceil(len(group) / max_students)
    size = math.ceil(len(group) / count)  # 17 are 9 and 8, not 16 and 1
    result += [dict(group[i : i + size]) for i in range(0, len(group), size)]
  return result


def can_share(config) -> bool:
  """Whether runs of other seeds, budgets and rates can share its program."""
  return not why_apart(config)


def why_apart(config) -> str:
  """What keeps a run out of a program with others; "" if nothing does."""
  from ckd_jax import methods
  from ckd_jax.system import hosts

  reasons = {
    "several hosts": hosts.many(),
    f"stages of {config.method}": methods.make(
      config.method, **config.hyper
    ).stages,
    "teacher.live": config.teacher.live,
    "dataset.placement=stream": config.dataset.placement == "stream",
    "batch_norm=device": config.get("batch_norm") == "device",
  }
  return next((what for what, holds in reasons.items() if holds), "")


def in_turn(configs: dict):
  """One run after the other."""
  from ckd_jax.run import Diverged
  from ckd_jax.run import run as train_one

  for folder, config in configs.items():
    try:
      yield folder, train_one(config, folder)
    except Diverged as error:
      console.say(f"{folder.name}: {error}")
      yield folder, None


def together(configs: dict):
  """All of them in one program, spread over the devices."""
  from ckd_jax.run import prepare_all, train_together

  runs = prepare_all(configs)
  for some in runs:
    yield from train_together(some)


def auto(configs: dict):
  """In the faster way: the grouped convolutions of vmap can be slower."""
  if jax.default_backend() == "cpu":  # no gain was measured there
    return in_turn(configs)
  from ckd_jax.run import train_faster

  return train_faster(configs, in_turn)


# {folder: config} -> (folder, contents of summary.json or None) of each run.
Trainer = Callable[[dict], Iterator[tuple]]
TRAINERS: dict[str, Trainer] = {
  "auto": auto,
  "in_turn": in_turn,
  "together": together,
}


if __name__ == "__main__":
  status = errors.command(main, sys.argv[1:])
  from ckd_jax.system import hosts

  hosts.leave(status)
