"""Dominance, fronts, crowding and hypervolume against brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from luthier import pareto


def points(most=8, dims=(1, 4)):
    shape = st.tuples(st.integers(1, most), st.integers(*dims))
    return arrays(np.float64, shape, elements=st.integers(0, 5).map(float))


def _dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def _ranks(losses):
    left, out, rank = set(range(len(losses))), {}, 0
    while left:
        best = {i for i in left if not any(_dominates(losses[j], losses[i]) for j in left)}
        out.update(dict.fromkeys(best, rank))
        left, rank = left - best, rank + 1
    return [out[i] for i in range(len(losses))]


def _volume(losses, reference):
    """Inclusion and exclusion over all subsets of boxes."""
    total = 0.0
    for size in range(1, len(losses) + 1):
        for some in combinations(losses, size):
            corner = np.max(some, axis=0)
            total += (-1) ** (size + 1) * float(np.prod(np.maximum(reference - corner, 0)))
    return total


@given(points())
def test_front_and_ranks_are_those_of_brute_force(losses):
    assert pareto.ranks(losses).tolist() == _ranks(losses)
    assert pareto.front(losses).tolist() == [r == 0 for r in _ranks(losses)]


@given(points(most=6))
def test_hypervolume_is_inclusion_and_exclusion(losses):
    reference = np.full(losses.shape[1], 4.5)
    inside = losses[(losses < reference).all(1)]
    assert pareto.hypervolume(losses, reference) == pytest.approx(_volume(inside, reference))


@given(points(most=6), st.integers(0, 5))
def test_a_dominated_point_adds_no_volume(losses, i):
    reference = np.full(losses.shape[1], 6.0)
    worse = losses[i % len(losses)] + 0.5
    more = np.vstack([losses, worse])
    assert pareto.hypervolume(more, reference) == pytest.approx(pareto.hypervolume(losses, reference))


def test_crowding_by_hand():
    losses = np.array([[0.0, 4.0], [1.0, 2.0], [3.0, 1.0], [4.0, 0.0]])
    assert pareto.crowding(losses).tolist() == [np.inf, 3 / 4 + 3 / 4, 3 / 4 + 2 / 4, np.inf]


@given(points(dims=(1, 3)), st.data())
def test_order_puts_feasible_first_then_rank(losses, data):
    lack = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0]), min_size=len(losses), max_size=len(losses)))
    )
    found = pareto.order(losses, lack)
    assert sorted(found.tolist()) == list(range(len(losses)))
    assert np.all(np.diff(lack[found]) >= 0)
    feasible = found[lack[found] == 0]
    assert np.all(
        np.diff(np.array(_ranks(losses[np.sort(feasible)]))[np.searchsorted(np.sort(feasible), feasible)]) >= 0
    )
