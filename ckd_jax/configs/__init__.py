"""The configs that `--config=configs/NAME.py` finds wherever it is run."""
