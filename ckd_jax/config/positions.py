"""What a language model excludes in a config."""

from collections.abc import Iterator

from ckd_jax import methods
from ckd_jax.offset import FIT


def of_positions(config, method: methods.Method) -> Iterator[str]:
  """One line for everything that excludes another.

  Args:
    config: a ConfigDict about texts.
    method: built from its method and hyper.
  """
  causal, top = config.dataset.text.causal, config.teacher.top_k
  if causal and config.hyper.get("offset") == FIT:
    yield (
      "hyper.offset='fit' fits one offset for every class, and a language model"
      " has none: set hyper.offset=none"
    )
  if top and not causal:
    yield "teacher.top_k is for language models: set teacher.top_k=0"
  if top and method.needs and not method.takes_top:
    work = ", ".join(
      methods.working_with(
        frozenset({"logits"}), "texts", answers="positions", top=True
      )
    )
    yield (
      f"method {config.method!r} needs all logits, and teacher.top_k={top}"
      f" keeps some: set teacher.top_k=0, or a method that takes them: {work}"
    )
