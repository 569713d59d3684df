"""Laws that every search algorithm obeys; the algorithms are found, not listed."""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from luthier import search
from luthier.asktell import AskTell
from luthier.errors import LuthierError, UsageError
from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.space import Choice, Float, Int, Ordinal, Permutation, Space, Subset
from luthier.trial import Report, Status, Trial

ALGORITHMS = search.names()
LOSS = Objectives.of(minimize="loss")


def mixed() -> Space:
    return Space(
        lr=Float(1e-4, 1.0, log=True),
        width=Int(8, 512, log=True),
        depth=Int(1, 9),
        opt=Choice(["sgd", "adam", None]),
        batch=Ordinal([16, 32, 64]),
        momentum=Float(0.0, 0.99).when(opt="sgd"),
        nesterov=Choice([True, False]).when(opt="sgd"),
        beta=Float(0.9, 0.999).when(opt=("adam", None)),
        where=[lambda p: p["width"] * p["depth"] <= 1500, lambda p: p["momentum"] + p["lr"] < 1.2],
    )


def loss_of(p: dict) -> float:
    base = (math.log10(p["lr"]) + 2) ** 2 + 0.1 * abs(p["depth"] - 4) + 0.001 * p["width"]
    return base + (0.3 if p["opt"] == "sgd" else 0.0) + p.get("momentum", 0.2)


def told(space: Space, objectives: Objectives, count: int, result, status=lambda i: Status.COMPLETE) -> list[Trial]:
    out = []
    for i in range(count):
        params = space.draw(Key(9, i).generator("history"))
        state = status(i)
        metrics = {} if state is Status.FAILED else result(params, i)
        reports = (Report(1, metrics),) if state is Status.STOPPED else ()
        out.append(Trial(i, params, state, metrics, reports, None, 0.0, 1.0))
    return out


def check(space: Space, proposals: list[dict]) -> None:
    for params in proposals:
        assert space.check(params) == params
        assert list(params) == [n for n in space.names if n in params]


@pytest.fixture(params=ALGORITHMS)
def algorithm(request) -> search.Algorithm:
    return search.get(request.param)


@pytest.mark.parametrize("count", [0, 1, 3, 30, 450])
def test_proposals_are_allowed_and_as_many_as_asked(algorithm, count):
    space = mixed()
    history = told(space, LOSS, count, lambda p, i: {"loss": loss_of(p)})
    proposals = algorithm.ask(space, LOSS, history, [], 4, Key(1, count))
    assert len(proposals) == 4
    check(space, proposals)
    assert all(a != b for i, a in enumerate(proposals) for b in proposals[:i])


def test_same_arguments_same_proposals_whatever_was_asked_before(algorithm):
    space = mixed()
    history = told(space, LOSS, 25, lambda p, i: {"loss": loss_of(p)})
    pending = [Trial(25, space.draw(Key(4).generator("p")))]
    wanted = algorithm.ask(space, LOSS, history, pending, 2, Key(3, 26))
    other = Space(x=Float(0, 1))
    algorithm.ask(other, LOSS, told(other, LOSS, 12, lambda p, i: {"loss": p["x"]}), [], 1, Key(0, 12))
    algorithm.ask(space, LOSS, history[:13], [], 1, Key(3, 13))
    assert algorithm.ask(space, LOSS, history, pending, 2, Key(3, 26)) == wanted
    fresh = search.get(type(algorithm)())
    assert fresh.ask(mixed(), LOSS, copy.deepcopy(history), copy.deepcopy(pending), 2, Key(3, 26)) == wanted


def test_nothing_given_is_changed(algorithm):
    space = mixed()
    history = told(space, LOSS, 14, lambda p, i: {"loss": loss_of(p)})
    pending = [Trial(14, space.draw(Key(4).generator("p")))]
    before = copy.deepcopy((history, pending))
    algorithm.ask(space, LOSS, history, pending, 2, Key(0, 15))
    assert (history, pending) == before


def test_seeds_differ_except_where_nothing_is_drawn(algorithm):
    if type(algorithm).__name__ == "Grid":
        pytest.skip("a grid has no seed")
    space = mixed()
    streams = {tuple(map(repr, algorithm.ask(space, LOSS, [], [], 6, Key(seed)))) for seed in range(4)}
    assert len(streams) == 4


