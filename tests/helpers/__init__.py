"""Shared by several tests: cases, reference code, small runs, data paths."""
