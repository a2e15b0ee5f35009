"""Commands as a shell would run them."""

from ckd_jax import errors, main


def refused(capfd, *argv) -> str:
  """Runs the command as a shell would; returns its one line on stderr."""
  code = errors.command(main.main, list(argv))
  captured = capfd.readouterr()
  assert "Traceback" not in captured.out + captured.err
  assert code == 2, captured
  (line,) = captured.err.splitlines()
  assert line.startswith("ckd_jax: error: ")
  return line
