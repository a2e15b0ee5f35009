"""What an error of a user's function says, short and without its secrets."""

import os
import re

_LONGEST = 200  # characters that are told
_READ = 2000  # characters that are looked at: an error may hold a whole page
_SHORTEST = 6  # characters of a secret in the environment

_LONG = (
  "authorization|cookie|credential|key|passw(?:or)?d|secret|session|signature"
  "|token"
)
_SHORT = "(?:auth|pass(?:code|phrase)?|pwd?)"  # parts of other words, too
_WORDS = f"{_LONG}|(?<![a-z]){_SHORT}(?![a-z])"
# Variables of the environment that hold secrets; PWD is the working folder.
_NAMES = re.compile(f"{_LONG}|_{_SHORT}$", re.IGNORECASE)
# What looks like a secret, and what is shown in its place. An error of an HTTP
# client repeats the address that it called, and at times its headers.
_SECRETS = (
  (r"\b([a-z][a-z0-9+.-]*)://[^\s\"'<>]+", r"\1://..."),  # an address
  (r"(?i)\b(url:? +)/[^\s\"'<>)]+", r"\1..."),
  (r"\?[^\s\"'<>)]+", "?..."),  # the query of an address
  (r"[^\s\"'<>(/:]+:[^\s\"'<>/:]+@", "...@"),  # a user and a password
  # All of a header: its value may be several words.
  (
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)"
    r"([\"']?\s*[:=]\s*b?[\"']?)[^\"'}\]]+",
    r"\1\2...",
  ),
  (r"(?i)\b(bearer|basic)\s+[^\s\"',;)]+", r"\1 ..."),
  # One word, or all that is quoted.
  (
    rf"(?i)\b([\w-]*(?:{_WORDS})s?(?: \w+)?[\"']?\s*[:=]\s*b?[\"']?)"
    r"(?!bearer|basic|\.\.\.)((?<=\")[^\"]+|(?<=')[^']+|[^\s\"',;)]+)",
    r"\1...",
  ),
  (
    r"(?i)\b((?:password|token|key)(?: is|/) ?)(?!\.\.\.)[^\s\"',;)]+",
    r"\1...",
  ),
  # Keys of services that begin in a way of their own.
  (r"\b(?:[prs]k|hf|gh[a-z]|glpat|xox[a-z])[-_](?=[\w-]*\d)[\w-]{8,}", "..."),
  (r"\b(?:hf|gh[a-z])_\w{20,}", "..."),
  (r"\b(?:AKIA|ASIA|AIza|ya29|eyJ)[\w.-]{8,}", "..."),
  # Long words of letters and digits: other keys have no other mark.
  (r"\b(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])[\w+=-]{24,}", "..."),
)
_ADDRESS = re.compile(r"//([^/\s]*@|[^\s]*\?)")


def told(error: BaseException) -> str:
  """The type and the text of an error; what looks like a secret is left out.

  `--debug`, and the traceback of a Python program, show it whole.
  """
  try:
    text = str(error)
  except Exception:  # it is the user's
    text = "it has no text"
  text = shown(text)
  if len(text) > _LONGEST:
    text = f"{text[:_LONGEST]}..."
  return f"{type(error).__name__}: {text}"


def shown(text: str) -> str:
  """A text on one line; what looks like a secret is left out.

  So is the value of every environment variable with the name of one.
  """
  for name, value in os.environ.items():
    if len(value) >= _SHORTEST and _NAMES.search(name):
      text = text.replace(value, "...")
  text = _begin(" ".join(text.split()))
  for pattern, instead in _SECRETS:
    text = re.sub(pattern, instead, text)
  return text


def _begin(text: str) -> str:
  """Its first words: patterns take long over a page, and half a word is none.

  A text that is one long word has no word to tell.
  """
  if len(text) <= _READ:
    return text
  return f"{text[:_READ].rpartition(' ')[0]} ..."


def holds_secret(place: object) -> bool:
  """Whether a path is an address with a user's name, or with a query."""
  return isinstance(place, str) and bool(_ADDRESS.search(place))
