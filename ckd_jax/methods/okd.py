"""Online KD of language models: a small part of the teacher adapts, too."""

import functools

import jax

from ckd_jax import sampling
from ckd_jax.methods import Adapter, Method, _lora, stateless
from ckd_jax.methods._checks import at_least, share
from ckd_jax.methods._divergences import by_name
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import cross_entropy, mean_counted


def make(
  *,
  weight: float = 0.5,
  objective: str = "kd",
  mutual_weight: float = 1.0,
  rank: int = 8,
  blocks: int = 2,
  rate: float = 0.1,
) -> Method:
  """After the abstract of OKD (arXiv 2409.12512), whose formulas are not known.

  Mutual learning of the student and a low-rank part of the teacher, whose own
  weights stay, on the texts of the data. The student's loss is (1 - weight) CE
  + weight D(teacher, student), that of the teacher's part CE + mutual_weight
  KL(student || teacher), means over counted positions; neither has a gradient
  in the other network, but `optimizer.clip_norm` is of both together: a long
  gradient of one shortens the other's. At rate 0 it is kd with a live teacher,
  at mutual_weight 0 the teacher is fine-tuned beside the student: the two
  controls.

  Args:
    weight: share of the divergence in the student's loss.
    objective: the divergence: "kd" (forward), "reverse_kl" or "jsd".
    mutual_weight: weight of the student's answers in the teacher's loss.
    rank: of the teacher's changes (LoRA).
    blocks: how many of its blocks change, from the last on.
    rate: the teacher's learning rate over the student's; 0 changes nothing.

  Raises:
    ValueError: a value outside its range.
  """
  losses = {
    name: loss
    for name, loss in by_name(beta=0.5, skew=0.0).items()
    if not name.startswith("skew")
  }
  if objective not in losses:
    raise ValueError(
      f"objective must be one of {tuple(losses)}, not {objective!r}"
    )
  share(weight=weight)
  at_least(0, mutual_weight=mutual_weight, rate=rate)
  at_least(1, rank=rank, blocks=blocks)

  def apply(factors, weights):
    # Without a gradient it has no part in a clipped norm either.
    factors = factors if rate else jax.lax.stop_gradient(factors)
    return _lora.apply(factors, weights)

  def loss(params, state, student, batch, key, step):
    del params, key, step
    (teacher,) = batch.teachers
    labels = batch.labels
    values = {
      "cross_entropy": (1 - weight, cross_entropy(student.logits, labels)),
      objective: (weight, losses[objective](student.logits, teacher.logits)),
      "teacher_cross_entropy": (1.0, cross_entropy(teacher.logits, labels)),
      "mutual": (
        mutual_weight,
        kd(teacher.logits, student.logits, temperature=1.0),
      ),
    }
    terms = {
      name: (share, mean_counted(value, labels))
      for name, (share, value) in values.items()
    }
    value, metrics = weighted_sum(terms)
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=stateless,
    loss=loss,
    inputs="texts",
    live=True,
    answers="any",
    adapter=Adapter(
      functools.partial(_lora.init, rank=rank, blocks=blocks), apply, rate
    ),
  )
