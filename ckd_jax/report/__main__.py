"""`python -m ckd_jax.report`."""

import sys

from ckd_jax.errors import command
from ckd_jax.report import main

sys.exit(command(main, sys.argv[1:]))
