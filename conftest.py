"""For every test and example: torch's global stream starts at the same place; measurements are not kept at home."""

import os
import signal
import sys
import tempfile

import pytest
from hypothesis import settings

os.environ.setdefault("LUTHIER_CACHE", os.path.join(tempfile.gettempdir(), f"luthier-cache-{os.getuid()}"))
settings.register_profile("busy", settings(), deadline=None)  # a machine that is busy is no failure
settings.load_profile("busy")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background: programs under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded():
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
