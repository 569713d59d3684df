"""Importance of parameters against functions whose shares are known."""

from __future__ import annotations

import math
import pickle
from itertools import combinations

import numpy as np
import pytest
from scipy import optimize

import luthier as lt
from luthier.errors import UsageError
from luthier.search._encode import Encoding
from luthier.study.anova import _Frame, _orthonormal, _Process, cover
from luthier.study.importance import Importance, importance
from luthier.trial import Status, Trial


def _trials(space, function, n=100, noise=0.0, seed=0, names=("loss",)):
    rng = np.random.default_rng(seed)
    out = []
    for number in range(n):
        params = space.draw(rng)
        found = np.atleast_1d(function(params)) + noise * rng.normal(size=len(names))
        out.append(Trial(number, params, Status.COMPLETE, dict(zip(names, found.tolist(), strict=True))))
    return out


def _shares(space, function, n=100, **how):
    return importance(space, _trials(space, function, n, **how), "loss")


PLAIN = lt.Space(a=lt.Float(0, 1), b=lt.Float(0, 1), c=lt.Choice(["u", "v", "w"]), idle=lt.Int(1, 9))


def _tuned(objective, algorithm="random", trials=60):
    return lt.tune(objective, PLAIN, minimize="loss", trials=trials, algorithm=algorithm, progress=False)


def test_shares_follow_variances():
    """Var(3a) = 9 Var(b): nine tenths and one tenth."""
    found = _shares(PLAIN, lambda p: 3 * p["a"] + p["b"], 60)
    assert found["a"] == pytest.approx(0.9, abs=0.01)
    assert found["b"] == pytest.approx(0.1, abs=0.01)
    assert found["c"] + found["idle"] < 0.005
    assert sum(found.pairs.values()) < 0.005
    assert list(found)[:2] == ["a", "b"]


def test_numbers_logarithms_and_categories_together():
    """Variances 1/12, 4/12, and of (0, 1, 5)/2: 7/6; all by hand."""
    space = lt.Space(lr=lt.Float(1e-4, 1.0, log=True), a=lt.Float(-1, 1), c=lt.Choice(["u", "v", "w"]))
    found = _shares(
        space,
        lambda p: 1 + math.log10(p["lr"]) / 4 + p["a"] + {"u": 0.0, "v": 0.5, "w": 2.5}[p["c"]],
    )
    total = 1 / 12 + 4 / 12 + 7 / 6
    for name, variance in (("lr", 1 / 12), ("a", 4 / 12), ("c", 7 / 6)):
        assert found[name] == pytest.approx(variance / total, abs=0.02)


def test_a_pure_interaction_is_a_pair_and_halves_go_to_its_parameters():
    found = _shares(PLAIN, lambda p: (p["a"] - 0.5) * (p["b"] - 0.5))
    assert next(iter(found.pairs)) == ("a", "b")
    assert found.pairs["a", "b"] == pytest.approx(1.0, abs=0.02)
    assert found.main["a"] < 0.01
    assert found["a"] == pytest.approx(0.5, abs=0.02)


def test_an_interaction_of_a_category_and_a_number():
    """x - 1/2 for one value, its mirror image for another: all in the pair."""
    found = _shares(PLAIN, lambda p: {"u": 1, "v": -1, "w": 0}[p["c"]] * (p["a"] - 0.5))
    assert found.pairs["a", "c"] == pytest.approx(1.0, abs=0.03)


def test_ishigami():
    """Sobol indices of sin x + 7 sin^2 y + 0.1 z^4 sin x: Ishigami and Homma, 1990."""
    space = lt.Space({n: lt.Float(-math.pi, math.pi) for n in "xyz"})
    found = _shares(
        space, lambda p: math.sin(p["x"]) + 7 * math.sin(p["y"]) ** 2 + 0.1 * p["z"] ** 4 * math.sin(p["x"]), 200
    )
    assert found.main["x"] == pytest.approx(0.3139, abs=0.02)
    assert found.main["y"] == pytest.approx(0.4424, abs=0.02)
    assert found.main["z"] == pytest.approx(0.0, abs=0.01)
    assert found.pairs["x", "z"] == pytest.approx(0.2437, abs=0.02)


