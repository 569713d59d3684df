"""Sobol points against scipy's, walks through constrained spaces against brute force, caches against fresh starts."""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

import luthier as lt
from luthier.errors import UsageError
from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search import _fresh, _net, names
from luthier.search._encode import Encoding
from luthier.search._memory import Memory, leaders, ranking
from luthier.search._moves import around
from luthier.search._walk import Walk
from luthier.search.grid import Grid
from luthier.trial import Status, Trial

LOSS = Objectives.of(minimize="loss")


def test_direction_numbers_are_joes_and_kuos():
    d = _net.most()
    ours = _net.directions(d)
    at = np.arange(512)
    points = np.zeros((512, d), dtype=np.int64)
    for bit in range(30):
        points ^= np.where((at >> bit & 1)[:, None] == 1, ours[:, bit], 0)
    wanted = qmc.Sobol(d, scramble=False, bits=30).random(512) * 2**30
    assert np.array_equal(np.sort(points, 0), np.sort(wanted, 0).astype(np.int64))
    rows = {tuple(r) for r in points.tolist()}
    assert rows == {tuple(r) for r in wanted.astype(np.int64).tolist()}


@pytest.mark.parametrize("seed", [0, 7])
def test_scrambled_points_stay_a_net(seed):
    points = np.vstack([_net.block(seed, i, 5) for i in range(4)])
    assert 0.0 < points.min() < points.max() < 1.0
    for j in range(5):
        assert (np.bincount((points[:, j] * 1024).astype(int), minlength=1024) == 1).all()
    random = qmc.discrepancy(np.random.default_rng(seed).random(points.shape))
    assert qmc.discrepancy(points) < 0.2 * random
    assert np.array_equal(_net.point(seed, 700, 5), points[700])
    assert not np.array_equal(points, np.vstack([_net.block(seed + 1, i, 5) for i in range(4)]))


def test_many_dimensions_still_work():
    assert _net.block(0, 1, _net.most() + 3).shape == (256, _net.most() + 3)


RULES = {
    "two names": lambda p: p["a"] + p["b"] < 4,
    "get": lambda p: p.get("c", 0) != 2,
    "in": lambda p: "c" not in p or p["c"] > p["a"],
    "inactive": lambda p: p["c"] != 1,
    "whole": lambda p: sum(v for v in p.values() if isinstance(v, int)) % 2 == 0,
    "spread": lambda p: (lambda a, **rest: a != 1)(**p),
    "copy": lambda p: {**p}.get("b") != 2,
    "length": lambda p: len(p) == 3 or p["a"] > 1,
    "printed": lambda p: "'b': 2" in str(p) or "1" in f"{p}",
    "never": lambda p: p["a"] > 9,
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(RULES)), unique=True, max_size=4), st.permutations(["a", "b", "c", "kind"]))
def test_pruned_walks_give_what_brute_force_gives(rules, order):
    made = {
        "a": lt.Int(0, 3),
        "b": lt.Int(0, 3),
        "c": lt.Int(0, 3).when(kind="x"),
        "kind": lt.Choice(["x", "y"]),
    }
    space = lt.Space({n: made[n] for n in order}, where=[RULES[r] for r in rules])
    wanted = []
    for a, b, c, kind in product(range(4), range(4), [*range(4), None], ["x", "y"]):
        params = {"a": a, "b": b, "c": c, "kind": kind}
        if (c is None) != (kind == "y"):
            continue
        params = {n: params[n] for n in order if params[n] is not None}
        if space.allows(params):
            wanted.append(params)
    found = list(Walk(space, 9))
    assert len(found) == len(wanted)
    assert all(p in wanted for p in found)
    assert all(list(p) == [n for n in order if n in p] for p in found)


def test_a_forbidden_branch_is_left_out_whole():
    looked = []

    def small(p):
        looked.append(1)
        return p["a"] + p["b"] == 3

    names = {n: lt.Int(0, 99) for n in "abcdefgh"}
    walk = Walk(lt.Space(names, where=small), 100)
    found = list(islice(walk, 5))  # 10^16 combinations, 10^12 of them allowed
    assert [p["a"] + p["b"] for p in found] == [3] * 5
    assert len(looked) < 200


@pytest.mark.parametrize("levels", [5, 100])
def test_a_grid_that_allows_too_little_names_the_constraint(levels):
    names = {n: lt.Int(0, 99) for n in "abcd"}
    space = lt.Space(names, where=[lambda p: True, lambda p: sum(p.values()) > 1000])
    with pytest.raises(UsageError, match=r"where\[1\].*test_drawing.py:\d+"):
        Grid(levels).ask(space, LOSS, [], [], 1, Key(0))


