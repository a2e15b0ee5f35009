"""How a black box is asked: how much at once, how fast, and how patiently."""

from typing import NamedTuple

from ckd_jax.errors import UserError


class Manner(NamedTuple):
  """How a black box is asked.

  Attributes:
    request_size: images per request.
    concurrency: requests in flight at once, each in its own thread.
    requests_per_second: upper limit, retries included; 0 is none.
    retries: how often a failed request is sent again.
    back_off: seconds before the first retry; doubled before each next one.
    timeout: seconds after which a request without an answer has failed; 0 is
      no limit.
  """

  request_size: int = 1
  concurrency: int = 1
  requests_per_second: float = 0.0
  retries: int = 3
  back_off: float = 1.0
  timeout: float = 0.0

  def check(self) -> None:
    """Raises UserError for a number out of range."""
    if min(self.concurrency, self.request_size, self.retries + 1) < 1:
      raise UserError(
        "teacher.concurrency and teacher.request_size must be at least 1,"
        " teacher.retries at least 0"
      )
    if min(self.back_off, self.requests_per_second, self.timeout) < 0:
      raise UserError(
        "teacher.back_off, teacher.requests_per_second and teacher.timeout"
        " must be at least 0"
      )
