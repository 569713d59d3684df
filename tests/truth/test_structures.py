"""Permutations and subsets against brute force: sizes, densities, moves, kernels."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import chain, combinations, permutations

import numpy as np
import pytest

import luthier as lt
from luthier.errors import UsageError
from luthier.search import _mallows
from luthier.search._encode import Encoding
from luthier.search._structures import Block, order_crossover, places, rows_of_places
from luthier.search.bayes import kernel, structures

ITEMS = ["a", "b", "c", "d"]


def block(parameter) -> Block:
    return Encoding(lt.Space(x=parameter)).blocks[0]


def every_order(k: int) -> np.ndarray:
    return np.array([np.argsort(p) for p in permutations(range(k))])


def every_selection(k: int, low: int, high: int) -> np.ndarray:
    chosen = chain.from_iterable(combinations(range(k), s) for s in range(low, high + 1))
    return np.array([[i in c for i in range(k)] for c in chosen])


def discordant(a, b) -> int:
    pairs = combinations(range(len(a)), 2)
    return sum((a[i] - a[j]) * (b[i] - b[j]) < 0 for i, j in pairs)


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        (lt.Permutation(ITEMS), set(permutations(ITEMS))),
        (lt.Subset(ITEMS), {c for s in range(5) for c in combinations(ITEMS, s)}),
        (lt.Subset(ITEMS, min=2, max=3), {c for s in (2, 3) for c in combinations(ITEMS, s)}),
    ],
)
def test_draws_and_the_grid_reach_every_value_once(parameter, values):
    draws = [parameter.from_unit(u) for u in np.random.default_rng(0).random((2000, parameter.columns))]
    assert set(draws) == set(parameter.grid(3)) == values
    assert parameter.size == len(values) == len(list(parameter.grid(3)))
    counts = [draws.count(v) for v in values]
    if isinstance(parameter, lt.Permutation):
        assert np.std(counts) < 3.0 * np.sqrt(np.mean(counts))
    else:
        sizes = np.bincount([len(d) for d in draws])[parameter.min :]
        assert sizes.min() > 0.8 * 2000 / len(sizes)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: lt.Permutation([]), "empty"),
        (lambda: lt.Permutation("abc"), "not a list"),
        (lambda: lt.Permutation(["a", "a"]), "twice"),
        (lambda: lt.Subset(ITEMS, min=5), "possible number"),
        (lambda: lt.Subset(ITEMS, min=3, max=2), "above"),
        (lambda: lt.Subset(ITEMS, min=True), "possible number"),
        (lambda: lt.Space(x=lt.Permutation(ITEMS)).check({"x": ["a", "b"]}), "out of range"),
        (lambda: lt.Space(x=lt.Permutation(ITEMS)).check({"x": ["a", "b", "c", "c"]}), "out of range"),
        (lambda: lt.Space(x=lt.Permutation(ITEMS)).check({"x": set(ITEMS)}), "out of range"),
        (lambda: lt.Space(x=lt.Subset(ITEMS, max=2)).check({"x": ["a", "b", "c"]}), "out of range"),
        (lambda: lt.Space(x=lt.Subset(ITEMS)).check({"x": ["z"]}), "out of range"),
    ],
)
def test_wrong_values_are_named(make, word):
    with pytest.raises(UsageError, match=word):
        make()


def test_values_are_taken_in_any_form_and_kept_in_one():
    space = lt.Space(x=lt.Permutation(ITEMS), s=lt.Subset(ITEMS))
    assert space.check({"x": list("dbca"), "s": {"c", "a"}}) == {"x": ("d", "b", "c", "a"), "s": ("a", "c")}


def test_structures_wait_and_are_waited_for():
    space = lt.Space(
        kind=lt.Choice(["tour", "pick"]),
        order=lt.Permutation([1, 2, 3]).when(kind="tour"),
        some=lt.Subset(ITEMS).when(kind="pick"),
        x=lt.Float(0, 1).when(order=((1, 2, 3), (3, 2, 1))),
        y=lt.Float(0, 1).when(some=("a", "b")),
    )
    encoding = Encoding(space)
    rng = np.random.default_rng(0)
    unit = rng.random((300, len(encoding)))
    _, active = encoding.snap(unit)
    for row, on in zip(unit, active, strict=True):
        params = space.from_unit(row)
        assert ("x" in params) == (params.get("order") in [(1, 2, 3), (3, 2, 1)])
        assert ("y" in params) == (params.get("some") == ("a", "b"))
        assert {n for n in space.names if on[space.slices[n]].all()} == set(params)
    again = lt.Space.from_json(space.to_json())
    assert again.to_json() == space.to_json()
    assert again.conditions == space.conditions


def test_mallows_normaliser_and_mean_are_the_sums_over_all_orders():
    orders, rate = every_order(5), 0.37
    apart = np.array([discordant(orders[0], o) for o in orders])
    weight = np.exp(-rate * apart)
    assert _mallows.log_normaliser(5, rate) == pytest.approx(np.log(weight.sum()), rel=1e-12)
    found = _mallows.rate_for(5, float((weight * apart).sum() / weight.sum() / 10))
    assert found == pytest.approx(rate, rel=1e-6)


def test_densities_of_orders_sum_to_one_and_draws_follow_them():
    rng, every = np.random.default_rng(1), every_order(4)
    mixture = _mallows.orders(every[[3, 17, 8]], np.array([0.25, 0.25, 0.3, 0.2]))
    density = np.exp(mixture.log_density(every))
    assert density.sum() == pytest.approx(1.0, rel=1e-12)
    drawn = mixture.draw(40_000, rng)
    shares = np.array([(drawn == order).all(1).mean() for order in every])
    assert np.abs(shares - density).max() < 0.01


@pytest.mark.parametrize("k", [6, 170, 180, 400])
def test_densities_of_orders_are_those_of_exact_arithmetic(k):
    centre = np.arange(k)
    far = np.roll(centre, 1)[::-1].copy()
    mixture = _mallows.orders(np.stack([centre, centre]), np.array([0.5, 0.5, 0.0]))
    rate = Decimal(mixture.rate)
    whole = math.prod((1 - (-j * rate).exp()) / (1 - (-rate).exp()) for j in range(1, k + 1))
    half = Decimal("0.5")
    for order in (centre, far):
        density = half / math.factorial(k) + half * (-rate * discordant(centre, order)).exp() / whole
        assert mixture.log_density(order[None])[0] == pytest.approx(float(density.ln()), rel=1e-9)


@pytest.mark.parametrize("sizes", [(0, 5), (1, 3), (2, 2)])
def test_densities_of_selections_sum_to_one_and_draws_follow_them(sizes):
    rng, every = np.random.default_rng(2), every_selection(5, *sizes)
    density = _mallows.selections(every[[0, 3, 3, -1]], np.array([0.3, 0.2, 0.2, 0.2, 0.1]), sizes)
    shares = np.exp(density.log_density(every))
    assert shares.sum() == pytest.approx(1.0, rel=1e-12)
    drawn = density.draw(40_000, rng)
    found = np.array([(drawn == one).all(1).mean() for one in every])
    assert np.abs(found - shares).max() < 0.01


@pytest.mark.parametrize("parameter", [lt.Permutation(range(7)), lt.Permutation([1, 2]), lt.Subset(range(7), 2, 4)])
def test_moves_and_crossings_stay_inside_and_go_somewhere(parameter):
    here, rng = block(parameter), np.random.default_rng(0)
    rows = here.snap(rng.random((400, parameter.columns)))
    moved = here.move(rows, rng)
    assert np.array_equal(here.snap(moved), moved)
    assert (np.abs(moved - rows).max(1) > 0).mean() > 0.95
    mates = here.snap(rng.random(rows.shape))
    children = here.cross(rows, mates, rng)
    assert np.array_equal(here.snap(children), children)
    for child, a, b in zip(children, rows, mates, strict=True):
        if not here.ordered:
            kept = (child[1:] == a[1:]) | (child[1:] == b[1:])
            assert kept.sum() >= 5
    same = here.cross(rows, rows, rng)
    assert np.array_equal(same, rows)


def test_order_crossover_by_hand():
    class Ends:
        @staticmethod
        def integers(low, high, shape):
            return np.array([[1, 2]])

    a = np.argsort([[0, 1, 2, 3, 4]])
    b = np.argsort([[4, 3, 2, 1, 0]])
    child = order_crossover(a, b, Ends())  # keeps 1, 2 in place; 4, 3, 0 fill the rest
    assert np.argsort(child[0]).tolist() == [4, 1, 2, 3, 0]


def test_views_are_the_textbook_distances():
    here, rng = block(lt.Permutation(range(6))), np.random.default_rng(0)
    rows = here.snap(rng.random((2, 6)))
    a, b = places(rows)
    precedence, place, beside = (g[0] for g in structures.gaps(here, rows[:1], rows[1:]))
    assert precedence == pytest.approx(discordant(a, b) / 15)
    assert place == pytest.approx(((a - b) ** 2).sum() / 70)
    edges = [{frozenset((o[i], o[i - 1])) for i in range(6)} for o in (np.argsort(a), np.argsort(b))]
    assert beside == pytest.approx(1 - len(edges[0] & edges[1]) / 6)
    chosen = block(lt.Subset(range(5), 1, 4))
    rows = chosen.rows_of_members(np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0]], dtype=bool))
    member, size = (g[0] for g in structures.gaps(chosen, rows[:1], rows[1:]))
    assert member == pytest.approx(3 / 5)
    assert size == pytest.approx((1 / 3) ** 2)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_kernel_is_positive_definite_over_every_value_active_or_not(share):
    space = lt.Space(
        x=lt.Float(0, 1),
        c=lt.Choice(["p", "q"]),
        o=lt.Permutation(range(4)).when(c="p"),
        s=lt.Subset(range(4)).when(c="q"),
    )
    encoding, rng = Encoding(space), np.random.default_rng(0)
    rows = encoding.features(rng.random((120, len(encoding))))
    gaps = kernel.squares(rows[:, None], rows[None], encoding.categorical, encoding.blocks)
    assert gaps.shape == (2 + 3 + 2, 120, 120)
    assert gaps.min() >= 0.0
    assert gaps.max() <= 1.0 + 1e-12
    flat = kernel.squares(rows[:60], rows[60:], encoding.categorical, encoding.blocks)
    assert np.allclose(flat, gaps[:, np.arange(60), np.arange(60, 120)], atol=1e-12)
    matrix = kernel.Shape(rng.uniform(0.5, 5.0, 7), share).with_slopes(gaps)[0]
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_items_of_any_kind_survive_json():
    space = lt.Space(o=lt.Permutation([(1, 2), int, None]), s=lt.Subset([(64,), "x", 3]))
    params = {"o": (int, (1, 2), None), "s": ((64,), 3)}
    assert space.check(params) == params
    assert space.load(space.dump(params)) == params


def test_a_row_gives_the_order_that_its_keys_sort_to():
    rows = rows_of_places(np.argsort([[2, 0, 1]]))
    assert lt.Permutation(["a", "b", "c"]).from_unit(rows[0]) == ("c", "a", "b")


def test_selections_of_many_items_stay_finite():
    generator = np.random.default_rng(0)
    k = 1200
    members = generator.random((5, k)) < 0.6
    density = _mallows.selections(members, np.full(6, 1 / 6), (1, k))
    logs = density.log_density(members)
    drawn = density.draw(4, generator)
    assert np.isfinite(logs).all()
    assert np.isfinite(density.log_density(drawn)).all()
    assert abs(drawn.sum(1) - members.sum(1).mean()).max() < 400
