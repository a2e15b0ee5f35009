"""The precisions in which losses are tested; each is compiled separately."""

import pytest

every_dtype = pytest.mark.parametrize(
  "dtype",
  [
    "float16",  # the narrowest range; the contract has float32 for every method
    pytest.param("float32", marks=pytest.mark.slow),
    pytest.param("bfloat16", marks=pytest.mark.slow),
  ],
)
