"""What the documents name is there: links, commands, keys, files, tests."""

import re
import shlex

import pytest

from ckd_jax import config, losses, sweep
from tests.helpers.paths import ROOT

GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
GUIDES += sorted((ROOT / "docs").glob("*.md"))
EVERY = [*GUIDES, ROOT / "CHANGELOG.md", ROOT / "experiments" / "README.md"]
TEXTS = {path: path.read_text() for path in EVERY}
FENCED = re.compile(r"^```.*?^```", re.S | re.M)
# Flags of `train` and `sweep` that no config sees.
APART = re.compile(
  r"--(hosts|coordinator|processes|process|compile_for|replay)\b"
)


def named(path):
  return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
  """The anchors that GitHub makes of the titles of a document."""
  found: list[str] = []
  for title in re.findall(r"^#+ (.*)", FENCED.sub("", text), re.M):
    slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
  return set(found)


def broken(path, text: str) -> list[str]:
  """Links of a document that lead nowhere."""
  missing = []
  for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
    if re.match(r"https?:", link):
      continue
    file, _, anchor = link.partition("#")
    target = path.parent / file
    if file and not target.exists():
      missing.append(link)
    elif anchor:
      there = anchors(target.read_text() if file else text)
      missing += [link] * (anchor not in there)
  return missing


def commands(text: str) -> list[str]:
  """Our own commands, each in one line: of blocks, and of configs in prose."""
  blocks = [
    line.strip()
    for language, block in re.findall(
      r"^```(\w*)\n(.*?)^```", text, re.S | re.M
    )
    if not language
    for line in block.replace("\\\n", " ").splitlines()
  ]
  plain = FENCED.sub("", text)
  spans = re.findall(r"`(--config=configs/\w[^`A-Z]*)`", plain)
  lines = [*blocks, *(f"ckd-jax train {span}" for span in spans)]
  ours = re.compile(r"(?:ckd-jax (?=\w)|python -m ckd_jax\.).*")
  found = [ours.search(line) for line in lines]
  return [match[0].rstrip('"') for match in found if match]


def check_command(line: str) -> None:
  """Reads a command as the program would, without doing anything.

  Raises:
    UserError, AssertionError: it would be refused.
  """
  line = re.sub(r"^python -m ckd_jax\.main", "ckd-jax train", line)
  line = re.sub(r"^python -m ckd_jax\.", "ckd-jax ", line)
  _, name, *flags = shlex.split(line, comments=True)
  flags = [flag for flag in flags if not APART.match(flag)]
  if not flags:
    return
  if name == "train":
    config.from_flags(flags)
  elif name == "sweep":
    sweep.read(flags)
  else:
    file = {"table": "table/__main__.py", "report": "report/command.py"}
    source = (ROOT / "ckd_jax" / file.get(name, f"{name}.py")).read_text()
    for flag in flags:
      if flag.startswith("--"):
        assert f'"{flag.partition("=")[0]}"' in source, flag


@pytest.mark.parametrize("path", EVERY, ids=named)
def test_every_link_leads_somewhere(path):
  assert not broken(path, TEXTS[path])


def test_a_link_that_leads_nowhere_is_seen():
  text = "# One's `a-b`, 2\n[a](#ones-a-b-2) [b](docs) [c](none.md) [d](#one)"
  text += " [e](README.md#results) [f](README.md#nothing)"
  missing = ["none.md", "#one", "README.md#nothing"]
  assert broken(ROOT / "X.md", text) == missing


@pytest.mark.parametrize("path", GUIDES, ids=named)
def test_every_command_would_be_taken(path):
  for line in commands(TEXTS[path]):
    check_command(line)


def test_the_commands_are_found():
  found = [line for path in GUIDES for line in commands(TEXTS[path])]
  kinds = {re.split(r"[ .]", line.replace("-m ", ""))[1] for line in found}
  assert {"train", "sweep", "report", "table", "export"} <= kinds
  with pytest.raises(Exception, match="learning_rat"):
    check_command("ckd-jax train --config=digits --config.learning_rat=1")


def test_every_key_is_one_of_a_config():
  known = {
    key
    for name in ("cifar100", "cranfield", "names")
    for key in config.flatten(config.get_config(name))
  }
  sections = {key.rpartition(".")[0] for key in known} - {""}
  for path in GUIDES:
    spans = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", TEXTS[path])
    for key in spans:
      if key.partition(".")[0] in sections and not key.endswith(".json"):
        assert key in known | sections, (named(path), key)


def test_every_file_and_every_test_is_there():
  folders = (ROOT / "ckd_jax", ROOT / "tests", ROOT / "experiments")
  files = {
    file: file.read_text()
    for folder in folders
    for file in folder.rglob("*.py")
  }
  paths = [f"/{named(file)}" for file in files]
  tests = "\n".join(files.values())
  for path in GUIDES:
    for span in re.findall(r"`([^`\n]+)`", FENCED.sub("", TEXTS[path])):
      for file in re.findall(r"(?<![\w/*])(?:\w+/)*\w+\.py\b", span):
        assert any(x.endswith(f"/{file}") for x in paths), (named(path), file)
      for name in re.findall(r"(?<![\w.])test_\w+(?!\w|\.py)", span):
        assert f"def {name}" in tests, (named(path), name)


def test_every_loss_is_named():
  text = (ROOT / "docs" / "methods.md").read_text()
  spans = set(re.findall(r"`(\w+)`", text))
  types = {"AFDHead", "AFDHeads", "CRDMemory"}
  assert set(losses.__all__) - types <= spans