def test_pending_trials_are_not_proposed_again(algorithm):
    space = Space(a=Int(1, 3), b=Choice(["x", "y"]))
    history = told(space, LOSS, 1, lambda p, i: {"loss": float(p["a"])})
    pending = []
    for number in range(1, 6):
        (params,) = algorithm.ask(space, LOSS, history, pending, 1, Key(0, number))
        assert params not in [t.params for t in [*history, *pending]]
        pending.append(Trial(number, params))
    assert algorithm.ask(space, LOSS, history, pending, 1, Key(0, 6)) == []


@pytest.mark.parametrize("together", [1, 4])
def test_discrete_spaces_end_after_every_combination_once(algorithm, together):
    space = Space(
        a=Int(1, 4),
        b=Choice(["x", "y"]),
        c=Ordinal([1, 2]).when(b="y"),
        where=lambda p: p["a"] != 2 or p["b"] == "x",
    )
    history: list[Trial] = []
    for _ in range(20):
        proposals = algorithm.ask(space, LOSS, history, [], together, Key(5, len(history)))
        check(space, proposals)
        for params in proposals:
            assert params not in [t.params for t in history]
            loss = {"loss": float(params["a"])}
            history.append(Trial(len(history), params, Status.COMPLETE, loss, (), None, 0.0, 1.0))
        if len(proposals) < together:
            break
    assert len(history) == 4 + 3 * 2


@pytest.mark.parametrize("together", [1, 3])
def test_spaces_of_structures_end_after_every_combination_once(algorithm, together):
    space = Space(
        kind=Choice(["order", "pick"]),
        order=Permutation(["a", "d", "e"]).when(kind="order"),
        pick=Subset(["x", "y", "z"], min=1, max=2).when(kind="pick"),
        where=lambda p: p["order"][0] != "d",
    )
    history: list[Trial] = []
    while True:
        proposals = algorithm.ask(space, LOSS, history, [], together, Key(5, len(history)))
        check(space, proposals)
        for params in proposals:
            assert params not in [t.params for t in history]
            loss = {"loss": float(len(params.get("pick", "four")))}
            history.append(Trial(len(history), params, Status.COMPLETE, loss, (), None, 0.0, 1.0))
        if len(proposals) < together:
            break
    assert len(history) == 2 * 2 + 6


def test_where_over_structures_is_kept(algorithm):
    if type(algorithm).__name__ == "Grid":
        pytest.skip("too many orders for a grid, which says so")
    space = Space(
        tour=Permutation(range(9)),
        some=Subset(range(12), min=2, max=6),
        x=Float(0, 1),
        where=[lambda p: p["tour"].index(0) < p["tour"].index(8), lambda p: p["x"] < 0.5 or 3 in p["some"]],
    )
    history = told(space, LOSS, 20, lambda p, i: {"loss": p["x"] + p["tour"].index(4) + len(p["some"])})
    check(space, algorithm.ask(space, LOSS, history, [], 4, Key(1, 20)))


def test_one_value_spaces(algorithm):
    space = Space(a=Float(2, 2), b=Int(3, 3), c=Choice(["only"]))
    assert algorithm.ask(space, LOSS, [], [], 3, Key(0)) == [{"a": 2.0, "b": 3, "c": "only"}]
    done = [Trial(0, {"a": 2.0, "b": 3, "c": "only"}, Status.COMPLETE, {"loss": 1.0}, (), None, 0.0, 1.0)]
    assert algorithm.ask(space, LOSS, done, [], 1, Key(0, 1)) == []


@pytest.mark.parametrize("kind", ["all failed", "some failed", "stopped", "stopped without a report", "mixed"])
def test_failed_and_stopped_trials(algorithm, kind):
    states = {
        "all failed": lambda i: Status.FAILED,
        "some failed": lambda i: Status.FAILED if i % 3 else Status.COMPLETE,
        "stopped": lambda i: Status.STOPPED if i % 2 else Status.COMPLETE,
        "stopped without a report": lambda i: Status.STOPPED,
        "mixed": lambda i: (Status.FAILED, Status.STOPPED, Status.COMPLETE)[i % 3],
    }
    space = mixed()
    result = (lambda p, i: {}) if "without" in kind else (lambda p, i: {"loss": loss_of(p)})
    history = told(space, LOSS, 24, result, states[kind])
    check(space, algorithm.ask(space, LOSS, history, [], 2, Key(2, 24)))


