"""Laws of spaces: what goes to the unit cube comes back, conditions hold, JSON round-trips, wrong input is named."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import luthier as lt
from luthier.errors import UsageError
from luthier.keys import Key
from luthier.objectives import Constraint, Objectives
from luthier.search import names
from luthier.search.bayes.maximise import Effort

scalars = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["a", "b", "x y"]), st.floats(0, 1))


@st.composite
def floats(draw):
    low = draw(st.floats(-1e6, 1e6, allow_nan=False))
    high = low + draw(st.floats(0, 1e6))
    log = draw(st.booleans()) and low > 1e-6
    return lt.Float(low, high, log=log)


@st.composite
def ints(draw):
    low = draw(st.integers(-50, 1000))
    return lt.Int(low, low + draw(st.integers(0, 1000)), log=draw(st.booleans()) and low > 0)


@st.composite
def listed(draw):
    options = draw(st.lists(scalars, min_size=1, max_size=6))
    unique = list({f"{type(o).__name__}{o!r}": o for o in options}.values())
    return draw(st.sampled_from([lt.Choice, lt.Ordinal]))(unique)


@st.composite
def structures(draw):
    items = draw(st.lists(scalars, min_size=1, max_size=6))
    unique = list({f"{type(o).__name__}{o!r}": o for o in items}.values())
    if draw(st.booleans()):
        return lt.Permutation(unique)
    low = draw(st.integers(0, len(unique)))
    return lt.Subset(unique, min=low, max=draw(st.integers(low, len(unique))))


parameters = st.one_of(floats(), ints(), listed(), structures())


@given(structures(), st.integers(0, 10**6))
def test_a_structure_comes_back_from_its_keys(parameter, seed):
    keys = np.random.default_rng(seed).random(parameter.columns)
    value = parameter.from_unit(keys)
    assert parameter.contains(value)
    assert parameter.contains(list(value))
    assert repr(parameter.read(list(value))) == repr(value)
    assert repr(parameter.from_unit(parameter.to_unit(value))) == repr(value)
    assert repr(parameter.load(json.loads(json.dumps(parameter.dump(value))))) == repr(value)
    middle = parameter.to_unit(value)
    assert np.array_equal(parameter.to_unit(parameter.from_unit(middle)), middle)


@given(st.one_of(floats(), ints(), listed()), st.floats(0, 1, exclude_max=True))
def test_a_value_comes_back_from_its_place(parameter, u):
    value = parameter.from_unit(u)
    assert parameter.contains(value)
    again = parameter.from_unit(min(parameter.to_unit(value), 1 - 1e-12))
    if isinstance(parameter, lt.Float):
        assert again == pytest.approx(value, rel=1e-9, abs=1e-9 * max(abs(parameter.low), abs(parameter.high), 1))
    else:
        assert repr(again) == repr(value)


@given(st.one_of(ints(), listed()))
def test_every_value_has_its_share_of_the_unit_interval(parameter):
    assume(parameter.size <= 50)
    found = {repr(parameter.from_unit(u)) for u in np.linspace(0, 1, 20001)[:-1]}
    assert found == {repr(v) for v in parameter.grid(10**6)}
    assert len(found) == parameter.size


@given(st.dictionaries(st.text(min_size=1, max_size=8), parameters, min_size=1, max_size=5))
def test_json_round_trip(named):
    space = lt.Space(named)
    again = lt.Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again.to_json() == space.to_json()
    params = space.from_unit(np.full(space.width, 0.4))
    assert space.load(json.loads(json.dumps(space.dump(params)))) == params


def test_options_that_json_lacks_are_found_again_by_their_printed_form():
    space = lt.Space(layers=lt.Choice([(64,), (64, 64)]), kind=lt.Choice([int, float]))
    params = {"layers": (64, 64), "kind": float}
    assert space.load(json.loads(json.dumps(space.dump(params)))) == params


def _conditional():
    return lt.Space(
        model=lt.Choice(["svm", "forest", "mlp"]),
        layers=lt.Int(1, 3).when(model="mlp"),
        width=lt.Int(8, 64).when(layers=(2, 3)),
        C=lt.Float(1e-3, 1e3, log=True).when(model=("svm", "mlp")),
    )


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
def test_only_active_parameters_are_given(u):
    params = _conditional().from_unit(u)
    assert ("layers" in params) == (params["model"] == "mlp")
    assert ("width" in params) == (params.get("layers", 0) >= 2)
    assert ("C" in params) == (params["model"] in ("svm", "mlp"))
    units = _conditional().to_unit(params)
    assert [math.isnan(x) for x in units] == [n not in params for n in _conditional().names]
    assert _conditional().check(params) == params


def test_tuples_as_options_are_not_mistaken_for_lists_of_values():
    space = lt.Space(shape=lt.Choice([(1,), (1, 2)]), x=lt.Float(0, 1).when(shape=(1, 2)))
    assert space.conditions["x"] == {"shape": ((1, 2),)}


@pytest.mark.parametrize(
    "child",
    [lt.Float(0, 1), lt.Int(1, 3), lt.Choice(["x"]), lt.Ordinal([1]), lt.Permutation([1, 2]), lt.Subset([1, 2])],
    ids=lambda p: type(p).__name__,
)
def test_conditions_add_up(child):
    space = lt.Space(a=lt.Choice([0, 1]), b=lt.Int(0, 2), c=child.when(a=1).when(b=(1, 2)))
    active = [(a, b) for a in (0, 1) for b in (0, 1, 2) if space.is_active("c", {"a": a, "b": b})]
    assert active == [(1, 1), (1, 2)]
    again = lt.Space(a=lt.Choice([0, 1]), b=lt.Int(0, 2), c=child.when(a=1).when(a=0))
    assert again.conditions["c"] == {"a": (0,)}


def test_values_given_by_a_user_get_the_form_that_draws_have():
    kinds = ["a", True, (1, 2)]
    space = lt.Space(x=lt.Float(0, 1), n=lt.Int(0, 9), kind=lt.Choice(kinds), y=lt.Float(0, 1).when(x=1))
    assert space.is_active("y", {"x": 1.0})
    given = {"x": 1, "n": np.int64(3), "kind": np.bool_(True), "y": np.float32(0.5)}
    assert [(v, type(v)) for v in space.check(given).values()] == [(1.0, float), (3, int), (True, bool), (0.5, float)]


def test_predicates_may_come_one_by_one():
    space = lt.Space(x=lt.Float(0, 1), where=(rule for rule in [lambda p: p["x"] < 0.5, lambda p: p["x"] > 0.1]))
    assert [space.allows({"x": x}) for x in (0.05, 0.3, 0.7)] == [False, True, False]


def test_true_is_not_one():
    space = lt.Space(a=lt.Choice([True, 1, 1.0, "1", None]), b=lt.Float(0, 1).when(a=1))
    active = [("b" in space.from_unit([u, 0.5])) for u in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert active == [False, True, False, False, False]


def test_where_skips_what_is_not_active_and_names_what_forbids_all():
    space = lt.Space(m=lt.Choice(["a", "b"]), x=lt.Float(0, 1).when(m="a"), where=[lambda p: p["x"] > 0.5])
    draws = [space.draw(Key(0, i).generator("draw")) for i in range(200)]
    assert {d["m"] for d in draws} == {"a", "b"}
    assert all(d.get("x", 1) > 0.5 for d in draws)
    never = lt.Space(x=lt.Float(0, 1), where=[lambda p: True, lambda p: p["x"] > 2])
    with pytest.raises(UsageError, match=r"where\[1\]"):
        never.draw(Key(0).generator("draw"))


@pytest.mark.parametrize("known", [0, 3])
def test_a_mistake_in_a_predicate_is_not_hidden(known):
    space = lt.Space(width=lt.Int(1, 99), where=[lambda p: True, lambda p: p["widht"] < 3])
    with pytest.raises(UsageError, match=r"(?s)where\[1\] looks for 'widht'.*did you mean 'width'"):
        space.allows({"width": 5})
    free = lt.AskTell(lt.Space(width=lt.Int(1, 99)), minimize="loss", algorithm="random")
    for _ in range(known):
        free.tell(free.ask(), 1.0)
    history = free.trials
    with pytest.raises(UsageError, match=r"where\[1\] looks for 'widht'"):
        lt.search.Random().ask(space, free.objectives, history, [], 1, Key(0, known))
    with pytest.raises(ZeroDivisionError):
        lt.Space(width=lt.Int(1, 9), where=lambda p: 1 / 0).allows({"width": 5})


def test_no_predicate_is_none():
    assert lt.Space(x=lt.Float(0, 1), where=None).where == ()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: lt.Float(2, 1), "above"),
        (lambda: lt.Float(0, 1, log=True), "positive"),
        (lambda: lt.Float(float("nan"), 1), "finite"),
        (lambda: lt.Float("0", 1), "finite"),
        (lambda: lt.Int(0.5, 2), "whole"),
        (lambda: lt.Int(True, 2), "whole"),
        (lambda: lt.Int(10, 100, 10), r"'log' is neither(.|\n)*Ordinal\(range"),
        (lambda: lt.Float(0.1, 1, "linear"), "'log' is neither"),
        (lambda: lt.Space(x=lt.Choice(["a", "b"], "a")), "no mapping"),
        (lambda: Effort(uniform=0, near=0), "'uniform' cannot be used"),
        (lambda: Effort(steps=1.5), "'steps' cannot be used"),
        (lambda: lt.Choice([]), "empty"),
        (lambda: lt.Choice("sgd"), "not a list"),
        (lambda: lt.Choice(["a", "a"]), "twice"),
        (lambda: lt.Space(), "empty"),
        (lambda: lt.Space(x=3), "kind"),
        (lambda: lt.Space(x=["a", "b"]), "Choice"),
        (lambda: lt.Space(x=lt.Float(0, 1).when(y=1)), "y"),
        (lambda: lt.Space(m=lt.Choice(["a"]), x=lt.Float(0, 1).when(m="b")), "never takes"),
        (lambda: lt.Space(m=lt.Int(1, 3), x=lt.Float(0, 1).when(m=[1, 2])), r"fix: +when\(m=\(1, 2\)\)"),
        (lambda: lt.Space(m=lt.Int(1, 3), x=lt.Float(0, 1).when(m=range(2, 4))), r"fix: +when\(m=\(2, 3\)\)"),
        (lambda: lt.Space(m=lt.Int(1, 3), x=lt.Float(0, 1).when(m=())), "never takes"),
        (lambda: lt.Space({1: lt.Float(0, 1)}), "no text"),
        (lambda: lt.Space(m=lt.Choice(["adamw", 3]), x=lt.Float(0, 1).when(m="adam")), "did you mean 'adamw'"),
        (lambda: lt.Choice(["adamw", None, 3], prior="adam"), "did you mean 'adamw'"),
        (lambda: lt.Space(x=lt.Float(0, 1), where="x < 1"), "got: +'x < 1'"),
        (lambda: lt.Space(x=lt.Float(0, 1), where=3), "cannot be called"),
        (lambda: lt.Space(x=lt.Float(0, 1), where=[lambda p: True, "x < 1"]), "got: +'x < 1'"),
        (lambda: lt.Space(a=lt.Choice([1]).when(b=1), b=lt.Choice([1]).when(a=1)), "circle"),
        (lambda: _conditional().check({"model": "svm", "c": 1.0}), "did you mean 'C'"),
        (lambda: _conditional().check({"model": "svm"}), "missing"),
        (lambda: _conditional().check({"model": "svm", "C": 1e9}), "out of range"),
        (lambda: Constraint.parse("mb", "about 3"), "operator"),
        (lambda: Constraint.parse("mb", "<= many"), "operator"),
        (lambda: Objectives.of(maximize="a", minimize="b"), "exactly one way"),
        (lambda: Objectives.of(), "exactly one way"),
        (lambda: Objectives.of(objectives={"a": "up"}), "direction"),
    ],
)
def test_wrong_input_is_named(make, word):
    with pytest.raises(UsageError, match=word):
        make()


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.text(max_size=5))
def test_streams_depend_on_their_names_alone(seed, trial, purpose):
    draw = Key(seed, trial).generator(purpose).random()
    assert draw == Key(seed).for_trial(trial).generator(purpose).random()
    assert draw != Key(seed, trial + 1).generator(purpose).random()
    assert draw != Key(seed + 1, trial).generator(purpose).random()


@given(st.floats(1e-9, 1e6), st.floats(0, 1e6), st.floats(0, 1), st.booleans(), st.integers(2, 7))
def test_a_prior_and_the_ends_of_a_grid_are_exact(low, span, at, log, levels):
    high = low + span
    parameter = lt.Float(low, high, log=log, prior=min(max(low + at * span, low), high))
    assert parameter.from_unit(parameter.to_unit(parameter.prior)) == parameter.prior
    if low < high:
        assert parameter.grid(levels)[:: levels - 1] == [low, high]


@pytest.mark.parametrize("name", [n for n in names() if n != "grid"])
def test_the_first_proposal_is_the_prior_up_to_its_last_bit(name):
    space = lt.Space(lr=lt.Float(1e-5, 1, log=True, prior=1e-3), where=lambda p: p["lr"] <= 1e-3)
    assert lt.AskTell(space, algorithm=name, minimize="loss").ask().params == {"lr": 1e-3}


@pytest.mark.parametrize(("low", "high"), [(1e-300, 1e300), (1e-320, 1.0), (5e-324, 1e308)])
def test_a_logarithmic_range_may_be_wider_than_the_ratio_of_its_ends(low, high):
    parameter = lt.Float(low, high, log=True)
    for u in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = parameter.from_unit(u)
        assert parameter.to_unit(value) == pytest.approx(u, abs=1e-3)  # whole steps where floats are subnormal
        assert math.log10(value) == pytest.approx((1 - u) * math.log10(low) + u * math.log10(high), abs=0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lt.Float(-1.5e308, 1.5e308),
        lambda: lt.Int(-(15 * 10**307), 15 * 10**307),
        lambda: lt.Int(0, 10**400),
        lambda: lt.Int(-(10**5000), 0),
        lambda: lt.Float(0, 10**400),
    ],
)
def test_what_a_float_cannot_hold_is_refused(make):
    with pytest.raises(UsageError, match=r"1\.7e308|a float can hold"):
        make()
    assert not lt.Float(0, 1).contains(10**400)


def test_the_ends_of_a_grid_of_large_numbers_are_exact():
    assert lt.Int(2**60 + 1, 2**70 + 1).grid(2) == [2**60 + 1, 2**70 + 1]


def test_a_predicate_may_change_what_it_is_given():
    def takes(p):
        p["y"] = 0.0
        return p.pop("x") < 0.5

    space = lt.Space(x=lt.Float(0, 1), where=[takes, lambda p: "x" in p and "y" not in p])
    assert list(lt.AskTell(space, algorithm="random", minimize="loss").ask().params) == ["x"]
