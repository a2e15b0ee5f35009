"""The command `ckd-jax export RUN_DIR --out=DIR`: the student alone."""

import json
import sys
from typing import Any

from etils import epath

from ckd_jax.config import Parser
from ckd_jax.errors import UserError, command
from ckd_jax.student import STUDENT, load, params_sha256, read_object, save
from ckd_jax.system import files

DESCRIPTION = f"""\
Copies the best student of a finished run into a folder of its own:
{STUDENT}, config.json (what its user must know) and
labels.txt, one class a line. It needs neither the teacher nor the run.

  ckd-jax export runs/NAME --out=student
  python -c "import ckd_jax; print(ckd_jax.load_student('student'))"

(The same: python -m ckd_jax.export.)
"""


def run(run_dir: epath.PathLike, out: epath.PathLike) -> str:
  """Copies the best student of a finished run, with what its user needs.

  Writes student.safetensors, config.json and labels.txt (one class per line).

  Args:
    run_dir: the folder of the run.
    out: the new folder, made if absent.

  Returns:
    The digest of the parameters, equal to the run's `params_sha256`.

  Raises:
    UserError: the run is unfinished or damaged, or `out` is itself a run.
  """
  run_dir, out = epath.Path(run_dir), epath.Path(out)
  if not (run_dir / "summary.json").exists():
    raise UserError(
      f"{run_dir} holds no finished run (no summary.json): give its --workdir "
      "again to finish it"
    )
  if (out / "summary.json").exists():
    raise UserError(f"{out} is the folder of a run; give another --out")
  if "params_sha256" not in read_object(run_dir / "summary.json"):
    raise UserError(f"{run_dir}/summary.json is damaged: run it again")
  params, state, metadata = load(run_dir / STUDENT)
  known = {name: _from_json(text) for name, text in metadata.items()}
  try:
    labels = _labels(run_dir, known)
    shape = _image_shape(run_dir, known)
  except (AttributeError, LookupError, TypeError, ValueError) as error:
    raise UserError(
      f"{run_dir} is damaged, its classes or the size of its images cannot be "
      f"read ({error}): run it again"
    ) from error
  config = {
    "model": known.get("model"),
    "classes": known.get("classes", len(labels)),
    "class_names": labels,
    "mean": known.get("mean"),
    "std": known.get("std"),
    # One number is enough for square images alone.
    "image_size": shape[0] if shape and shape[0] == shape[1] else None,
    "image_shape": shape,
    "params_sha256": params_sha256(params, state),
  }
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"cannot make the folder {out}: {error.strerror}: give another --out"
    ) from error
  save(out / STUDENT, params, state, metadata)
  files.write(out / "config.json", json.dumps(config, indent=2).encode())
  files.write(out / "labels.txt", "".join(f"{x}\n" for x in labels).encode())
  load(out / STUDENT)  # what was written, not what was read
  return config["params_sha256"]


def _labels(run_dir, known: dict[str, Any]) -> list[str]:
  """Class names: of the metadata, else of the table, else numbers."""
  if known.get(
    "causal"
  ):  # tokens, perhaps line ends, are in the student's file
    return [str(number) for number in range(known["classes"])]
  names = known.get("class_names") or read_object(
    run_dir / "table/table.json"
  ).get("class_names")
  return [str(label) for label in names or range(known.get("classes", 0))]


def _image_shape(run_dir, known: dict[str, Any]) -> list[int] | None:
  """(height, width, channels); of the config where only that is known."""
  if "image_shape" in known:
    height, width, channels = known["image_shape"]
    return [height, width, channels]
  size = (
    read_object(run_dir / "config.json").get("dataset", {}).get("image_size")
  )
  channels = len(known.get("mean") or ())
  return [size, size, channels] if size and channels else None


def _from_json(text: str) -> Any:
  try:
    return json.loads(text)
  except (RecursionError, ValueError):
    return text


def main(argv: list[str]) -> None:
  """A finished run in, its student out."""
  parser = Parser("ckd-jax export", DESCRIPTION)
  parser.add_argument(
    "run", metavar="RUN_DIR", help="the folder of a finished run"
  )
  parser.add_argument(
    "--out", required=True, metavar="DIR", help="the new folder"
  )
  flags = parser.parse_args(argv)
  if not flags.out:
    raise UserError("--out names no folder: set --out=DIR")
  digest = run(flags.run, flags.out)
  print(f"{flags.out}: {STUDENT}, config.json, labels.txt")
  print(f"params_sha256 {digest}, as in {flags.run}/summary.json")


if __name__ == "__main__":
  sys.exit(command(main, sys.argv[1:]))