def adding_up(count: int) -> list[Trial]:
    """Costs that add up over nine steps; who is far from 0.3 was stopped after the first, with its cost so far."""
    out = []
    for i in range(count):
        x = (i * 0.618) % 1.0
        rate = 0.2 + (x - 0.3) ** 2
        far = abs(x - 0.3) > 0.2
        reports = tuple(Report(s, {"loss": rate * s}) for s in range(1, 2 if far else 10))
        status = Status.STOPPED if far else Status.COMPLETE
        out.append(Trial(i, {"x": x}, status, dict(reports[-1].metrics), reports, ended=1.0))
    return out


@pytest.mark.parametrize("name", ["auto", "bayes", "cmaes", "nsga2", "tpe"])
def test_costs_that_add_up_do_not_make_stopped_trials_look_good(name):
    space, objectives, history = Space(x=Float(0, 1)), Objectives.of(minimize="loss"), adding_up(60)
    asked = search.get(name).ask(space, objectives, history, [], 12, Key(1, 60))
    assert sum(abs(p["x"] - 0.3) < 0.2 for p in asked) >= 8


@pytest.mark.parametrize("name", ["bayes", "cmaes", "nsga2", "tpe"])
def test_what_stopped_trials_stand_for_follows_from_the_history_alone(name):
    space, objectives, history = Space(x=Float(0, 1)), Objectives.of(minimize="loss"), adding_up(40)
    kept = search.get(name)
    for count in (3, 9, 14, 22, 40, 31):
        fresh = search.get(name).ask(space, objectives, history[:count], [], 2, Key(1, count))
        assert kept.ask(space, objectives, history[:count], [], 2, Key(1, count)) == fresh


@pytest.mark.parametrize("objectives", [{"a": "min", "b": "max"}, {"a": "min", "b": "max", "c": "min"}])
@pytest.mark.parametrize("bound", [None, "<= 1.5", "<= -1e9"])
def test_several_objectives_and_constraints(algorithm, objectives, bound):
    wanted = Objectives.of(objectives=objectives, constraints={"size": bound} if bound else None)
    space = mixed()
    history = told(
        space,
        wanted,
        20,
        lambda p, i: {"a": loss_of(p), "b": p["depth"], "c": p["lr"], "size": p["width"] / 100},
        lambda i: Status.FAILED if i % 7 == 3 else Status.COMPLETE,
    )
    check(space, algorithm.ask(space, wanted, history, [], 3, Key(2, 20)))


VALUES = {
    "constant": lambda i: 1.0,
    "huge": lambda i: 1e300 * (-1) ** i,
    "tiny": lambda i: 1e-300 * i,
    "one outlier": lambda i: 1e12 if i == 4 else float(i),
    "close": lambda i: 1.0 + 1e-15 * i,
}


@pytest.mark.parametrize("values", VALUES)
def test_awkward_values(algorithm, values):
    space = mixed()
    history = told(space, LOSS, 18, lambda p, i: {"loss": VALUES[values](i)})
    check(space, algorithm.ask(space, LOSS, history, [], 1, Key(2, 18)))


@pytest.mark.parametrize("values", VALUES)
def test_awkward_values_over_structures(algorithm, values):
    space = Space(order=Permutation(range(6)), some=Subset(range(5)), one=Permutation(["x"]), none=Subset(["x"], max=0))
    history = told(space, LOSS, 18, lambda p, i: {"loss": VALUES[values](i)})
    history += [replace(t, number=18 + t.number) for t in history[:3]]
    check(space, algorithm.ask(space, LOSS, history, [], 2, Key(2, 21)))


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-6])
def test_repeated_and_nearly_repeated_points(algorithm, apart):
    space = Space(x=Float(0, 1), y=Float(0, 1))
    history = [
        Trial(i, {"x": 0.5 + apart * i, "y": 0.5}, Status.COMPLETE, {"loss": float(i % 2)}, (), None, 0.0, 1.0)
        for i in range(16)
    ]
    check(space, algorithm.ask(space, LOSS, history, [], 2, Key(2, 16)))


