"""MixKD: texts mixed in pairs, and a teacher's answers about the mixtures."""

import functools

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Batch, Method, Mixed, stateless
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._terms import Extra
from ckd_jax.methods.logit_mse import logit_mse
from ckd_jax.numerics import cross_entropy, float32

TARGETS = ("live", "mixed_answers")


def mix(key: jax.Array, batch: Batch, *, parameter: float) -> Batch:
  """Puts the mixture of every pair beside its first text.

  A network mixes its own word embeddings; a text alone is a mixture in which
  the other has no share.

  Args:
    key: draws lam of Beta(parameter, parameter), one for each pair.
    batch: tokens int32[batch, 2, length], a text and its partner.
    parameter: of the distribution, above 0.

  Returns:
    The batch with inputs `Mixed`, [batch, 2]: the text, with weights 1 and 0,
    and the mixture, with lam and 1 - lam. Labels and teachers stay those of
    both texts.

  References:
    arXiv 2011.00593.
  """
  tokens = batch.inputs
  draw = functools.partial(sampling.beta, parameter=parameter)
  lam = jax.vmap(draw)(jax.random.split(key, len(tokens)))
  one = jnp.ones_like(lam)
  first = jnp.stack([one, lam], axis=1)
  weights = jnp.stack([first, 1 - first], axis=2)
  parts = jnp.stack([tokens, tokens], axis=1)
  return batch._replace(inputs=Mixed(parts, weights))


def _sample(key, step, task, state) -> jax.Array:
  """Samples every text with the one before it in the batch."""
  if task.batch_size < 2:
    raise ValueError("mixkd mixes two texts: batch_size is 1")
  index = sampling.batches(key, step, task, state)
  return jnp.concatenate([index, jnp.roll(index, 1, axis=0)], axis=1)


def _mixed_answers(logits: jax.Array, shares: jax.Array) -> jax.Array:
  """The mixture of the answers to both texts, without a further question.

  Args:
    logits: [batch, 2, classes]; the second ones are not read, for those of a
      live teacher are about mixtures.
    shares: [batch, 2], of the text and of its partner, the one before it.

  Returns:
    float32[batch, classes].
  """
  (alone,) = float32(logits[:, 0])
  partner = jnp.roll(alone, 1, axis=0)
  return shares[:, :1] * alone + shares[:, 1:] * partner


def make(
  *,
  target: str = "live",
  match_weight: float = 1.0,
  mixed_label_weight: float = 1.0,
  mixed_match_weight: float = 1.0,
  cross_entropy_weight: float = 1.0,
  parameter: float = 0.4,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """MixKD, after the abstract of arXiv 2011.00593; its weights are not known.

  The labels and the teacher's logits of every text, and the same of its mixture
  with another text of the batch: the cross-entropy with both labels by their
  shares (the paper's SM), and the squared distance of logits to the teacher's
  answer about the mixture (TMKD). The student is not begun with layers of the
  teacher, and texts are not translated back and forth.

  Args:
    target: what the answer about a mixture is: "live", a teacher's that mixes
      its own word embeddings in every step; or, as of a table or a black box,
      "mixed_answers", the mixture of its logits about both texts, which is
      ours and costs no call.
    match_weight: weight of the squared distance to the teacher's logits, mean
      over classes.
    mixed_label_weight: weight of the cross-entropy of mixtures.
    mixed_match_weight: weight of the squared distance of mixtures.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    parameter: of Beta(parameter, parameter), of which the share of a text in
      its mixture is drawn, above 0.
    kd_weight: weight of an added KD term at temperature 4, of texts alone.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs, of
      texts alone.

  Raises:
    ValueError: an unknown target, or a value outside its range.
  """
  if target not in TARGETS:
    raise ValueError(f"target must be one of {TARGETS}, not {target!r}")
  weights = match_weight, mixed_label_weight, mixed_match_weight
  names = "match", "mixed_label", "mixed_match"
  at_least(0, **{f"{n}_weight": w for n, w in zip(names, weights, strict=True)})
  above(0, parameter=parameter)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)
  at_least(0, **extra._asdict())

  def loss(params, state, student, batch, key, step):
    shares = batch.inputs.weights[:, 1]  # of the mixture
    alone, mixture = (student.logits[:, place] for place in (0, 1))
    answers = batch.teachers[0].logits
    about_mixture = answers[:, 1]
    if target == "mixed_answers":
      about_mixture = _mixed_answers(answers, shares)
    both = jnp.broadcast_to(student.logits[:, 1:], student.logits.shape)
    of_labels = cross_entropy(both, batch.labels)
    values = (
      jnp.mean(logit_mse(alone, answers[:, 0])),
      jnp.mean(jnp.sum(shares * of_labels, axis=1)),
      jnp.mean(logit_mse(mixture, about_mixture)),
    )
    pairs = zip(weights, values, strict=True)
    own = dict(zip(names, pairs, strict=True))
    first = jax.tree.map(lambda x: x[:, :1], (student, batch))
    value, metrics = weighted_sum({**own, **extra.terms(*first)})
    return value, (state, metrics)

  return Method(
    sample=_sample,
    init=stateless,
    loss=loss,
    prepare=functools.partial(mix, parameter=parameter),
    inputs="texts",
    live=target == "live",
  )
