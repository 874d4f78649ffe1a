"""The checkout with stand-ins that the tests of launch/ start scripts in."""

import pytest

from tests.launch.checkout import Checkout


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)
