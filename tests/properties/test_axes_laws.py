"""Laws of the axis algebra on random expressions."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from luthier.model.axes import Axis, Product, Sum, find, is_free, kept, leaves, length, positions, regroup, split, unify

axis = st.builds(Axis, st.integers(1, 6))
expr = st.recursive(
    axis,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(Product) | st.lists(inner, min_size=1, max_size=3).map(Sum)
    ),
    max_leaves=5,
).filter(lambda e: 1 <= e.size <= 300)


def some_cut(e, data):
    """Kept indices for every axis of an expression."""
    return {
        a: np.array(sorted(data.draw(st.sets(st.integers(0, a.size - 1), min_size=1))))
        for a in dict.fromkeys(leaves(e))
    }


@given(expr, st.data())
def test_kept_is_ascending_in_range_and_as_long_as_said(e, data):
    keep = some_cut(e, data)
    index = kept(e, keep)
    assert len(index) == length(e, keep)
    assert np.all(np.diff(index) > 0)
    assert index.min(initial=0) >= 0
    assert index.max(initial=0) < e.size


@given(expr, st.data())
def test_an_index_stays_if_every_axis_that_owns_it_keeps_it(e, data):
    keep = some_cut(e, data)
    owned = np.ones(e.size, dtype=bool)
    for a, index in keep.items():
        if sum(leaf is a for leaf in leaves(e)) == 1:
            where = positions(e, a)
            owned &= (where < 0) | np.isin(where, index)
    assert np.array_equal(kept(e, keep), np.flatnonzero(owned))


@given(expr, expr, st.data())
def test_unified_dimensions_are_cut_alike(p, q, data):
    whole = Axis(p.size)
    unify(whole, p)
    if q.size == p.size:
        unify(p, q)
        keep = {a: i for a, i in some_cut(Sum([p, q]), data).items() if a.why is None}
        assert np.array_equal(kept(p, keep), kept(q, keep))
        assert is_free(p) == is_free(q)
    assert np.array_equal(kept(whole, {}), np.arange(p.size))


@given(st.lists(axis, min_size=1, max_size=3), st.data())
def test_regrouping_moves_indices_as_numpy_reshapes(dims, data):
    total = math.prod(d.size for d in dims)
    sizes = []
    rest = total
    while rest > 1:
        size = data.draw(st.sampled_from([k for k in range(2, rest + 1) if rest % k == 0]))
        sizes.append(size)
        rest //= size
    sizes = sizes or [1]
    out = regroup(dims, sizes)
    assert [d.size for d in out] == sizes
    keep = {a: i for a, i in some_cut(Product(dims), data).items() if a.why is None}
    grid = np.arange(total).reshape([d.size for d in dims])
    before = grid[np.ix_(*(kept(d, keep) for d in dims))].ravel()
    after = grid.reshape(sizes)[np.ix_(*(kept(d, keep) for d in out))].ravel()
    assert np.array_equal(before, after)


@given(expr, st.data())
def test_the_parts_of_a_split_are_the_whole(e, data):
    k = data.draw(st.integers(1, max(1, e.size - 1)))
    head, tail = split(e, k)
    assert head.size + tail.size == e.size
    keep = {a: i for a, i in some_cut(Sum([head, tail]), data).items() if a.why is None}
    whole = kept(e, keep)
    assert np.array_equal(whole[whole < k], kept(head, keep))
    assert np.array_equal(whole[whole >= k] - k, kept(tail, keep) if tail.size else np.zeros(0))


@given(expr)
def test_the_present_form_is_stable(e):
    once = find(e)
    assert repr(find(once)) == repr(once)
    assert once.size == e.size
