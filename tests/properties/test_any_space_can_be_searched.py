"""Random spaces, random histories: every algorithm proposes what the space allows, and the same twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier import search
from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search._encode import Encoding
from luthier.space import Choice, Float, Int, Ordinal, Permutation, Space, Subset
from luthier.trial import Status, Trial

LOSS = Objectives.of(minimize="loss")
FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def parameters(draw):
    kind = draw(st.sampled_from(["float", "log", "int", "big", "choice", "ordinal", "one", "order", "some"]))
    low = draw(st.floats(0.001, 10))
    if kind in ("float", "log"):
        return Float(low, low * draw(st.floats(1.0, 1e6)), log=kind == "log")
    if kind == "int":
        return Int(1, draw(st.integers(1, 40)), log=draw(st.booleans()))
    if kind == "big":
        return Int(-5, 10**9)
    if kind == "order":
        return Permutation(range(draw(st.integers(1, 6))))
    if kind == "some":
        low = draw(st.integers(0, 4))
        return Subset(range(5), min=low, max=draw(st.integers(low, 5)))
    if kind == "one":
        return Int(3, 3)
    options = draw(st.lists(st.sampled_from([0, 1, 2.5, "a", "b", None, True]), min_size=1, max_size=5, unique_by=repr))
    return Choice(options) if kind == "choice" else Ordinal(options)


@st.composite
def spaces(draw):
    made = {f"p{i}": draw(parameters()) for i in range(draw(st.integers(1, 5)))}
    made["root"] = Choice(["x", "y"])
    for name in list(made)[:-1]:
        if draw(st.booleans()):
            made[name] = made[name].when(root=draw(st.sampled_from(["x", "y", ("x", "y")])))
    return Space(made)


def history(space: Space, count: int, seed: int) -> list[Trial]:
    rng = np.random.default_rng(seed)
    states = [Status.COMPLETE, Status.COMPLETE, Status.FAILED, Status.STOPPED]
    out = []
    for i in range(count):
        state = states[int(rng.integers(4))]
        metrics = {} if state is Status.FAILED else {"loss": float(rng.normal() * 10.0 ** rng.integers(-3, 4))}
        out.append(Trial(i, space.draw(rng), state, metrics, (), None, 0.0, 1.0))
    return out


@pytest.mark.parametrize("name", search.names())
@FEW
@given(space=spaces(), count=st.integers(0, 14), seed=st.integers(0, 10**6))
def test_proposals_are_allowed_new_and_reproducible(name, space, count, seed):
    told = history(space, count, seed)
    first = search.get(name).ask(space, LOSS, told, [], 2, Key(seed, count))
    for i, params in enumerate(first):
        assert space.check(params) == params
        if name != "sobol" and not any(isinstance(p, Float) for p in space.parameters.values()):
            assert repr(params) not in [repr(t.params) for t in told]
            assert repr(params) not in map(repr, first[:i])
    assert search.get(name).ask(space, LOSS, told, [], 2, Key(seed, count)) == first


@FEW
@given(space=spaces(), seed=st.integers(0, 10**6))
def test_rows_and_values_go_round(space, seed):
    encoding = Encoding(space)
    unit = np.random.default_rng(seed).random((5, space.width))
    for row in unit:
        params = space.from_unit(row)
        again = space.from_unit(encoding.rows(params))
        assert again.keys() == params.keys()
        for name, value in params.items():
            assert again[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)
    snapped, active = encoding.snap(unit)
    assert np.array_equal(encoding.snap(snapped)[0], snapped)
    for row, on in zip(unit, active, strict=True):
        assert {n for n in space.names if on[space.slices[n]].all()} == set(space.from_unit(row))
        assert {n for n in space.names if on[space.slices[n]].any()} == set(space.from_unit(row))


def test_tpe_looks_at_a_subset_only_where_it_is_active():
    space = Space(some=Subset(range(5), min=3, max=3).when(root="x"), root=Choice(["x", "y"]), x=Float(0.0, 1.0))
    told = history(space, 40, 0)
    assert {t.params["root"] for t in told} == {"x", "y"}
    for seed in range(20):
        for params in search.get("tpe").ask(space, LOSS, told, [], 2, Key(seed, 40)):
            assert space.check(params) == params
