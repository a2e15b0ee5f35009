"""The teacher: who answers, and how each question is asked only once.

`from_callable`, `from_run`, `from_torch`, `from_gpt2` and `from_model` make a
`Teacher`; `build` asks it about the images of an `Order` that a table does not
hold yet.
"""

from ckd_jax.teacher.ask import Bought, asked_about, build
from ckd_jax.teacher.asking import Asking
from ckd_jax.teacher.black_box import from_callable, from_function
from ckd_jax.teacher.checked import require
from ckd_jax.teacher.ledger import Ledger
from ckd_jax.teacher.networks import (
  from_gpt2,
  from_model,
  from_run,
  from_torch,
  pruned,
)
from ckd_jax.teacher.order import BudgetExceeded, CallBudget, Order
from ckd_jax.teacher.teacher import AnswerFunction, Network, Teacher
from ckd_jax.teacher.views import VIEWS, augmented

__all__ = [
  "VIEWS",
  "AnswerFunction",
  "Asking",
  "Bought",
  "BudgetExceeded",
  "CallBudget",
  "Ledger",
  "Network",
  "Order",
  "Teacher",
  "asked_about",
  "augmented",
  "build",
  "from_callable",
  "from_function",
  "from_gpt2",
  "from_model",
  "from_run",
  "from_torch",
  "pruned",
  "require",
]
