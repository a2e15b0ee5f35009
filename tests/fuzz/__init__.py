"""Cases that Hypothesis draws: losses, configs and flags, and files.

Every file has a strategy, CASES, and `check`, which raises where a case breaks
a promise. experiments/fuzz.py tries thousands of them.
"""
