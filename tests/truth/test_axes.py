"""The axis algebra against what can be listed by hand."""

import itertools

import numpy as np

from luthier.model import axes
from luthier.model.axes import Axis, Product, Sum, find, freeze, kept, length, positions, regroup, split, unify


def test_heads_times_size_keeps_whole_heads():
    heads, size = Axis(3), Axis(2)
    width = Axis(6)
    unify(width, Product([heads, size]))
    assert kept(width, {heads: np.array([0, 2])}).tolist() == [0, 1, 4, 5]
    assert kept(width, {size: np.array([1])}).tolist() == [1, 3, 5]


def test_fused_projection_is_three_copies():
    qkv, heads, size = Axis(12), Axis(2), Axis(2)
    three = regroup([qkv], [3, 2, 2])
    unify(three[1], heads)
    unify(three[2], size)
    freeze(three[0], "taken apart")
    assert kept(qkv, {heads: np.array([1])}).tolist() == [2, 3, 6, 7, 10, 11]


def test_concatenation_shifts_the_second_part():
    a, b = Axis(3), Axis(4)
    joined = Sum([a, b])
    assert kept(joined, {a: np.array([1]), b: np.array([0, 3])}).tolist() == [1, 3, 6]
    assert length(joined, {a: np.array([1]), b: np.array([0, 3])}) == 3


def test_splitting_refines_the_axis_everywhere():
    width = Axis(8)
    elsewhere = Product([width, Axis(2, "positions")])
    head, tail = split(width, 3)
    assert (head.size, tail.size) == (3, 5)
    assert kept(elsewhere, {find(head): np.array([2])}).tolist() == [4, 5, *range(6, 16)]


def test_group_query_heads_follow_their_key_heads():
    queries, keys = Axis(6), Axis(2)
    unify(queries, Product([keys, Axis(3, "queries per key head")]))
    assert kept(queries, {keys: np.array([1])}).tolist() == [3, 4, 5]


def test_a_channel_shuffle_returns_to_the_same_axes():
    channels = Axis(6)
    groups, inside = regroup([channels], [2, 3])
    shuffled = Product([inside, groups])
    assert kept(shuffled, {find(inside): np.array([0, 2])}).tolist() == [0, 1, 4, 5]
    assert kept(channels, {find(inside): np.array([0, 2])}).tolist() == [0, 2, 3, 5]


def test_frozen_spreads_through_a_later_tie():
    a, b = Axis(4, "the model's output"), Axis(4)
    unify(b, a)
    assert find(b) is find(a)
    assert not axes.is_free(b)


def test_products_that_do_not_divide_freeze():
    p = Product([Axis(4), Axis(3)])
    q = Product([Axis(3), Axis(4)])
    unify(p, q, "no")
    assert not axes.is_free(p)
    assert not axes.is_free(q)


def test_an_axis_that_would_contain_itself_freezes():
    a = Axis(4)
    unify(Sum([a, Axis(4)]), Sum([Axis(4), a]))
    b, c = Axis(2), Axis(4)
    unify(c, Product([b, Axis(2)]))
    unify(b, c)
    assert kept(c, {}).tolist() == [0, 1, 2, 3]


def test_a_product_meets_a_sum_by_writing_its_copies_out():
    product = Product([Axis(2), Axis(3)])
    x, y = Axis(3), Axis(3)
    unify(product, Sum([x, y]))
    assert find(x) is find(y)
    assert kept(product, {find(x): np.array([1])}).tolist() == [1, 4]


def test_positions_name_the_owner_of_each_index():
    heads, size = Axis(2), Axis(3)
    e = Sum([Axis(1), Product([heads, size])])
    assert positions(e, heads).tolist() == [-1, 0, 0, 0, 1, 1, 1]
    assert positions(e, size).tolist() == [-1, 0, 1, 2, 0, 1, 2]


def test_regroup_freezes_what_it_cannot_follow():
    a, b = Axis(4), Axis(6)
    out = regroup([a, b], [3, 8], "no")
    assert [d.size for d in out] == [3, 8]
    assert not any(axes.is_free(e) for e in (a, b, *out))


def test_a_network_of_thousands_of_layers_does_not_exhaust_the_stack():
    first = axes.Axis(4)
    for _ in range(20_000):
        axes.unify(first, axes.Axis(4))
    last = axes.Axis(4, "held")
    axes.unify(first, last)
    assert axes.find(first) is axes.find(last)
    chain = [axes.Axis(4) for _ in range(20_000)]
    for a, b in itertools.pairwise(chain):
        a.merged = b
    assert axes.find(chain[0]) is chain[-1]
