"""Functions as teachers: an API, say."""

import traceback
from typing import Any

from ckd_jax.errors import UserError
from ckd_jax.system import imports, redacted
from ckd_jax.table import Answers
from ckd_jax.teacher.deadline import within
from ckd_jax.teacher.manner import Manner
from ckd_jax.teacher.outage import Outage, retry_after
from ckd_jax.teacher.teacher import AnswerFunction, Teacher

# A mistake in the user's function raises these or a plain ValueError, and a
# retry would not mend it. An outage may raise OSError, TimeoutError,
# RuntimeError or, after a cut response, a kind of ValueError of its own, such
# as JSONDecodeError.
BUGS = (
  ArithmeticError,
  AssertionError,
  AttributeError,
  ImportError,
  LookupError,
  NameError,
  NotImplementedError,
  RecursionError,
  SyntaxError,
  TypeError,
)


def from_callable(spec: str, *, kind: str = "logits", **manner) -> Teacher:
  """Any function from n images or texts to float[n, classes]: an API, say.

  Args:
    spec: `package.module:function`.
    kind: of the answers, "logits", "log_probs" or "probs".
    **manner: fields of `Manner`: how it is asked.

  Raises:
    UserError: the function does not exist, or a number is out of range.
  """
  function = imports.import_function(spec, "the teacher")
  return from_function(function, f"callable:{spec}", kind=kind, **manner)


def from_function(
  function: AnswerFunction, name: str, *, kind: str = "logits", **manner
) -> Teacher:
  """A function object in place of a spec.

  A mistake in the function (one of `BUGS`, or a ValueError that is of no kind
  of its own) is raised at once; any other error is an `Outage`, after which a
  request may be sent again. A row that is None in a list of rows is a question
  without an answer, which is asked again.

  Args:
    function: uint8[n, h, w, c], or a list of n texts -> float[n, classes].
    name: identifies the teacher in a table.
    kind: of the answers, "logits", "log_probs" or "probs".
    **manner: fields of `Manner`: how it is asked.

  Raises:
    UserError: a number is out of range.
  """
  how = Manner(**manner)
  how.check()

  def ask(asked: Any, *, needs: frozenset[str] = frozenset()) -> Answers:
    del needs  # a black box gives logits only
    try:
      return Answers(within(how.timeout, function, asked))
    except UserError:
      raise
    except KeyboardInterrupt:
      raise
    except (
      BaseException
    ) as error:  # a client may call sys.exit, or be cancelled
      if not _is_mistake(error):
        raise Outage(redacted.told(error), retry_after(error)) from error
      place = traceback.extract_tb(error.__traceback__)[-1]
      raise UserError(
        f"the teacher {name} has a mistake in {place.filename}, line"
        f" {place.lineno}: {redacted.told(error)}; its answers so far are kept"
        " (what is to be asked again raises an OSError)"
      ) from error

  return Teacher(name=name, ask=ask, kind=kind, manner=how)


def _is_mistake(error: BaseException) -> bool:
  return isinstance(error, BUGS) or type(error) is ValueError
