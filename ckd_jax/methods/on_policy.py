"""Language models that learn from texts that they wrote themselves."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Ask, Batch, Method
from ckd_jax.methods import _speculative as texts
from ckd_jax.methods._checks import above, at_least, share
from ckd_jax.methods._divergences import by_name
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.numerics import mean_counted

_SOURCES = ("data", "skd", "student", "teacher")


def make(
  *,
  source: str = "skd",
  source_share: float = 1.0,
  objective: str = "kd",
  beta: float = 0.5,
  skew: float = 0.1,
  temperature: float = 1.0,
  teacher_temperature: float = 1.0,
  top_p: float = 1.0,
  draft: int = 5,
  top_k: int = 25,
  accept_p: float = 0.0,
  fresh_draw: bool = False,
  train_first_token: bool = True,
) -> Method:
  """GKD, DistiLLM and SKD: whose texts, and which divergence on them.

  The student's next tokens are compared with a live teacher's at every position
  of a text that continues what a row of the data gives: the row itself, or what
  student or teacher write, or both by turns (SKD, arXiv 2410.11325). GKD (arXiv
  2306.13649) is source="student", source_share=0.5, objective="jsd"; DistiLLM
  (arXiv 2402.03898) has objective="skew_kl", but its share of student's text
  follows the validation loss and comes from a buffer, which is not here. As
  published, SKD draws at student's 0.5 and teacher's 0.2 temperature with a
  top_p of 0.5, with the two oddities `fresh_draw=True` and
  `train_first_token=False`.

  Args:
    source: "data", "student", "teacher" or "skd".
    source_share: chance that a batch is written; else it is the data's.
    objective: "kd" (forward), "reverse_kl", "jsd", "skew_kl" or
      "skew_reverse_kl", all at temperature 1.
    beta: of "jsd".
    skew: of both skewed ones.
    temperature: of the student's draws.
    teacher_temperature: of the teacher's draws.
    top_p: share of the probability to which both draws are restricted.
    draft: tokens that the student drafts before the teacher looks (skd).
    top_k: the teacher accepts tokens among its so many most probable ones.
    accept_p: if above 0, it accepts those of its nucleus of this share instead.
    fresh_draw: judges another draw than the one that is written.
    train_first_token: whether the first written token is learned.

  Raises:
    ValueError: a value outside its range.
  """
  how = _How(**locals())
  _check(how)
  loss = by_name(beta, skew)[objective]
  return Method(
    sample=sampling.batches,
    init=_init,
    loss=functools.partial(_loss, objective, loss),
    inputs="texts",
    live=True,
    answers="positions",
    compose=functools.partial(_compose, how),
  )


class _How(NamedTuple):
  """The hyper-parameters of `make`, by name."""

  source: str
  source_share: float
  objective: str
  beta: float
  skew: float
  temperature: float
  teacher_temperature: float
  top_p: float
  draft: int
  top_k: int
  accept_p: float
  fresh_draw: bool
  train_first_token: bool


def _check(how: _How) -> None:
  choices = {"source": _SOURCES, "objective": tuple(by_name(0.5, 0.5))}
  for name, known in choices.items():
    if (value := getattr(how, name)) not in known:
      raise ValueError(f"{name} must be one of {known}, not {value!r}")
  shares = ("source_share", "beta", "skew", "accept_p")
  share(**{name: getattr(how, name) for name in shares})
  positive = ("temperature", "teacher_temperature", "top_p")
  above(0, **{name: getattr(how, name) for name in positive})
  at_least(1, draft=how.draft)
  at_least(0, top_k=how.top_k)


def _compose(how: _How, key: jax.Array, batch: Batch, ask: Ask) -> Batch:
  """`Method.compose`: continues what each row gives."""
  coin_key, key = jax.random.split(key)
  shape = batch.inputs.shape
  tokens, labels = (
    x.reshape(-1, shape[-1]) for x in (batch.inputs, batch.labels)
  )

  def by_networks():
    pages = _written(how, key, texts.opened(tokens, labels), ask)
    told, following = texts.closed(pages, labels)
    if not how.train_first_token:
      first = jnp.argmax(labels >= 0, axis=1)[:, None]
      is_first = jnp.arange(shape[-1])[None] == first
      following = jnp.where(is_first, -1, following)
    return told, following, pages.asked

  def by_data():
    return tokens, labels, jnp.int32(0)

  if how.source == "data":
    made = by_data()
  elif how.source_share == 1:
    made = by_networks()
  else:
    coin = jax.random.bernoulli(coin_key, how.source_share)
    made = jax.lax.cond(coin, by_networks, by_data)
  inputs, following, asked = made
  return batch._replace(
    inputs=inputs.reshape(shape), labels=following.reshape(shape), asked=asked
  )


def _written(how: _How, key, pages: texts.Pages, ask: Ask) -> texts.Pages:
  """The rows, written to their ends by whom `source` names."""
  of_student = texts.Pen(key, how.temperature, how.top_p)
  of_teacher = texts.Pen(key, how.teacher_temperature, how.top_p)
  if how.source == "student":
    return texts.write(pages, ask.student, of_student, texts.STUDENT)
  if how.source == "teacher":
    return texts.write(pages, ask.teacher, of_teacher, texts.TEACHER)
  return texts.speculate(
    pages,
    ask,
    (of_student, of_teacher),
    functools.partial(_accepts, how),
    draft=how.draft,
    fresh_draw=how.fresh_draw,
  )


def _accepts(how: _How, logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """Whether the teacher's logits [..., vocabulary] accept int32[...]."""
  if not how.accept_p:
    return texts.in_top(logits, tokens, how.top_k)
  nucleus = texts.in_nucleus(logits, how.accept_p)
  return jnp.take_along_axis(nucleus, tokens[..., None], axis=-1)[..., 0]


def _init(key, task, student, teacher):
  """`Method.init`: what is counted is the state."""
  del key, task, student, teacher
  return {}, {"asked": jnp.int32(0)}


def _loss(name, compare, params, state, student, batch, key, step):
  """`Method.loss`: the divergence `compare` over counted positions."""
  del params, key, step
  (teacher,) = batch.teachers
  value = compare(student.logits, teacher.logits)
  value, metrics = weighted_sum(
    {name: (1.0, mean_counted(value, batch.labels))}
  )
  asked = jnp.int32(0) if batch.asked is None else batch.asked
  count = jnp.sum(batch.labels >= 0, axis=-1, dtype=jnp.float32)
  metrics |= {
    "tokens_per_text": jnp.mean(count),
    "asked": asked.astype(jnp.float32),
  }
  return value, ({"asked": state["asked"] + asked}, metrics)
