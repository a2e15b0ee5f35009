"""Do several small students fill a chip better than one?

  python experiments/packing.py [--target=v5e:1x1] [--channels=16,32,64]
    [--students=1,4,8] [--images=128] [--size=32] [--again]

One 3 x 3 convolution of each student, forward and backward in bfloat16, by the
compiler's estimate (see compiled.py; nothing runs). `vmap` maps the convolution
over students, which makes it a grouped one. `packed` lays their channels side
by side and fills one convolution's weights with their blocks, zeros elsewhere:
as many channels as the matrix unit is wide, `students` times the operations.
The floor is the larger of the useful operations over the chip's peak and the
bytes over its bandwidth. A case that is compiled is a line of
results/packing.jsonl, from which the table is printed.
"""

import argparse
import itertools
import json

import study

RESULTS = study.HERE / "results" / "packing.jsonl"
FIELDS = ("target", "images", "size", "channels", "students", "form")


def convolve(images, weight):
  """[n, h, w, c], [3, 3, c, c'] -> [n, h, w, c']."""
  import jax

  return jax.lax.conv_general_dilated(
    images, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def vmap(images, weights):
  """Students in front: [s, n, h, w, c], [s, 3, 3, c, c]."""
  import jax

  return jax.vmap(convolve)(images, weights)


def packed(images, weights):
  """Channels side by side: [n, h, w, s * c], [s, 3, 3, c, c]."""
  import jax.numpy as jnp

  students, *_, channels = weights.shape
  eye = jnp.eye(students, dtype=weights.dtype)
  blocks = jnp.einsum("shwio,st->hwsito", weights, eye)
  return convolve(images, blocks.reshape(3, 3, *[students * channels] * 2))


FORMS = {"vmap": vmap, "packed": packed}


def measure(form: str, channels: int, students: int, flags) -> dict:
  """One line of the results."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  from jax.sharding import Mesh, NamedSharding, PartitionSpec

  from ckd_jax import ahead

  place = ahead.target(flags.target)
  mesh = Mesh(np.array(place.devices[:1]), ("data",))
  where = NamedSharding(mesh, PartitionSpec())
  size = (flags.images, flags.size, flags.size)
  if form == "vmap":
    shape = (students, *size, channels)
  else:
    shape = (*size, students * channels)

  def step(images, weights, cotangent):
    out, back = jax.vjp(FORMS[form], images, weights)
    return out, back(cotangent)

  given = [
    jax.ShapeDtypeStruct(dims, jnp.bfloat16, sharding=where)
    for dims in (shape, (students, 3, 3, channels, channels), shape)
  ]
  built = ahead.compiled(jax.jit(step, out_shardings=where), given, place)
  report = ahead.read(built.text, {})
  images = flags.images * students
  operations = 3 * 2 * 9 * channels**2 * flags.size**2
  moved = 2 * 5 * channels * flags.size**2  # bfloat16: two read, two written, x
  floor = max(operations / place.chip.flops, moved / place.chip.bandwidth)
  return {
    **study.stamp(),
    "target": flags.target,
    "form": form,
    "channels": channels,
    "students": students,
    "images": flags.images,
    "size": flags.size,
    "cycles_an_image_and_student": round(report.cost / images, 1),
    "floor_cycles": round(floor * place.chip.hertz, 1),
    "temporary_megabytes": round(built.memory["temporary"] / 2**20, 1),
    "compile_seconds": round(built.seconds, 1),
    "jax": jax.__version__,
  }


def main() -> None:
  """Compiles what is missing, then prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--target", default="v5e:1x1")
  parser.add_argument("--channels", default="16,32,64")
  parser.add_argument("--students", default="1,4,8")
  parser.add_argument("--images", type=int, default=128)
  parser.add_argument("--size", type=int, default=32)
  parser.add_argument("--again", action="store_true", help="compile all anew")
  flags = parser.parse_args()
  if flags.again:
    study.again(RESULTS)
  counts = [
    [int(x) for x in text.split(",")]
    for text in (flags.channels, flags.students)
  ]
  cases = [
    (flags.target, flags.images, flags.size, *case)
    for case in itertools.product(*counts, FORMS)
  ]
  done = study.finished(RESULTS, FIELDS)
  for case in cases:
    if case in done:
      continue
    *_, channels, students, form = case
    done[case] = measure(form, channels, students, flags)
    print(json.dumps(done[case]), flush=True)
    with open(RESULTS, "a") as file:
      file.write(json.dumps(done[case]) + "\n")
  rows = [done[case] for case in cases]
  body = [[str(value) for value in list(row.values())[2:]] for row in rows]
  print(study.markdown(list(rows[0])[2:], body))


if __name__ == "__main__":
  main()
