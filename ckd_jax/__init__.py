"""Distil a student from a table of a teacher's answers."""

__version__ = "0.1.0"
