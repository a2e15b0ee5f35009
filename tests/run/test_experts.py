"""Several teachers in a run: who is asked about what, and what that costs."""

import contextlib
import json

import pytest

from ckd_jax import table
from ckd_jax.ahead.answers import expected
from ckd_jax.errors import UserError
from ckd_jax.run import logger, make_plan, outcome
from tests.helpers import experts
from tests.helpers.experts import FLAG, SOURCES
from tests.helpers.runs import LINEAR, LINEAR_TEACHER, QUICK, read, run

ARG = QUICK + "method=ces_kd,steps=4,teacher.part_size=25"
# 80 images: strata of 27, 27 and 26.
PACED, UNPACED = [80, 53, 26], [80, 27, 26]


@pytest.fixture(autouse=True)
def no_questions():
  for name in experts.NAMES:
    experts.questions[name].clear()
  experts.stop_after.clear()


@pytest.mark.parametrize(
  ("pacing", "counts"),
  [(0.5, PACED), pytest.param(0.0, UNPACED, marks=pytest.mark.slow)],
)
def test_each_expert_is_asked_what_its_strata_need(tmp_path, pacing, counts):
  told = run(tmp_path, LINEAR, FLAG, arg=f"{ARG},hyper.pacing={pacing}")
  assert experts.counts() == counts
  assert [*told["expert_calls"].values()] == counts
  assert [*told["expert_calls"]] == list(SOURCES)
  assert told["teacher_calls"] == told["paid_calls"] == sum(counts)
  assert told["repeated_calls"] == 0 and told["teacher"] == SOURCES[-1]
  line = dict(outcome.result(told))["teacher calls"]
  assert line == f"{sum(counts)}: " + ", ".join(
    f"{count} of {source}"
    for count, source in zip(counts, SOURCES, strict=True)
  )
  for name, count in zip(experts.NAMES, counts, strict=True):
    place = tmp_path / "table" / f"callable-tests.helpers.experts-{name}"
    assert len(table.read(place).ids) == count
  small, middle, large = map(set, experts.questions.values())
  assert large | middle <= small and (large <= middle) == (pacing > 0)


@pytest.mark.slow  # six runs
def test_nothing_is_asked_twice_after_a_stop_nor_by_another_run(tmp_path):
  whole = run(tmp_path / "whole", LINEAR, FLAG, arg=ARG)
  for name in experts.NAMES:
    experts.questions[name].clear()
  folder = tmp_path / "run"
  for name, number in (("small", 30), ("middle", 40), ("large", 3)):
    experts.stop_after[name] = number
    with contextlib.suppress(KeyboardInterrupt):
      run(folder, LINEAR, FLAG, arg=ARG)
      pytest.fail("it was not stopped")
  told = run(folder, LINEAR, FLAG, arg=ARG)
  # One question was under way at each Ctrl-C.
  assert experts.counts() == [count + 1 for count in PACED]
  assert told["repeated_calls"] == 3 and told["paid_calls"] == sum(PACED)
  for key in ("params_sha256", "expert_calls"):
    assert told[key] == whole[key]
  ledger = json.loads((folder / "calls.json").read_text())["parts"]
  assert sum(part["rows"] for part in ledger.values()) == sum(PACED)
  # Another seed, or dgkd, shares the tables.
  shared = f"--config.table.path={folder / 'table'}"
  other = run(tmp_path / "b", LINEAR, FLAG, shared, "--config.seed=3", arg=ARG)
  assert other["paid_calls"] == 0 and other["teacher_calls"] == sum(PACED)
  arg = ARG.replace("ces_kd", "dgkd")
  every = run(tmp_path / "c", LINEAR, FLAG, shared, arg=arg)
  assert every["teacher_calls"] == 240
  assert every["paid_calls"] == 240 - sum(PACED)
  assert experts.counts() == [81, 81, 81]


def test_the_budget_is_the_limit_of_each(tmp_path):
  limit = "--config.teacher.max_calls=60"
  with pytest.raises(UserError, match="call 61 was not made"):
    run(tmp_path, LINEAR, FLAG, limit, arg=ARG)
  assert experts.counts() == [60, 0, 0]


