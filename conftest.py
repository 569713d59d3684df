"""For every test and every example: torch's global stream starts at the same place, whatever ran before."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _seeded():
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