def test_noise_is_left_unexplained():
    """Variance 1/12 of the signal, twice that of the noise: a third can be explained."""
    found = _shares(PLAIN, lambda p: p["a"], 250, noise=math.sqrt(2 / 12))
    assert found.explained == pytest.approx(1 / 3, abs=0.1)
    assert found["a"] > 0.8 * found.explained


def test_a_condition_is_its_parents_effect_and_the_child_counts_where_it_is_active():
    """m = u: x, else 0. Var(E[f|m]) = 1/16, the rest, E[Var(f|m)] = 1/24, is of x: shares 0.6 and 0.4."""
    space = lt.Space(m=lt.Choice(["u", "v"]), x=lt.Float(0, 1).when(m="u"), y=lt.Float(0, 1).when(m="v"))
    found = _shares(space, lambda p: p.get("x", 0.0))
    assert (found["m"], found["x"], found["y"]) == pytest.approx((0.6, 0.4, 0.0), abs=0.02)


def test_a_child_that_acts_otherwise_under_each_value_of_its_parent():
    space = lt.Space(m=lt.Choice(["u", "v", "w"]), x=lt.Float(0, 1).when(m=("u", "w")))
    found = _shares(space, lambda p: (p["x"] if p["m"] == "u" else 1 - p["x"]) if "x" in p else 0.5)
    assert found.pairs["m", "x"] == pytest.approx(1.0, abs=0.02)


def test_permutations_and_subsets():
    """Independent parts with variances by hand: membership p(1 - p), place of an item among four 5/4."""
    space = lt.Space(s=lt.Subset(list("abcd"), min=2, max=2), p=lt.Permutation(list("wxyz")))
    found = _shares(space, lambda p: ("a" in p["s"]) + 0.5 * p["p"].index("w"))
    assert found["s"] == pytest.approx(0.25 / (0.25 + 0.3125), abs=0.03)


def test_what_an_order_does_is_seen_whatever_it_depends_on():
    """Tours, whose places say nothing, and indicators; the other parameter has a twelfth of the variance."""
    rng = np.random.default_rng(0)
    lengths = rng.random((9, 9))
    lengths += lengths.T
    functions = {
        "tour": lambda order: sum(lengths[order[i], order[i - 1]] for i in range(9)),
        "first": lambda order: float(order[0] < 3),
        "before": lambda order: float(order.index(3) < order.index(5)),
    }
    space = lt.Space(p=lt.Permutation(range(9)), x=lt.Float(0, 1))
    for name, function in functions.items():
        variance = float(np.var([function(tuple(rng.permutation(9))) for _ in range(4000)]))
        found = _shares(space, lambda p, f=function, v=variance: f(p["p"]) + np.sqrt(v) * p["x"], n=200)
        assert found["p"] == pytest.approx(12 / 13, abs=0.12), name
        assert found["x"] == pytest.approx(1 / 13, abs=0.03), name


def test_what_a_selection_does_is_seen_whatever_it_depends_on():
    space = lt.Space(s=lt.Subset(["a", "b", "c"]), x=lt.Float(0, 1))
    for function in (lambda s: len(s) == 2, lambda s: s == ("a",), lambda s: "a" in s and "b" in s):
        assert _shares(space, lambda p, f=function: float(f(p["s"])))["s"] == pytest.approx(1.0, abs=0.02)


