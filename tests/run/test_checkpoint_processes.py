"""Checkpoints of processes that are killed, and of several at once."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from ckd_jax.run import checkpoint
from tests.helpers.paths import ROOT

# Forks a child that resumes and saves without a pause, kills it, and so on; a
# step is reported once it was saved, and every later child must find it.
KILLER = """
import os, random, select, signal, sys, time
import jax, numpy as np
from ckd_jax.run import checkpoint

def child(directory, reported, pipe):
  like = {"w": np.zeros(20_000), "step": np.int32(0)}
  found = checkpoint.restore(directory, like)
  step, state, notes = found or (0, like, {})
  assert step >= reported, (step, reported)
  assert (state["w"] == step).all() and state["step"] == step
  assert notes.get("step", 0) == step
  while True:
    step += 1
    state = {"w": np.full(20_000, float(step)), "step": np.int32(step)}
    checkpoint.save(directory, step, state, {"step": step}, keep=1)
    os.write(pipe, b"%d\\n" % step)

directory, kills = sys.argv[1], int(sys.argv[2])
rng = random.Random(0)
reported = 0
for _ in range(kills):
  reader, writer = os.pipe()
  pid = os.fork()
  if not pid:
    try:
      child(directory, reported, writer)
    finally:
      os._exit(1)
  os.close(writer)
  select.select([reader], [], [], 60)  # until its first save
  time.sleep(rng.uniform(0.0, 0.15))
  os.kill(pid, signal.SIGKILL)
  _, status = os.waitpid(pid, 0)
  assert os.WIFSIGNALED(status), "the child failed by itself"
  with os.fdopen(reader) as lines:
    reported = max(map(int, lines.read().split()))
  print(reported, flush=True)
"""


@pytest.mark.slow
def test_killed_while_saving_never_loses_what_was_saved(tmp_path):
  kills = 10
  result = subprocess.run(
    [sys.executable, "-c", KILLER, str(tmp_path), str(kills)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=240,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  reported = list(map(int, result.stdout.split()))
  assert len(reported) == kills
  like = {"w": np.zeros(20_000), "step": np.int32(0)}
  step, state, notes = checkpoint.restore(tmp_path, like)
  assert step >= reported[-1] >= kills
  assert notes == {"step": step} and (state["w"] == step).all()
  assert not list(tmp_path.glob("*.corrupt"))  # unfinished is not damaged


TWO_PROCESSES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
directory, port, process = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(
  f"127.0.0.1:{port}", num_processes=2, process_id=process
)
from ckd_jax.run import checkpoint
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
whole = NamedSharding(mesh, PartitionSpec())
make = jax.jit(
  lambda x: {"w": jnp.arange(6.0) + x, "k": jax.random.key(3)},
  out_shardings=whole,
)
state = make(np.float32(1))
for step in (1, 2):
  checkpoint.save(directory, step, state, {"step": step})
step, found, notes = checkpoint.restore(directory, make(np.float32(5)))
assert step == 2 and notes == {"step": 2}
assert found["w"].sharding == whole and len(found["k"].sharding.device_set) == 4
same = jax.jit(lambda a, b: (a["w"] == b["w"]).all())(found, state)
assert same.addressable_data(0)
print("ok", process)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
  import socket

  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  runs = [
    subprocess.Popen(
      [
        sys.executable,
        "-c",
        textwrap.dedent(TWO_PROCESSES),
        str(tmp_path),
        str(port),
        str(process),
      ],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for process in range(2)
  ]
  try:
    for process, run in enumerate(runs):
      output, _ = run.communicate(timeout=180)
      assert run.returncode == 0 and f"ok {process}" in output, output
  finally:
    for run in runs:
      run.kill()
