"""Config files: the user's own, and those of the package."""

import difflib
import importlib.util
import pathlib
from typing import Any

import ml_collections

from ckd_jax import configs
from ckd_jax.config.rules import check_complete
from ckd_jax.config.together import check
from ckd_jax.config.values import fill_optional, flatten, set_value
from ckd_jax.errors import UserError


def packaged() -> dict[str, pathlib.Path]:
  """The config files of the package, by name."""
  folder = pathlib.Path(configs.__file__).parent
  return {path.stem: path for path in sorted(folder.glob("[a-z]*.py"))}


def find(path: str) -> pathlib.Path:
  """Finds a config file.

  Args:
    path: of a file; or, without such a file, `configs/NAME.py` or `NAME` of a
      config of the package.

  Raises:
    UserError: there is no such file.
  """
  file = pathlib.Path(path)
  if file.is_file() and file.suffix == ".py":
    return file
  known = packaged()
  if file.stem in known and path in (
    file.stem,
    f"{file.stem}.py",
    f"configs/{file.stem}.py",
  ):
    return known[file.stem]
  raise UserError(f"no config file {path!r}: {_nearest(file, known)}")


def _nearest(file: pathlib.Path, known: dict[str, pathlib.Path]) -> str:
  """The file meant: beside the wrong name, or one of the package."""
  beside = {near.stem: str(near) for near in file.parent.glob("*.py")}
  packaged = {name: f"configs/{name}.py" for name in known}
  paths = packaged | beside
  close = difflib.get_close_matches(file.stem, paths, n=1, cutoff=0.5)
  if not close:
    return f"choose one of {', '.join(sorted(packaged.values()))}"
  return f"did you mean {paths[close[0]]!r}?"


def load_file(path: str, arg: str = "") -> ml_collections.ConfigDict:
  """Loads a config, complete and not yet checked.

  Args:
    path: of a file, or the name of a packaged config.
    arg: the text after the colon of `--config=FILE:ARG`.

  Raises:
    UserError: there is no such file, or it does not return a config.
  """
  file = find(path)
  try:
    spec = importlib.util.spec_from_file_location("_config", file)
    if spec is None or spec.loader is None:
      raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(arg)
  except UserError:
    raise
  except Exception as error:  # the user's code may raise anything
    raise UserError(
      f"{path} does not load: {type(error).__name__}: {error}"
    ) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"get_config of {path} returned a {type(config).__name__}: return an"
      " ml_collections.ConfigDict"
    )
  check_complete(config, path)
  fill_optional(config)
  return config


def get_config(name: str, **options: Any) -> ml_collections.ConfigDict:
  """A config, as `--config=configs/NAME.py:key=value,...` would make it.

    get_config("cifar100", method="kd", budget=500)
    get_config("cifar100", **{"optimizer.learning_rate": 0.05})

  Args:
    name: "cifar100", "digits", ... or the path of a file.
    **options: `method`, options of the file itself, and values of keys.

  Returns:
    A locked ConfigDict whose values were checked.

  Raises:
    UserError: there is no such config or key, or a value is out of range.
  """
  known = flatten(load_file(name))
  of_file = {
    key: value
    for key, value in options.items()
    if key == "method" or (key not in known and not key.startswith("hyper."))
  }
  arg = ",".join(f"{key}={value}" for key, value in of_file.items())
  config = load_file(name, arg)
  for key, value in options.items():
    if key not in of_file:
      set_value(config, key, value)
  check(config)
  return config.lock()