def test_large_structures_are_no_grid_and_their_size_is_named():
    space = lt.Space(x=lt.Permutation(range(12)))
    for refused in (lambda: Grid().ask(space, LOSS, [], [], 1, Key(0)), lambda: Grid().count(space)):
        with pytest.raises(UsageError, match="479,001,600"):
            refused()
    assert Grid().count(lt.Space(x=lt.Permutation(range(4)), y=lt.Subset(range(3), min=1))) == 24 * 7


def test_a_grid_goes_on_from_any_history():
    space = lt.Space(a=lt.Int(0, 4), b=lt.Choice(["x", "y"]))
    grid, every = Grid(), list(Walk(space, 5))
    done = [Trial(i, p, Status.COMPLETE, {"loss": 0.0}) for i, p in enumerate(every)]
    rng = np.random.default_rng(0)
    for _ in range(40):
        kept = [done[i] for i in sorted(rng.permutation(10)[: rng.integers(0, 11)])]
        cut = int(rng.integers(0, len(kept) + 1))
        seen = [t.params for t in kept]
        wanted = [p for p in every if p not in seen][:3]
        assert grid.ask(space, LOSS, kept[:cut], kept[cut:], 3, Key(0)) == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 19), unique=True, max_size=20), min_size=1, max_size=6))
def test_what_is_remembered_never_shows(histories):
    space = lt.Space(x=lt.Float(0, 1), c=lt.Choice(["p", "q"]))
    rng = np.random.default_rng(3)
    pool = [
        Trial(i, space.draw(rng), Status.FAILED if i % 5 == 0 else Status.COMPLETE, {} if i % 5 == 0 else {"loss": i})
        for i in range(20)
    ]
    memory, tried = Memory(space, LOSS), _fresh.Tried()
    given_away = []
    for numbers in histories:
        trials = [pool[i] for i in numbers]
        table, fresh = memory.table(trials), Memory(space, LOSS).table(trials)
        for one, other in ((table.rows, fresh.rows), (table.losses, fresh.losses), (table.lack, fresh.lack)):
            assert np.array_equal(one, other, equal_nan=True)
        taken = tried.taken(trials, [])
        assert [t.params in taken for t in pool] == [t in trials for t in pool]
        given_away.append((table, fresh))
    for table, fresh in given_away:
        assert np.array_equal(table.rows, fresh.rows)


@pytest.mark.parametrize("forbidden", [0, 3])
def test_leaders_are_the_head_of_the_ranking(forbidden):
    space, rng = lt.Space(x=lt.Float(0, 1)), np.random.default_rng(0)
    bound = Objectives.of(minimize="loss", constraints={"mb": "<= 1"})
    trials = [
        Trial(i, space.draw(rng), Status.COMPLETE, {"loss": float(rng.integers(0, 9)), "mb": 2.0 * (i < forbidden)})
        for i in range(50)
    ]
    table = Memory(space, bound).table(trials)
    for count in (1, 7, 49, 50, 60):
        assert leaders(table, count).tolist() == ranking(table.losses, table.lack)[:count].tolist()


def test_a_needle_in_a_small_space_is_found():
    space = lt.Space(x=lt.Int(0, 100_000), where=lambda p: p["x"] == 77_777)
    taken = _fresh.Taken(set(), set())
    assert _fresh.draw(space, Key(0).generator("x"), taken) == {"x": 77_777}
    taken.add({"x": 77_777})
    assert _fresh.draw(space, Key(0).generator("x"), taken) is None


@pytest.mark.parametrize("name", [n for n in names() if n != "grid"])
def test_a_part_too_thin_to_hit_is_followed_from_what_is_known(name):
    space = lt.Space(a=lt.Float(0, 1), b=lt.Float(0, 1), where=lambda p: abs(p["a"] - p["b"] - 0.3) < 1e-7)
    loop = lt.AskTell(space, algorithm=name, minimize="loss", seed=1)
    with pytest.raises(UsageError, match="10,000 random combinations"):
        loop.ask()
    loop.add({"a": 0.6, "b": 0.3}, 0.5)
    for _ in range(3):
        loop.tell(loop.ask(), 0.5)
    found = {(t.params["a"], t.params["b"]) for t in loop.trials}
    assert len(found) == 4
    assert all(abs(a - b - 0.3) < 1e-7 for a, b in found)


