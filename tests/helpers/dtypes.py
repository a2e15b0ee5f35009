"""The types in which losses are looked at, each of which is compiled anew."""

import pytest

every_dtype = pytest.mark.parametrize(
  "dtype",
  [
    "float16",  # the narrowest range; the contract has float32 for every method
    pytest.param("float32", marks=pytest.mark.slow),
    pytest.param("bfloat16", marks=pytest.mark.slow),
  ],
)
