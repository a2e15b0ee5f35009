"""Paths: the checkout, its configs, recorded values, real data."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "configs" / "digits.py"
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"  # real data, not committed: CONTRIBUTING.md
