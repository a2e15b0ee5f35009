"""The class offset, for methods: they import from this room and numerics only."""

from ckd_jax.offset import FIT, MODES, NONE, target

__all__ = ["FIT", "MODES", "NONE", "target"]
