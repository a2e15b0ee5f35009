"""What does a single flipped bit do to the files that a run reads again?

  python experiments/flips.py [COUNT]

Flips COUNT bits (default 500), one at a time, at random places of each kind of
file, reads it as a run would, and counts: refused in one line, without effect
(what was read is equal), and wrong. Exits with 1 if anything is wrong, or if an
error is no UserError.
"""

import json
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import models, student, table
from ckd_jax.errors import UserError
from ckd_jax.system import sealed
from ckd_jax.table import Answers
from ckd_jax.teacher.journal import Journal

Read = Callable[[], Any]  # reads a file; equal results are equal files


def a_student(folder: pathlib.Path) -> Read:
  """An untrained network as a run would leave it."""
  params, state = models.get("cnn", 5).init(
    jax.random.key(0), jnp.zeros((1, 8, 8, 3))
  )
  facts = {
    "model": "cnn",
    "classes": "5",
    "class_names": json.dumps(["ant", "bee", "cat", "dog", "eel"]),
    "mean": "[0.5, 0.4, 0.3]",
    "std": "[0.2, 0.3, 0.25]",
    "image_shape": "[8, 8, 3]",
  }
  student.save(folder / student.STUDENT, params, state, facts)

  def read():
    params, state, metadata = student.load(folder / student.STUDENT)
    known = {key: metadata.get(key) for key in facts}
    return student.params_sha256(params, state), known

  return read


def a_journal(folder: pathlib.Path) -> Read:
  """Forty answers that are not in a part yet, and two that were refused."""
  journal = Journal(folder / "journal.jsonl")
  draw = np.random.default_rng(1)
  for row in range(40):
    journal.ask([f"train_{row}"])
    journal.answer([f"train_{row}"], draw.normal(size=(1, 10)))
  journal.refuse(["train_40", "train_41"])

  def read():
    found = Journal(folder / "journal.jsonl")
    answers = {key: row.tolist() for key, row in found.answers.items()}
    return found.asked, found.refused, answers

  return read


def a_table(folder: pathlib.Path) -> Read:
  """Two hundred answers in one part."""
  ids = [f"train_{row}" for row in range(200)]
  values = np.random.default_rng(2).normal(size=(200, 10))
  table.Table.from_arrays(values, ids=ids).write(folder)

  def read():
    held = table.read(folder)
    values = Answers(held.answers.values.tolist())
    return held.ids.tolist(), values, held.info

  return read


def a_summary(folder: pathlib.Path) -> Read:
  """The result of a run, as `export` reads it."""
  facts = {"test_accuracy": 31.25, "seed": 3, "params_sha256": "f" * 64}
  file = folder / "summary.json"
  file.write_text(json.dumps(sealed.seal(facts), indent=2))

  def read():
    found = student.read_object(file)
    return {key: found.get(key) for key in facts}

  return read


KINDS = {
  "student.safetensors": a_student,
  "journal.jsonl": a_journal,
  "table.json, part": a_table,
  "summary.json": a_summary,
}


def count(make: Callable[[pathlib.Path], Read], flips: int) -> list[int]:
  """How many flips were refused, had no effect, and were wrong."""
  draw = np.random.default_rng(0)
  found = [0, 0, 0]
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    read = make(folder)
    wanted = read()
    files = [path for path in sorted(folder.iterdir()) if path.stat().st_size]
    whole = {path: path.read_bytes() for path in files}
    for turn in range(flips):
      path = files[turn % len(files)]
      damaged = bytearray(whole[path])
      bit = int(draw.integers(8 * len(damaged)))
      damaged[bit // 8] ^= 1 << bit % 8
      path.write_bytes(damaged)
      try:
        found[1 if read() == wanted else 2] += 1
      except UserError:
        found[0] += 1
      path.write_bytes(whole[path])
  return found


def main() -> None:
  flips = int(sys.argv[1]) if len(sys.argv) > 1 else 500
  print("| file | flips | refused | without effect | wrong |")
  print("|---|---|---|---|---|")
  wrong = 0
  for name, make in KINDS.items():
    refused, same, other = count(make, flips)
    wrong += other
    print(f"| {name} | {flips} | {refused} | {same} | {other} |", flush=True)
  sys.exit(int(wrong > 0))


if __name__ == "__main__":
  main()
