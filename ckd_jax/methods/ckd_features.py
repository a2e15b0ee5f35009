"""CKD on features: a white-box loss on the differences of group means."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method, Outputs, cc, ckd, fitnet, vid
from ckd_jax.methods._checks import at_least
from ckd_jax.numerics import float32


def difference(outputs: Outputs, positives: int) -> Outputs:
  """Subtracts the second side's mean outputs from the first side's.

  Args:
    outputs: a network's Outputs, of [batch, group, ...].
    positives: images on the first side; the rest of a group is the second.

  Returns:
    float32 Outputs of [batch, 1, ...].

  References:
    arXiv 2311.02253, its white-box variant.
  """

  def compare(x):
    # Cut before the cast: a half-precision pair is laid out badly as float32.
    first, second = float32(x[:, :positives], x[:, positives:])
    return jnp.mean(first, axis=1, keepdims=True) - (
      jnp.mean(second, axis=1, keepdims=True)
    )

  return jax.tree.map(compare, outputs)


def make(
  *,
  features: str = "fitnet",
  weight: float = 1.0,
  signed: bool = False,
  positives: int = 1,
  negatives: int = 1,
  teacher_weight: float = 1.0,
  label_weight: float = 1.0,
  cross_entropy_weight: float = 0.0,
  kd_weight: float = 0.0,
  max_groups: int = 100_000,
  offset: str = "none",
) -> Method:
  """CKD with a white-box loss on differences (arXiv 2311.02253, its code).

  The loss of `fitnet`, `cc` or `vid`, with its own heads and its own weight
  (100, 0.02 and 1), is added to `ckd` over groups, as published. In place of
  features it sees the differences of their means over the sides of a group.

  Args:
    features: the loss on features: "fitnet", "cc" or "vid".
    weight: multiplies that loss's published weight.
    signed: leaves out the ReLU of fitnet's regressor. With it, as published,
      the regressor cannot reach the negative half of a difference. cc and vid
      can.
    positives: images on the first side of a group.
    negatives: images on the second side.
    teacher_weight: weight of the comparison with the teacher's logits.
    label_weight: weight of the comparison with one-hot labels.
    cross_entropy_weight: weight of an added cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    max_groups: length of the list of groups, drawn once.
    offset: "none" or "fit", as in `ckd`; no loss on features sees the offset of
      the logits.

  Raises:
    ValueError: unknown features, a weight below 0, or what `ckd` refuses.
  """
  losses = {
    "fitnet": lambda: fitnet.make(signed=signed, cross_entropy_weight=0.0),
    "cc": lambda: cc.make(cross_entropy_weight=0.0),
    "vid": lambda: vid.make(cross_entropy_weight=0.0),
  }
  if features not in losses:
    raise ValueError(
      f"features must be one of {tuple(losses)}, not {features!r}"
    )
  at_least(0, weight=weight)
  on_features = losses[features]()
  on_logits = ckd.make(
    positives=positives,
    negatives=negatives,
    teacher_weight=teacher_weight,
    label_weight=label_weight,
    cross_entropy_weight=cross_entropy_weight,
    kd_weight=kd_weight,
    max_groups=max_groups,
    offset=offset,
  )

  def init(key, task, student, teacher):
    heads_key, groups_key = jax.random.split(key)
    heads, _ = on_features.init(heads_key, task, student, teacher)
    _, groups = on_logits.init(groups_key, task, student, teacher)
    return heads, groups

  def loss(params, state, student, batch, key, step):
    value, (state, metrics) = on_logits.loss(
      {}, state, student, batch, key, step
    )
    compared = batch._replace(
      labels=batch.labels[:, :1],
      teachers=tuple(difference(x, positives) for x in batch.teachers),
    )
    on_heads, (_, own) = on_features.loss(
      params, {}, difference(student, positives), compared, key, step
    )
    return value + weight * on_heads, (state, metrics | own)

  return on_logits._replace(
    init=init, loss=loss, needs=on_logits.needs | on_features.needs
  )
