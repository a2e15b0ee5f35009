"""Language models that learn from texts that they wrote themselves."""

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
  losses = by_name(beta, skew)
  for name, value, known in (
    ("source", source, _SOURCES),
    ("objective", objective, tuple(losses)),
  ):
    if value not in known:
      raise ValueError(f"{name} must be one of {known}, not {value!r}")
  share(source_share=source_share, beta=beta, skew=skew, accept_p=accept_p)
  above(0, temperature=temperature, teacher_temperature=teacher_temperature)
  above(0, top_p=top_p)
  at_least(1, draft=draft)
  at_least(0, top_k=top_k)

  def accepts(logits, tokens):
    if not accept_p:
      return texts.in_top(logits, tokens, top_k)
    nucleus = texts.in_nucleus(logits, accept_p)
    return jnp.take_along_axis(nucleus, tokens[..., None], axis=-1)[..., 0]

  def written(key, pages, ask: Ask):
    pens = (
      texts.Pen(key, temperature, top_p),
      texts.Pen(key, teacher_temperature, top_p),
    )
    if source == "student":
      return texts.write(pages, ask.student, pens[0], texts.STUDENT)
    if source == "teacher":
      return texts.write(pages, ask.teacher, pens[1], texts.TEACHER)
    return texts.speculate(
      pages, ask, pens, accepts, draft=draft, fresh_draw=fresh_draw
    )

  def compose(key, batch: Batch, ask: Ask) -> Batch:
    coin_key, key = jax.random.split(key)
    shape = batch.inputs.shape
    tokens, labels = (
      x.reshape(-1, shape[-1]) for x in (batch.inputs, batch.labels)
    )

    def by_networks():
      pages = written(key, texts.opened(tokens, labels), ask)
      told = texts.closed(pages, labels)
      if not train_first_token:
        first = jnp.argmax(labels >= 0, axis=1)[:, None]
        is_first = jnp.arange(shape[-1])[None] == first
        told = told[0], jnp.where(is_first, -1, told[1])
      return (*told, pages.asked)

    def by_data():
      return tokens, labels, jnp.int32(0)

    if source == "data":
      made = by_data()
    elif source_share == 1:
      made = by_networks()
    else:
      coin = jax.random.bernoulli(coin_key, source_share)
      made = jax.lax.cond(coin, by_networks, by_data)
    inputs, labels, asked = made
    return batch._replace(
      inputs=inputs.reshape(shape), labels=labels.reshape(shape), asked=asked
    )

  def init(key, task, student, teacher):
    del key, task, student, teacher
    return {}, {"asked": jnp.int32(0)}

  def loss(params, state, student, batch, key, step):
    del params, key, step
    (teacher,) = batch.teachers
    value = losses[objective](student.logits, teacher.logits)
    counted = jnp.mean(jnp.sum(batch.labels >= 0, axis=-1, dtype=jnp.float32))
    value, metrics = weighted_sum(
      {objective: (1.0, mean_counted(value, batch.labels))}
    )
    asked = jnp.int32(0) if batch.asked is None else batch.asked
    metrics |= {"tokens_per_text": counted, "asked": asked.astype(jnp.float32)}
    return value, ({"asked": state["asked"] + asked}, metrics)

  return Method(
    sample=sampling.batches,
    init=init,
    loss=loss,
    inputs="texts",
    live=True,
    answers="positions",
    compose=compose,
  )
