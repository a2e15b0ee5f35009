"""What an error of a user's function says, short and without its secrets."""

import re

_LONGEST = 200  # characters

# What looks like a secret, and what is shown in its place. An error of an HTTP
# client repeats the address that it called, and at times its headers.
_SECRETS = (
  (r"(?<=://)[^/\s@]+@", ""),  # user:password@
  (r"\?[^\s\"'<>)]+", "?..."),  # the query of an address
  (r"(?i)\b(bearer|basic)\s+[^\s\"',;)]+", r"\1 ..."),
  (
    r"(?i)\b([\w-]*(?:authorization|credential|key|passw(?:or)?d|secret"
    r"|signature|token)s?[\"']?\s*[:=]\s*[\"']?)(?!bearer|basic)[^\s\"',;)]+",
    r"\1...",
  ),
  # Long words of letters and digits: keys of services have no other mark.
  (r"\b(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])[\w+=-]{24,}", "..."),
)


def told(error: BaseException) -> str:
  """The type and the text of an error; what looks like a secret is left out.

  `--debug`, and the traceback of a Python program, show it whole.
  """
  text = " ".join(str(error).split())
  for pattern, shown in _SECRETS:
    text = re.sub(pattern, shown, text)
  if len(text) > _LONGEST:
    text = f"{text[:_LONGEST]}..."
  return f"{type(error).__name__}: {text}"
