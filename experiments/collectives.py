"""What do the devices send each other in a step?

  python experiments/collectives.py [--students=resnet8,wrn_16_2]
    [--devices=8] [--batch=512] [--methods=ckd,icd,crd] [--size=32]
    [--classes=100]

Reads the collectives out of the program that XLA compiled for so many CPU
devices: how many there are of each kind, and the bytes of their results. An
all-reduce of b bytes over n devices in a ring sends 2 b (n - 1) / n from each;
an all-gather whose result has b bytes, b (n - 1) / n. Lines are appended to
results/collectives.jsonl.
"""

import argparse
import collections
import json
import math
import re

import fake
import study

RESULTS = study.HERE / "results" / "collectives.jsonl"
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4}
BYTES |= {"u32": 4, "f64": 8, "s64": 8, "u64": 8}


def collectives(text: str) -> dict[str, dict[str, int]]:
  """{kind: {count, bytes}} of a compiled program's text."""
  found = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
  for line in text.splitlines():
    match = re.search(rf"= (.+?) ({KINDS})(?:-start)?\(", line)
    if not match:
      continue
    result, kind = match.groups()
    found[kind]["count"] += 1
    for dtype, shape in re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", result):
      size = math.prod(map(int, filter(None, shape.split(","))))
      found[kind]["bytes"] += BYTES.get(dtype, 4) * size
  return dict(found)


def sent(found, devices: int) -> float:
  """Bytes that each device sends, in rings."""
  share = (devices - 1) / devices
  factors = {"all-reduce": 2.0}
  return sum(
    factors.get(kind, 1.0) * share * row["bytes"] for kind, row in found.items()
  )


def main() -> None:
  """Compiles, counts, appends, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--students", default="resnet8,wrn_16_2")
  parser.add_argument("--methods", default="ckd,kd")
  parser.add_argument("--devices", type=int, default=8)
  parser.add_argument("--batch", type=int, default=512)
  parser.add_argument("--size", type=int, default=32, help="of an image")
  parser.add_argument("--classes", type=int, default=100)
  flags = parser.parse_args()
  import jax

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", flags.devices)
  from ckd_jax.data import shown
  from ckd_jax.models import cost

  body = []
  for student in flags.students.split(","):
    for method in flags.methods.split(","):
      hyper = {"estimator": "all"} if method == "ckd" else {}
      fit = fake.prepare(
        student,
        fake.Noise(max(1000, flags.batch), flags.classes, flags.size),
        method=method,
        options={"batch_size": flags.batch},
        hyper=hyper,
      )
      lowered = fit.launch(1).lower(fit.state, fit.examples, fit.key)
      found = collectives(lowered.compile().as_text())
      row = {
        "student": student,
        "method": method,
        "images": flags.batch,
        "devices": flags.devices,
        "collectives": found,
        "bytes_sent_by_each": round(sent(found, flags.devices)),
        "parameters": cost.parameters(fit.state.params["student"]),
        "flops_an_image": cost.flops(
          fit.plan.recipe.model,
          fit.state.params["student"],
          fit.state.model,
          shown(fit.plan.recipe.view),
        ),
        "jax": jax.__version__,
        **study.stamp(),
      }
      print(json.dumps(row), flush=True)
      with open(RESULTS, "a") as file:
        file.write(json.dumps(row) + "\n")
      kinds = ", ".join(
        f"{one['count']} {kind} of {one['bytes'] / 2**20:.2f} MB"
        for kind, one in found.items()
      )
      total = f"{row['bytes_sent_by_each'] / 2**20:.2f}"
      body.append([student, method, str(flags.devices), kinds, total])
  head = ["student", "method", "devices", "collectives", "MB sent by each"]
  print(study.markdown(head, body))


if __name__ == "__main__":
  main()
