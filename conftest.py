"""For every test and example: torch's global stream starts at the same place; measurements are not kept at home."""

import os
import sys
import tempfile

import pytest

os.environ.setdefault("LUTHIER_CACHE", os.path.join(tempfile.gettempdir(), f"luthier-cache-{os.getuid()}"))


@pytest.fixture(autouse=True)
def _seeded():
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
