"""Counter-based random streams: (study seed, trial number, purpose) -> Generator. There is no global state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from luthier.errors import UsageError


def read_seed(seed: Any) -> int:
    """A study's seed.

    Raises:
        UsageError: it is no whole number, or below 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise UsageError("'seed' cannot be used", expected="a whole number, seed >= 0", got=repr(seed))
    return int(seed)


@dataclass(frozen=True)
class Key:
    """Names a family of independent random streams.

    The stream for a purpose depends on nothing but the three names, so that trial 17 draws the same
    numbers whoever runs it, whenever, after whatever else.

    Args:
        seed: the study's seed.
        trial: the trial's number.

    Example:
        >>> a, b = Key(0, trial=3), Key(0, trial=3)
        >>> bool(a.generator("ask").random() == b.generator("ask").random())
        True
        >>> bool(a.generator("ask").random() == a.generator("split").random())
        False

    Source:
        Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    seed: int
    trial: int = 0

    def integer(self, purpose: str, bits: int = 32) -> int:
        """A reproducible non-negative integer below 2**bits, to seed other libraries."""
        text = f"{self.seed}/{self.trial}/{purpose}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big") >> (128 - bits)

    def generator(self, purpose: str) -> np.random.Generator:
        """A fresh generator at the start of the stream for ``purpose``."""
        return np.random.Generator(np.random.Philox(key=self.integer(purpose, bits=128)))

    def for_trial(self, trial: int) -> Key:
        """The key of another trial of the same study."""
        return Key(self.seed, trial)