def test_a_space_without_allowed_combinations_is_refused(algorithm):
    space = Space(x=Int(0, 9), y=Choice(["a", "b"]), where=[lambda p: True, lambda p: p["x"] > 10])
    with pytest.raises(UsageError, match=r"where\[1\]"):
        algorithm.ask(space, LOSS, [], [], 1, Key(0))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_ask_and_tell_until_the_end(name):
    loop = AskTell(Space(a=Int(0, 4), b=Choice([True, False])), algorithm=name, maximize="score", seed=3)
    for i in range(10):
        trial = loop.ask()
        if i % 4 == 1:
            loop.tell(trial, failed="out of memory")
        else:
            loop.tell(trial, trial.params["a"] + trial.params["b"])
    with pytest.raises(UsageError, match="exhausted"):
        loop.ask()
    assert len({repr(t.params) for t in loop.trials}) == 10


@pytest.mark.parametrize("name", ALGORITHMS)
def test_loops_are_pickled_and_copied_with_what_they_know(name):
    space = Space(x=Float(0, 1), n=Int(1, 9), kind=Choice(["a", "b"]), order=Permutation([1, 2, 3]).when(kind="b"))
    loop = AskTell(space, algorithm=name, minimize="loss", seed=3)
    for _ in range(12):
        trial = loop.ask()
        loop.tell(trial, trial.params["x"] * trial.params["n"])
    others = [pickle.loads(pickle.dumps(loop)), copy.deepcopy(loop)]
    for _ in range(3):
        proposed = loop.ask()
        for other in others:
            assert other.ask().params == proposed.params


@pytest.mark.parametrize("name", ALGORITHMS)
def test_threads_may_share_a_loop(name):
    loop = AskTell(Space(x=Int(0, 10**6), y=Float(0, 1), z=Ordinal([1, 2, 3])), algorithm=name, minimize="loss")
    told = Counter()

    def work(_) -> None:
        for _ in range(4):
            trial = loop.ask()
            time.sleep(0.001)
            loop.tell(trial, trial.params["y"])
            assert loop.best.metrics["loss"] <= trial.params["y"]
            told[trial.number] += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert [t.number for t in loop.trials] == list(range(32))
    assert told == Counter(range(32))
    assert all(t.metrics["loss"] == t.params["y"] for t in loop.trials)
    assert len({repr(t.params) for t in loop.trials}) == 32


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_a_loop_hands_out_may_be_changed(name):
    def lived(spoil: bool) -> list:
        space = Space(x=Float(-1, 1), y=Float(0, 1), kind=Choice([["a"], ["a", "b"]]))
        loop, seen = AskTell(space, algorithm=name, minimize="loss", seed=5), []
        for _ in range(14):
            trial = loop.ask()
            seen.append(repr(trial.params))
            x = trial.params["x"]
            if spoil:
                trial.params["kind"].append("c")
                del trial.params["x"]
            loop.tell(trial, x * x)
            if spoil:
                for record in (loop.best, *loop.front, *loop.trials):
                    record.params.clear()
        return [seen, repr(loop.best.params)]

    assert lived(spoil=True) == lived(spoil=False)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_says_what_it_is_for(name):
    text = search.get(name).__doc__ or ""
    assert text.strip().split("\n")[0].endswith(".")
    assert "When it helps" in text
    assert "When it hurts" in text


def test_a_choice_of_many_options_is_searched(algorithm):
    space = Space(word=Choice(range(3000)))
    history: list[Trial] = []
    for number in range(20):
        (params,) = algorithm.ask(space, LOSS, history, [], 1, Key(2, number))
        history.append(Trial(number, params, Status.COMPLETE, {"loss": float(params["word"])}, (), None, 0.0, 1.0))
    assert len({t.params["word"] for t in history}) == 20


