"""How does the cost of a step grow, and with what does it not?

  python experiments/growth.py [--axes=comparisons,batch,classes,rows]
    [--student=resnet8] [--repeats=3] [--most=7]

comparisons: 128 images through the student, 10^2 to 10^most compared groups:
drawn inside the batch (`batch_groups`, as far as memory goes) and all there are
(`all`, by the size of the batch or of the groups). batch: images in a step, of
`all`. classes: 10 to 10,000, the loss and its gradient alone. rows: 10^3 to
10^6 images in the table, small ones, so that choosing and gathering are seen.
One line each is appended to results/growth.jsonl, results/growth.png is drawn.
"""

import argparse
import json
import math

import fake
import study
from throughput import timed

from ckd_jax.system.devices import use_every_core

RESULTS = study.HERE / "results" / "growth.jsonl"
GROUPS = ((1, 1), (2, 1), (2, 2), (3, 2))
NOISE = fake.Noise()
LARGEST = 2**22  # groups of `batch_groups`: 1.7 GB of differences a side


def step_milliseconds(flags, student, noise=NOISE, **options) -> float:
  """Of a whole step."""
  import jax
  import jax.numpy as jnp

  fit = fake.prepare(student, noise, **options)
  launch = fit.launch(fit.longest)
  seconds = timed(
    lambda state: launch(state, fit.examples, fit.key)[0],
    jax.tree.map(jnp.copy, fit.state),
    flags.repeats,
    0.5,
    fit.one_at_a_time,
  )
  return 1e3 * seconds / fit.longest


def by_comparisons(flags):
  """(what, comparisons, milliseconds)."""
  batch = {"batch_size": 128}
  for power in range(2, flags.most + 1):
    if 10**power > LARGEST:
      continue
    hyper = {"estimator": "batch_groups", "groups_per_batch": 10**power}
    yield (
      "batch_groups",
      10**power,
      step_milliseconds(flags, flags.student, options=batch, hyper=hyper),
    )
  for positives, negatives in GROUPS:
    count = math.comb(128, positives) * math.comb(128 - positives, negatives)
    hyper = {"estimator": "all", "positives": positives, "negatives": negatives}
    yield (
      "all",
      count,
      step_milliseconds(flags, flags.student, options=batch, hyper=hyper),
    )


def by_batch(flags):
  for images in (32, 64, 128, 256, 512):
    yield (
      "all",
      images,
      step_milliseconds(
        flags,
        flags.student,
        options={"batch_size": images},
        hyper={"estimator": "all"},
      ),
    )


def by_classes(flags):
  import jax
  import jax.numpy as jnp

  from ckd_jax import losses

  def mean_kd(student, teacher):
    return jnp.mean(losses.kd(student, teacher, temperature=4.0))

  def every_pair(student, teacher):
    return losses.ckd_all(student, teacher, positives=1, negatives=1)

  for name, loss in (("ckd, all", every_pair), ("kd", mean_kd)):
    gradient = jax.jit(jax.grad(loss))
    for classes in (10, 100, 1000, 10_000):
      keys = jax.random.split(jax.random.key(0))
      student, teacher = (jax.random.normal(k, (128, classes)) for k in keys)
      seconds = timed(
        lambda x, t=teacher, g=gradient: g(x, t),
        student,
        flags.repeats,
        0.2,
        True,
      )
      yield name, classes, 1e3 * seconds


def by_rows(flags):
  for estimator in ("all", "groups"):
    for power in range(3, 7):
      yield (
        estimator,
        10**power,
        step_milliseconds(
          flags,
          "cnn",
          fake.Noise(10**power, classes=10, size=8),
          options={"batch_size": 128, "augment": "none"},
          hyper={"estimator": estimator},
        ),
      )


AXES = {
  "comparisons": by_comparisons,
  "batch": by_batch,
  "classes": by_classes,
  "rows": by_rows,
}


def draw(rows) -> None:
  """One plot for every axis, of the newest measurements of a device."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  axes = [name for name in AXES if any(row["axis"] == name for row in rows)]
  figure = Figure(figsize=(4 * len(axes), 3.6), layout="constrained")
  FigureCanvasAgg(figure)
  for name, plot in zip(
    axes, figure.subplots(1, len(axes), squeeze=False)[0], strict=True
  ):
    for what in dict.fromkeys(r["what"] for r in rows if r["axis"] == name):
      points = {
        row["size"]: row["milliseconds"]
        for row in rows
        if (row["axis"], row["what"]) == (name, what)
      }
      plot.plot(
        *zip(*sorted(points.items()), strict=True), marker="o", label=what
      )
    plot.set(xlabel=name, ylabel="milliseconds")
    plot.set(title="the loss alone" if name == "classes" else "a whole step")
    plot.set_xscale("log", base=2 if name == "batch" else 10)
    plot.set_yscale("log")
    plot.legend(frameon=False)
    plot.grid(alpha=0.3)
  figure.savefig(RESULTS.with_suffix(".png"), dpi=130)


def main() -> None:
  """Measures, appends, prints and draws."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--axes", default=",".join(AXES))
  parser.add_argument("--student", default="resnet8")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--most", type=int, default=7)
  flags = parser.parse_args()
  use_every_core()
  import jax

  device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
  RESULTS.parent.mkdir(exist_ok=True)
  for axis in flags.axes.split(","):
    for what, size, milliseconds in AXES[axis](flags):
      row = {
        "axis": axis,
        "what": what,
        "size": size,
        "milliseconds": round(milliseconds, 4),
        "student": flags.student,
        "device": device,
        "jax": jax.__version__,
        **study.stamp(),
      }
      print(json.dumps(row), flush=True)
      with open(RESULTS, "a") as file:
        file.write(json.dumps(row) + "\n")
  rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
  rows = [row for row in rows if row["device"] == device]
  draw(rows)
  body = [
    [row["axis"], row["what"], f"{row['size']:,}", f"{row['milliseconds']:.3f}"]
    for row in rows
  ]
  print(study.markdown(["axis", "what", "size", "milliseconds"], body))


if __name__ == "__main__":
  main()