def test_conditional_choices_and_structures_have_their_shares():
    """Children whose mean is that of their absence, so that all is their own: variance times how often active."""
    space = lt.Space(m=lt.Choice([0, 1]), c=lt.Choice(["u", "v"]).when(m=1), x=lt.Float(0, 1))
    found = _shares(space, lambda p: {None: 0.5, "u": 1.0, "v": 0.0}[p.get("c")] + p["x"])
    assert (found["c"], found["x"], found["m"]) == pytest.approx((0.6, 0.4, 0.0), abs=0.03)  # 1/8 and 1/12
    space = lt.Space(m=lt.Choice([0, 1]), s=lt.Subset(list("abcd"), min=2, max=2).when(m=1), x=lt.Float(0, 1))
    found = _shares(space, lambda p: float("a" in p.get("s", ())) - 0.5 * ("s" in p) + p["x"])
    assert (found["s"], found["x"], found["m"]) == pytest.approx((0.6, 0.4, 0.0), abs=0.03)
    space = lt.Space(m=lt.Choice([0, 1]), o=lt.Permutation([1, 2, 3]).when(m=1), x=lt.Float(0, 1))
    found = _shares(space, lambda p: float(p["o"][0] == 1) - 1 / 3 + p["x"] if "o" in p else p["x"])
    assert (found["o"], found["x"], found["m"]) == pytest.approx((4 / 7, 3 / 7, 0.0), abs=0.03)  # 1/9 and 1/12


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rarely_active_children_do_not_hide_the_rest(seed):
    """Single trials from which the model would extrapolate far beyond all results."""
    space = lt.Space(
        m=lt.Choice(list("abcdefgh")),
        n=lt.Int(0, 4),
        v=lt.Float(0, 1).when(m="a", n=(1, 2)),
        x=lt.Float(0, 1).when(m="b"),
    )
    assert _shares(space, lambda p: float(len(p)), n=60, seed=seed).explained > 0.4


def test_several_objectives_are_averaged_and_each_can_be_asked_for():
    trials = _trials(PLAIN, lambda p: (p["a"], 2 * p["b"]), names=("loss", "ms"))
    both, one = importance(PLAIN, trials, ("loss", "ms")), importance(PLAIN, trials, "ms")
    assert (both["a"], both["b"]) == pytest.approx((0.5, 0.5), abs=0.01)
    assert one["b"] == pytest.approx(1.0, abs=0.01)
    study = lt.tune(
        lambda t: {"loss": t["a"], "ms": t["b"]},
        PLAIN,
        objectives={"loss": "min", "ms": "max"},
        algorithm="random",
        trials=30,
        progress=False,
    )
    assert study.importance()["a"] == pytest.approx(0.5, abs=0.02)
    assert study.importance("ms")["b"] == pytest.approx(1.0, abs=0.02)


def test_repeats_count_once():
    trials = _trials(PLAIN, lambda p: p["a"] + p["b"], 40)
    again = [Trial(100 + i, trials[3].params, Status.COMPLETE, trials[3].metrics) for i in range(40)]
    assert importance(PLAIN, [*trials, *again], "loss") == importance(PLAIN, trials, "loss")


def test_what_does_nothing_has_no_share_even_where_the_search_went_to_the_optimum():
    shares = _tuned(lambda t: (t["a"] - 0.3) ** 2 + 0.3 * (t["c"] == "v"), "bayes", 40).importance()
    assert set(list(shares)[:2]) == {"a", "c"}
    assert shares["idle"] < shares["a"] / 3


def test_one_diverged_trial_does_not_hide_the_rest():
    shares = _tuned(lambda t: 1e9 if t.number == 7 else t["a"] ** 2, trials=80).importance()
    assert next(iter(shares)) == "a"
    assert shares["a"] > 0.4


@pytest.mark.parametrize(("algorithm", "trials"), [("tpe", 200), ("nsga2", 600), ("bayes", 60), ("random", 60)])
def test_the_shares_are_those_of_the_space_wherever_the_search_converged(algorithm, trials):
    """Variances 16, 4 and 1 of the linear effects, a share of 16/21 and so on; 4, 0.25 and 0.5 of the bowls'."""
    space = lt.Space({n: lt.Float(0, 1) for n in "abcd"})
    for function, shares in (
        (lambda p: 4 * p["a"] + 2 * p["b"] + p["c"], (16 / 21, 4 / 21, 1 / 21, 0.0)),
        (lambda p: 4 * (p["a"] - 0.5) ** 2 + (p["b"] - 0.5) ** 2 + math.sqrt(2) * (p["c"] - 0.5) ** 2, None),
    ):
        search = lt.AskTell(space, algorithm=algorithm, minimize="loss", seed=0)
        for _ in range(trials):
            trial = search.ask()
            search.tell(trial, function(trial.params))
        found = importance(space, search.trials, "loss")
        wanted = shares or (16 / 19, 1 / 19, 2 / 19, 0.0)
        assert [found[n] for n in "abcd"] == pytest.approx(wanted, abs=0.03)