def test_rows_around_known_ones_follow_their_line():
    space = lt.Space(a=lt.Float(0, 1), b=lt.Float(0, 1), c=lt.Choice(["x", "y"]))
    known = np.array([[0.2, 0.2, 0.25], [0.5, 0.5, 0.25], [0.6, 0.6, 0.75]])
    rows = around(Encoding(space), known, 400, np.random.default_rng(0))
    line = rows[::2]
    assert np.allclose(line[:, 0], line[:, 1], atol=1e-12)
    assert np.ptp(line[:, 0]) > 0.8
    assert set(line[:, 2]) == {0.25, 0.75}
    apart = np.abs(rows[1::2, :2, None] - known[:, :2].T).min(2).max(1)  # from the nearest known row, about
    assert np.quantile(apart, 0.3) < 1e-5 < 1e-2 < np.quantile(apart, 0.9)


def test_a_study_whose_allowed_part_is_used_up_ends_with_a_warning():
    space = lt.Space(m=lt.Choice(["x", "y"]), d=lt.Int(1, 10**9).when(m="x"), where=lambda p: p["d"] < 0)
    with pytest.warns(UserWarning, match="no more than 1 allowed"):
        study = lt.tune(lambda t: 0.0, space, minimize="loss", algorithm="random", trials=5, progress=False)
    assert [t.params for t in study.trials] == [{"m": "y"}]


def test_a_grid_that_begins_in_a_forbidden_waste_goes_round_from_an_allowed_place():
    names = {f"l{i}": lt.Choice(["skip", "a", "b", "c"]) for i in range(12)}
    space = lt.Space(names, where=lambda p: sum(v == "skip" for v in p.values()) <= 2)
    assert Grid().count(space) is None
    grid = Grid()
    found = [grid.ask(space, LOSS, [], [], 3, Key(0))[i] for i in range(3)]
    done = [Trial(i, p, Status.COMPLETE, {"loss": 0.0}) for i, p in enumerate(found)]
    found += grid.ask(space, LOSS, done, [], 30, Key(0))
    assert found[3:] == Grid().ask(space, LOSS, done, [], 30, Key(7))
    assert len({repr(p) for p in found}) == 33
    assert all(space.allows(p) and list(p) == list(names) for p in found)


def test_a_walk_that_starts_elsewhere_finds_the_same():
    space = lt.Space(
        a=lt.Int(0, 4),
        b=lt.Choice([True, 1, "y"]),
        c=lt.Float(0, 1).when(b=1),
        where=lambda p: p["a"] != 1 or p["c"] > 0,
    )
    walk = Walk(space, 3, start={"a": 2, "b": 1, "c": 0.5})
    turned, every = list(walk), list(Walk(space, 3))
    assert turned[0] == {"a": 2, "b": 1, "c": 0.5}
    assert sorted(map(repr, turned)) == sorted(map(repr, every))


def test_a_grid_that_misses_the_allowed_part_says_how_many_it_looked_at():
    space = lt.Space(a=lt.Int(1, 300), b=lt.Int(1, 300), where=lambda p: p["a"] * p["b"] == 240)
    with pytest.raises(UsageError, match=r"25 listed combinations(.|\n)*miss the allowed part(.|\n)*Grid\(levels"):
        Grid().ask(space, LOSS, [], [], 1, Key(0))
    assert len(Grid(300).ask(space, LOSS, [], [], 99, Key(0))) == 20


@pytest.mark.parametrize("one", [lt.Float(0, 1), lt.Int(0, 9), lt.Int(0, 10**9)])
def test_the_clock_ends_a_search_for_the_first_allowed_combination_and_nothing_else(one, monkeypatch):
    space = lt.Space(one=one, two=lt.Int(0, 10**6), where=lambda p: p["one"] == p["two"] == 0)
    nothing, known = _fresh.Taken(set(), set()), _fresh.Taken(set(), set())
    known.add({"one": 1, "two": 1})

    def asked(taken):
        return repr(_fresh.draw(space, Key(0).generator("x"), taken))

    with pytest.warns() if one.size == math.inf else nullcontext():
        usual = asked(known)
    monkeypatch.setattr(_fresh, "_SECONDS", -1.0)
    with pytest.raises(UsageError, match=r"got: +1 random(.|\n)*too slow"):
        asked(nothing)
    with pytest.warns() if one.size == math.inf else nullcontext():
        assert asked(known) == usual
