"""What a compiler says about a run on devices that are not there.

`target` names the devices, `launch` makes a run's program out of shapes alone,
`compiled` compiles it, `read` and `figures` say what it costs by the compiler's
estimates, and `compile_for` tells a user whether the run fits.
"""

from ckd_jax.ahead.answers import expected
from ckd_jax.ahead.case import Case, compile_case
from ckd_jax.ahead.command import compile_for
from ckd_jax.ahead.compiling import (
  Compiled,
  Launch,
  TooLarge,
  compiled,
  launch,
)
from ckd_jax.ahead.figures import figures
from ckd_jax.ahead.part import part
from ckd_jax.ahead.reading import Report, read
from ckd_jax.ahead.targets import Target, names, target

__all__ = [
  "Case",
  "Compiled",
  "Launch",
  "Report",
  "Target",
  "TooLarge",
  "compile_case",
  "compile_for",
  "compiled",
  "expected",
  "figures",
  "launch",
  "names",
  "part",
  "read",
  "target",
]