def test_a_space_of_many_options_beside_others_gives_more_than_one_of_them(algorithm):
    if type(algorithm).__name__ == "Grid":
        pytest.skip("a grid goes through one parameter after the other")
    space = Space(word=Choice(range(3000)), x=Float(0, 1))
    history: list[Trial] = []
    for number in range(20):
        (params,) = algorithm.ask(space, LOSS, history, [], 1, Key(2, number))
        history.append(Trial(number, params, Status.COMPLETE, {"loss": params["x"]}, (), None, 0.0, 1.0))
    assert len({t.params["word"] for t in history}) >= 2


def test_a_search_that_finds_no_more_in_a_forbidden_waste_says_so(algorithm):
    if type(algorithm).__name__ == "Grid":
        pytest.skip("a grid of five levels is soon walked through")
    space = Space(a=Int(0, 9999), b=Int(0, 9999), where=lambda p: (p["a"] + p["b"]) * p["b"] == 0 and p["a"] == 0)
    history = [Trial(0, {"a": 0, "b": 0}, Status.COMPLETE, {"loss": 1.0}, (), None, 0.0, 1.0)]
    with pytest.warns(UserWarning, match=r"no more than 1 allowed.*where\[0\]"):
        assert algorithm.ask(space, LOSS, history, [], 1, Key(0, 1)) == []


def loop(**options):
    return AskTell(Space(x=Float(0, 1)), **{"minimize": "loss", "algorithm": "random", **options})


BAD = {
    "space": (lambda: AskTell([Float(0, 1)], minimize="loss"), "the space is no Space"),
    "seed": (lambda: loop(seed="a"), "'seed'"),
    "no seed": (lambda: loop(seed=None), "'seed'"),
    "half a seed": (lambda: loop(seed=1.5), "'seed'"),
    "no trial": (lambda: loop().tell({"x": 0.5}, 1.0), "no trial"),
    "both": (lambda: (lambda own: own.tell(own.ask(), 1.0, failed="x"))(loop()), "a result or has failed"),
    "both added": (lambda: loop().add({"x": 0.5}, 1.0, failed="x"), "a result or has failed"),
    "neither": (lambda: loop().add({"x": 0.5}), "not a result"),
    "beyond a float": (lambda: loop().add({"x": 0.5}, -(10**400)), "'loss' is -inf"),
    "levels": (lambda: search.Grid(levels="a"), "levels >= 1"),
    "first trials": (lambda: search.Bayes(initial=-1), "initial >= 0"),
    "effort": (lambda: search.Bayes(effort="low"), "bayes.Effort, or None"),
    "candidates": (lambda: search.TPE(candidates=0), "candidates >= 1"),
    "others": (lambda: search.TPE(others=0), "others >= 1"),
    "share": (lambda: search.TPE(share=2), "0 <= share <= 1"),
    "no share": (lambda: search.TPE(share=float("nan")), "0 <= share <= 1"),
    "initial": (lambda: search.TPE(initial="a"), "initial >= 0"),
    "parents": (lambda: search.NSGA2(population=1), "population >= 2"),
    "crossover": (lambda: search.NSGA2(crossover="often"), "0 <= crossover <= 1"),
    "eta": (lambda: search.NSGA2(eta=-1), "eta >= 0"),
    "population": (lambda: search.CMAES(population=1.5), "population >= 2"),
    "sigma": (lambda: search.CMAES(sigma=0), "<= sigma <= 1"),
}


@pytest.mark.parametrize(("wrong", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_told(wrong, words):
    with pytest.raises(LuthierError, match=words):
        wrong()


def test_what_was_refused_leaves_no_trace():
    own = loop()
    trial = own.ask()
    for call in (lambda: own.add({"x": 0.5}), lambda: own.tell(trial, 1.0, failed="x")):
        with pytest.raises(LuthierError):
            call()
    own.tell(trial, 2.0)
    assert [t.metrics for t in own.trials] == [{"loss": 2.0}]


def test_a_space_may_be_a_mapping_and_a_known_failure_is_kept():
    own = AskTell({"a": Int(0, 2)}, minimize="loss", algorithm="tpe")
    own.add({"a": 1}, failed="out of memory")
    assert [(t.status, t.cause, t.metrics) for t in own.trials] == [(Status.FAILED, "out of memory", {})]
    assert sorted(own.ask().params["a"] for _ in range(2)) == [0, 2]
