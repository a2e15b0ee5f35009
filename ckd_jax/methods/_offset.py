"""The class offset, for methods, which import nothing outside of their room."""

from ckd_jax.offset import FIT, MODES, NONE, target

__all__ = ["FIT", "MODES", "NONE", "target"]
