"""The tests, in the rooms of the package; what they share is in `helpers`."""

import pytest

pytest.register_assert_rewrite("tests.helpers")