def test_of_many_trials_those_farthest_apart_are_taken():
    """A hundred at one corner and one at each of the others: by hand."""
    space = lt.Space(x=lt.Float(0, 1), y=lt.Float(0, 1))
    crowd = [{"x": 1e-3 * i, "y": 0.0} for i in range(100)]
    params = [*crowd[:50], {"x": 1.0, "y": 1.0}, *crowd[50:], {"x": 0.0, "y": 1.0}, {"x": 1.0, "y": 0.0}]
    assert cover(space, params, 4).tolist() == [0, 50, 101, 102]
    assert cover(space, params, 500).tolist() == list(range(103))


@pytest.mark.parametrize("result", [1e300, -1e308, 1e9])
def test_one_result_of_another_world_does_not_hide_the_rest(result):
    trials = _trials(PLAIN, lambda p: p["a"] ** 2, 80)
    trials[7] = Trial(7, trials[7].params, Status.COMPLETE, {"loss": result})
    assert importance(PLAIN, trials, "loss")["a"] > 0.4


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_any_scale_will_do(scale):
    found = _shares(PLAIN, lambda p: scale * p["a"], 30)
    assert found["a"] == pytest.approx(1.0, abs=0.01)


def test_flat_results_have_no_shares():
    assert set(_shares(PLAIN, lambda p: 4.0, 20).values()) == {0.0}


def test_shares_sum_up_and_survive_a_pickle():
    found = Importance({"a": 0.2, "b": 0.1}, {("a", "b"): 0.4})
    assert found.explained == pytest.approx(0.7)
    assert found["a"] == pytest.approx(0.4)
    copy = pickle.loads(pickle.dumps(found))
    assert copy == found
    assert copy.pairs == found.pairs


@pytest.mark.parametrize("n", [3, 17])
def test_functions_are_orthonormal(n):
    grid = np.random.default_rng(0).random(n)
    functions = np.polynomial.legendre.legvander(grid, 6)
    made = functions @ _orthonormal(functions)
    np.testing.assert_allclose(made.T @ made / n, np.eye(made.shape[1]), atol=1e-9)
    np.testing.assert_allclose(made[:, 0], 1.0)


def test_gradient_of_the_fit_by_finite_differences():
    space = lt.Space(m=lt.Choice(["u", "v", "w"]), x=lt.Float(0, 1).when(m=("u", "w")), y=lt.Int(0, 5))
    rng = np.random.default_rng(0)
    encoding = Encoding(space)
    rows, active = encoding.snap(np.array([encoding.rows(space.draw(rng)) for _ in range(25)]))
    process = _Process(_Frame(space, encoding, rows, active), rng.normal(size=25))
    for theta in rng.normal(-1.0, 1.0, (4, 5)):
        slope = optimize.approx_fprime(theta, lambda t: process(t)[0], 1e-6)
        np.testing.assert_allclose(process(theta)[1], slope, rtol=1e-4, atol=1e-4)


def test_the_process_is_the_sum_that_it_says():
    """Its covariance by brute force over terms and pairs."""
    rng = np.random.default_rng(1)
    encoding = Encoding(PLAIN)
    rows, active = encoding.snap(rng.random((12, 4)))
    frame = _Frame(PLAIN, encoding, rows, active)
    process, theta = _Process(frame, rng.normal(size=12)), rng.normal(size=6)
    grams = [math.exp(t) * term.gram for t, term in zip(theta, frame.terms, strict=False)]
    expected = 10.0 + sum(grams) + math.exp(theta[4]) * sum(a * b for a, b in combinations(grams, 2))
    np.testing.assert_allclose(process.covariance(theta)[0], expected)


@pytest.mark.parametrize("trials", [1, 2, 3, 4])
def test_few_trials_are_a_guess_and_said_to_be_one(trials):
    study = lt.tune(lambda t: t["x"] ** 2, lt.Space(x=lt.Float(-1, 1)), minimize="loss", trials=trials, progress=False)
    with pytest.warns(UserWarning, match="hardly a guess"):
        shares = study.importance()
    assert set(shares) == {"x"}
    assert 0 <= shares["x"] <= 1


def test_no_trial_with_the_metric_is_an_error():
    study = lt.tune(lambda t: 1 / 0, lt.Space(x=lt.Float(-1, 1)), minimize="loss", trials=2, progress=False)
    with pytest.raises(UsageError, match="no trial says what matters"):
        study.importance()
