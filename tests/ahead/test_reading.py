"""Small programs written by hand, whose sums are known."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax.ahead import hlo, schedule
from ckd_jax.ahead.reading import read

PROGRAMS = pathlib.Path(__file__).with_name("programs")
TABLE = {"inputs": jax.ShapeDtypeStruct((4096, 8), np.uint8)}


def program(name: str) -> str:
  """The text of a file of programs/."""
  return (PROGRAMS / f"{name}.hlo").read_text()


def test_loops_are_multiplied_and_the_dearest_branch_counts():
  report = read(program("loops"), {})
  assert report.cost == 32 * (128 * 10 + 1000) + 3 + 500
  assert [(loop.trips, loop.times) for loop in report.loops] == [
    (32, 1),
    (128, 32),
  ]
  outer, inner = report.loops
  assert outer.cost == 32 * (128 * 10 + 1000)
  assert inner.cost == 32 * 128 * 10
  assert inner.source == "augment.py:64"
  first = report.dearest[0]
  assert (first.name, first.cost, first.times) == ("y", 40_960, 4096)
  assert first.source == "augment.py:64" and first.label == "jit(f)/add"
  (cosine,) = [
    one for one in report.dearest if one.name == "s" and one.cost > 9
  ]
  assert cosine.source == "optax/transforms.py:7"
  # y and v in the loops, both branches' instructions but of one of them.
  assert report.kernels == 32 * 128 + 32 + 1 + 1


def test_a_loop_whose_length_the_data_decide():
  text = program("loops").replace(
    "constant(128)", "get-tuple-element(%p), index=0"
  )
  report = read(text, {})
  assert [loop.trips for loop in report.loops] == [32, None]
  assert report.cost == 32 * (10 + 1000) + 3 + 500


def test_a_length_that_the_compiler_notes():
  noted = 'body=%inner_body, backend_config={"known_trip_count":{"n":"5"}}'
  text = program("loops").replace("body=%inner_body", noted)
  assert [loop.trips for loop in read(text, {}).loops] == [32, 5]


def test_what_is_suspicious_is_found():
  report = read(program("special"), TABLE)
  assert report.cost == 750
  (copy,) = report.copies
  assert copy.table == "inputs" and copy.op == "copy"
  assert (copy.bytes, copy.cost, copy.source) == (
    32_768,
    700,
    "examples.inputs",
  )
  assert report.host == ("sent", "told")
  assert report.float64 == 1
  assert report.uncosted["gather"] == 128
  assert report.uncosted["scatter"] == 32_768
  assert report.uncosted["sort"] == 4 * 65_536
  assert "negate" not in report.uncosted


def test_copies_of_a_narrow_table():
  """100 of 128 columns are used, and a batch of 128 is compared with it."""
  table = {"logits": jax.ShapeDtypeStruct((53_248, 100), np.float16)}
  report = read(program("narrow"), table)
  found = [(copy.op, copy.bytes // 53_248) for copy in report.copies]
  assert found == [
    ("copy", 256),  # all columns
    ("copy", 200),  # those that are used
    ("slice", 200),
    ("fusion", 400),  # to float32
    ("fusion", 400),  # and computed with
    ("fusion", 512),  # turned over
  ]
  # What is given is the table with its padding; a batch is none.
  assert report.tables == 53_248 * 256


def test_collectives_are_counted_once():
  assert read(program("special"), TABLE).collectives == {
    "all-reduce": {"count": 2, "bytes": 4 * (16 + 4) + 4 * 16},
    "all-gather": {"count": 2, "bytes": 4 * 32 + 4 * 64},
  }


def test_bytes_of_main_memory():
  read_once, row = 4 * 1024, 4 * 8
  # negate reads a; the slice its row, and of a no more; add reads a, writes b.
  assert (
    read(program("traffic"), {}).bytes == read_once + 3 * row + 2 * read_once
  )


def test_microseconds_of_a_gpu():
  report = read(program("gpu"), {})
  assert report.cost == pytest.approx(1.7)
  assert report.kernels == 3
  assert report.uncosted == {"__cudnn$convForward": 4 * 65_536}


def test_arrays_of_a_type():
  types = {
    "f32[2,3]{1,0:T(8,128)}": [24],
    "(bf16[4]{0}, pred[], s4[3]{0})": [8, 1, 2],
    "token[]": [0],
    "f8e4m3fn[7]": [7],
    "c64[2]": [16],
  }
  for text, sizes in types.items():
    one = hlo.Instruction("x", text, "copy", "", "", False)
    assert [array.bytes for array in one.arrays] == sizes


def test_a_program_of_this_machine_is_read():
  """What XLA writes for a CPU, with a loop of known length."""

  def f(x):
    return jax.lax.fori_loop(0, 7, lambda i, x: jnp.sin(x) @ x, x)

  text = jax.jit(f).lower(jnp.ones((8, 8))).compile().as_text()
  parsed = hlo.parse(text)
  assert parsed.entry in parsed.computations
  (loop,) = [
    one.instruction
    for one in schedule.scheduled(parsed)
    if one.instruction.op == "while"
  ]
  assert schedule.trips(loop, parsed) == 7