@pytest.mark.slow  # whole runs; test_ces_kd.py has the losses
def test_one_teacher_is_kd_bit_for_bit(paid, tmp_path):
  """Through whole runs; a note says that there is one teacher."""
  flags = (LINEAR, f"--config.teacher.path={paid[0]}")
  arg = QUICK + "teacher.source=table,method="
  one = run(tmp_path / "one", *flags, arg=f"{arg}ces_kd")
  weights = "hyper.cross_entropy_weight=0.1,hyper.kd_weight=0.9"
  kd = run(tmp_path / "kd", *flags, arg=f"{arg}kd,{weights}")
  assert one["params_sha256"] == kd["params_sha256"]
  lines = [
    logger.read_metrics(tmp_path / name / "metrics.jsonl")
    for name in ("one", "kd")
  ]
  assert [x.get("loss") for x in lines[0]] == [x.get("loss") for x in lines[1]]


def test_a_network_and_a_black_box_together(teacher_run, tmp_path, capsys):
  """The largest is the teacher that the run tells of."""
  sources = (SOURCES[0], f"checkpoint:{teacher_run}")
  flag = f"--config.teacher.sources={sources!r}"
  told = run(tmp_path, LINEAR, LINEAR_TEACHER, flag, arg=ARG)
  assert [*told["expert_calls"].values()] == [80, 40]
  assert told["teacher"].startswith("run:")
  assert told["teacher_test_accuracy"] > 90


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    ((FLAG, "method=kd"), "'kd' learns from one teacher: .*: ces_kd, dgkd"),
    ((FLAG, "teacher.live=true"), "asked before training.*teacher.live=False"),
    ((FLAG, "teacher.pruned=0.1"), "set teacher.pruned=0.0"),
    ((FLAG, "teacher.sees=clean"), "teacher.sees=same"),
    (((SOURCES[0],),), "two or more different teachers"),
    ((SOURCES[:1] * 2,), "two or more different teachers"),
    ((("callable:math",) * 2,), "must be a tuple of callable:package.module"),
    ((("table:x", "y"),), "must be a tuple of callable:package.module"),
    ((("gpt2:x", SOURCES[0]),), r"torch:NAME:FILE \(gpt2 .* teacher.source"),
    ((("checkpoint:x", "torch:resnet19_a:y"),), "unknown teacher.sources"),
    ((("checkpoint:https://a:b@c", SOURCES[0]),), "holds the user name"),
  ],
)
def test_what_cannot_be_is_one_line(flags, says):
  first, *rest = flags
  first = first if first == FLAG else f"--config.teacher.sources={first!r}"
  with pytest.raises(UserError, match=says):
    read(LINEAR, first, arg=",".join([ARG, *rest]))


def test_a_teacher_of_other_classes_is_refused_before_any_call(tmp_path):
  channels = [
    f"--config.{owner}.{key}=(0.5,0.5,0.5)"
    for owner in ("dataset", "teacher")
    for key in ("mean", "std")
  ]
  run(
    tmp_path / "fake",
    LINEAR,
    *channels,
    arg=QUICK + "method=supervised,teacher.source=none,dataset.name=fake,"
    "steps=2,eval_every=2,checkpoint_every=2",
  )
  sources = (SOURCES[0], f"checkpoint:{tmp_path / 'fake'}")
  flag = f"--config.teacher.sources={sources!r}"
  with pytest.raises(UserError, match="digits"):
    run(tmp_path / "run", LINEAR, LINEAR_TEACHER, flag, arg=ARG)
  again = (SOURCES[0], "checkpoint:nowhere")
  with pytest.raises(UserError, match="nowhere"):
    flag = f"--config.teacher.sources={again!r}"
    run(tmp_path / "run", LINEAR, LINEAR_TEACHER, flag, arg=ARG)
  assert experts.counts() == [0, 0, 0]


def test_a_run_on_devices_that_are_not_here_has_all_tables(digits):
  plan = make_plan(read(LINEAR, FLAG, arg=ARG), digits)
  tables, live = expected(plan)
  assert [one.logits.shape for one in tables] == [(80, 10)] * 3
  assert live is None


def test_one_teacher_under_two_names_is_refused(teacher_run, tmp_path):
  sources = (f"checkpoint:{teacher_run}", f"checkpoint:{teacher_run}/.")
  flag = f"--config.teacher.sources={sources!r}"
  with pytest.raises(UserError, match=r"names run:.* twice"):
    run(tmp_path, LINEAR, LINEAR_TEACHER, flag, arg=ARG)
