"""Sobol points of our own: any point at once, and no half second to import scipy.stats."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from luthier.keys import Key
from luthier.pareto import Array

_BITS = 30
_BLOCK = 256

# polynomial:first direction numbers, for dimensions 2, 3 ...; the table new-joe-kuo-6.21201 up to 64
_TABLE = """
    3:1 7:1,3 11:1,3,1 13:1,1,1 19:1,1,3,3 25:1,3,5,13 37:1,1,5,5,17 41:1,1,5,5,5 47:1,1,7,11,19 55:1,1,5,1,1
    59:1,1,1,3,11 61:1,3,5,5,31 67:1,3,3,9,7,49 91:1,1,1,15,21,21 97:1,3,1,13,27,49 103:1,1,1,15,7,5
    109:1,3,1,15,13,25 115:1,1,5,5,19,61 131:1,3,7,11,23,15,103 137:1,3,7,13,13,15,69 143:1,1,3,13,7,35,63
    145:1,3,5,9,1,25,53 157:1,3,1,13,9,35,107 167:1,3,1,5,27,61,31 171:1,1,5,11,19,41,61 185:1,3,5,3,3,13,69
    191:1,1,7,13,1,19,1 193:1,3,7,5,13,19,59 203:1,1,3,9,25,29,41 211:1,3,5,13,23,1,55 213:1,3,7,3,13,59,17
    229:1,3,1,3,5,53,69 239:1,1,5,5,23,33,13 241:1,1,7,7,1,61,123 247:1,1,7,9,13,61,49 253:1,3,3,5,3,55,33
    285:1,3,1,15,31,13,49,245 299:1,3,5,15,31,59,63,97 301:1,3,1,11,11,11,77,249 333:1,3,1,11,27,43,71,9
    351:1,1,7,15,21,11,81,45 355:1,3,7,3,25,31,65,79 357:1,3,1,1,19,11,3,205 361:1,1,5,9,19,21,29,157
    369:1,3,7,11,1,33,89,185 391:1,3,3,3,15,9,79,71 397:1,3,7,11,15,39,119,27 425:1,1,3,1,11,31,97,225
    451:1,1,1,3,23,43,57,177 463:1,3,7,7,17,17,37,71 487:1,3,1,5,27,63,123,213 501:1,1,3,5,11,43,53,133
    529:1,3,5,5,29,17,47,173,479 539:1,3,3,11,3,1,109,9,69 545:1,1,1,5,17,39,23,5,343 557:1,3,1,5,25,15,31,103,499
    563:1,1,1,11,11,17,63,105,183 601:1,1,5,11,9,29,97,231,363 607:1,1,5,15,19,45,41,7,383
    617:1,3,7,7,31,19,83,137,221 623:1,1,1,3,23,15,111,223,83 631:1,1,5,13,31,15,55,25,161
    637:1,1,3,13,25,47,39,87,257
"""


def directions(d: int) -> NDArray[np.int64]:
    """Direction numbers of the first d <= 64 dimensions, highest bit first, shape (d, 30).

    Source:
        Joe and Kuo, "Constructing Sobol sequences with better two-dimensional projections", 2008; recurrence:
        Bratley and Fox, "Algorithm 659", 1988, equation 2.
    """
    out = np.empty((d, _BITS), dtype=np.int64)
    out[0] = 1
    for j, entry in enumerate(_TABLE.split()[: d - 1], start=1):
        polynomial, numbers = entry.split(":")
        m = [int(x) for x in numbers.split(",")]
        s, a = len(m), int(polynomial)
        for i in range(s, _BITS):
            new = m[i - s]
            for k in range(1, s + 1):
                new ^= ((a >> (s - k)) & 1) * (m[i - k] << k)
            m.append(new)
        out[j] = m
    return out << np.arange(_BITS - 1, -1, -1)


def most() -> int:
    """Dimensions that the table reaches."""
    return 1 + len(_TABLE.split())


@lru_cache(maxsize=16)
def _scrambled(seed: int, d: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Scrambled direction numbers, shape (d, 30), and digital shifts, shape (d,).

    Source:
        Matousek, "On the L2-discrepancy for anchored boxes", 1998 (random linear scrambling).
    """
    generator, plain = Key(seed).generator("sobol"), directions(d)
    place = np.arange(_BITS - 1, -1, -1)
    bits = (plain[:, :, None] >> place) & 1  # (d, 30 numbers, 30 bits), highest bit first
    lower = np.tril(generator.integers(0, 2, (d, _BITS, _BITS)), -1) + np.eye(_BITS, dtype=np.int64)
    mixed = np.einsum("jrb,jnb->jnr", lower, bits) & 1
    return (mixed << place).sum(2), generator.integers(0, 1 << _BITS, d)


@lru_cache(maxsize=16)
def block(seed: int, index: int, d: int) -> Array:
    """Points ``256 * index ...`` of the scrambled sequence, in the order of their numbers, shape (256, d).

    Args:
        seed: of the scrambling.
        index: which 256 points.
        d: dimensions; beyond 64 scipy's generator takes over.
    """
    if d > most():
        from scipy.stats import qmc  # slow to import: only where it is used

        sequence = qmc.Sobol(d, scramble=True, seed=Key(seed).integer("sobol"))
        if index:
            sequence.fast_forward(index * _BLOCK)
        return np.asarray(sequence.random(_BLOCK))
    numbers, shift = _scrambled(seed, d)
    at = index * _BLOCK + np.arange(_BLOCK)
    out = np.broadcast_to(shift, (_BLOCK, d)).copy()
    for bit in range(_BITS):
        out ^= np.where((at >> bit & 1)[:, None] == 1, numbers[:, bit], 0)
    return np.asarray((out + 0.5) / (1 << _BITS))


def point(seed: int, number: int, d: int) -> Array:
    """One point of the scrambled sequence, shape (d,)."""
    return np.asarray(block(seed, number // _BLOCK, d)[number % _BLOCK])
