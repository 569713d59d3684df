"""Priors and experience: densities integrate, slopes agree, right ones help, wrong ones do little harm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize, stats

import luthier as lt
from luthier import search
from luthier.errors import UsageError
from luthier.keys import Key
from luthier.search import _net
from luthier.search._belief import Belief, Prior
from luthier.search._encode import Encoding
from luthier.search._experience import agreement
from luthier.search._warm import translate, with_experience
from luthier.search.bayes.belief import Believed, Inward
from luthier.trial import Status, Trial

MODES = [0.0, 0.03, 0.5, 0.97]


@pytest.mark.parametrize("mode", MODES)
def test_a_numbers_belief_integrates_to_one_and_draws_follow_it(mode):
    prior = Prior(0, mode, 0)

    def density(x: float) -> float:
        return float(np.exp(prior.log(np.array(x))))

    assert integrate.quad(density, 0, 1, points=[mode])[0] == pytest.approx(1.0, rel=1e-9)
    u = (np.arange(20_000) + 0.5) / 20_000
    for weight in (0.0, 0.4, 1.0):
        drawn = prior.bend(u, weight)
        assert (np.diff(drawn) > 0).all()
        for end in (0.1, 0.45, 0.8):
            wanted = weight * integrate.quad(density, 0, end, points=[min(mode, end)])[0] + (1 - weight) * end
            assert (drawn < end).mean() == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize(("options", "mode"), [(2, 0.25), (3, 0.5), (7, 13 / 14)])
def test_a_choices_belief_sums_to_one_and_draws_follow_it(options, mode):
    prior = Prior(0, mode, options)
    centres = (np.arange(options) + 0.5) / options
    share = np.exp(prior.log(centres)) / options
    assert share.sum() == pytest.approx(1.0)
    assert share[int(mode * options)] == pytest.approx(0.5 + 0.5 / options)
    u = (np.arange(30_000) + 0.5) / 30_000
    drawn = np.bincount((prior.bend(u, 1.0) * options).astype(int), minlength=options) / len(u)
    assert drawn == pytest.approx(share, abs=1e-3)
    assert np.allclose(prior.bend(u, 0.0), u)


def believing() -> lt.Space:
    return lt.Space(
        lr=lt.Float(1e-5, 1.0, log=True, prior=1e-3),
        width=lt.Int(1, 64, log=True, prior=8),
        opt=lt.Choice(["sgd", "adam", "lion"], prior="lion"),
        batch=lt.Ordinal([8, 16, 32, 64], prior=32).when(opt="lion"),
        free=lt.Float(0, 1),
    )


def test_priors_survive_json_and_wrong_ones_are_named():
    space = believing().with_experience([{"study": "a", "trials": [[{"free": 0.5}, 0.0]]}])
    again = lt.Space.from_json(space.to_json())
    assert again.to_json() == space.to_json()
    assert {n: p.prior for n, p in again.parameters.items()} == {n: p.prior for n, p in space.parameters.items()}
    for make in (
        lambda: lt.Float(0, 1, prior=2),
        lambda: lt.Int(0, 5, prior=2.5),
        lambda: lt.Choice(["a"], prior="b"),
        lambda: lt.Ordinal([1, 2], prior=3),
    ):
        with pytest.raises(UsageError, match="prior"):
            make()


class _Flat:
    def __call__(self, rows):
        return np.zeros(len(rows))

    def with_gradient(self, rows):
        return np.zeros(len(rows)), np.zeros(rows.shape)


def _bowl(space: lt.Space, function, count: int = 25) -> lt.AskTell:
    loop, rng = lt.AskTell(space, algorithm="random", minimize="loss"), np.random.default_rng(4)
    for _ in range(count):
        params = space.draw(rng)
        loop.add(params, function(params))
    return loop


def test_slopes_of_a_believed_acquisition():
    plain = lt.Space(x=lt.Float(0, 1, prior=0.7), y=lt.Float(0, 1), z=lt.Float(0, 1, prior=0.1))
    other = _bowl(plain, lambda p: (p["x"] - 0.6) ** 2 + p["y"])
    space = with_experience(plain, other)
    encoding = Encoding(space)
    belief = Belief(space, encoding)
    rng = np.random.default_rng(0)
    believed = Believed(_Flat(), belief, encoding, rng.random((6, 3)), np.arange(6.0))
    at = rng.uniform(0.05, 0.95, (5, 3))
    value, slope = believed.with_gradient(at)
    assert value == pytest.approx(believed(at))
    for j in range(3):
        step = np.zeros(3)
        step[j] = 1e-6
        assert slope[:, j] == pytest.approx((believed(at + step) - believed(at - step)) / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", [n for n in search.names() if n != "grid"])
def test_early_proposals_are_drawn_to_the_belief(name):
    early = []
    for seed in range(12):
        loop = lt.AskTell(believing(), algorithm=name, minimize="loss", seed=seed)
        for _ in range(4):
            trial = loop.ask()
            loop.tell(trial, 1.0)
            early.append(trial.params)
    assert early[0]["lr"] == pytest.approx(1e-3)
    assert (early[0]["width"], early[0]["opt"], early[0]["batch"]) == (8, "lion", 32)
    near = np.mean([abs(np.log10(p["lr"]) + 3) < 1.0 for p in early])
    assert near > 0.55  # 0.4 without a belief
    assert np.mean([p["opt"] == "lion" for p in early]) > 0.5


@pytest.mark.parametrize("name", ["bayes", "tpe"])
def test_a_wrong_belief_is_overcome_within_thirty_trials(name):
    found = []
    for prior in (None, 0.95):
        space = lt.Space(x=lt.Float(0, 1, prior=prior), y=lt.Float(0, 1, prior=prior))
        best = []
        for seed in range(3):
            loop = lt.AskTell(space, algorithm=name, minimize="loss", seed=seed)
            for _ in range(30):
                trial = loop.ask()
                loop.tell(trial, _far(trial.params))
            best.append(min(t.metrics["loss"] for t in loop.trials))
        found.append(np.median(best))
    assert found[1] < max(3.0 * found[0], 0.01)


def test_bayes_begins_anew_in_the_middle_once_the_first_trials_deny_the_belief():
    space, places = lt.Space(x=lt.Float(0, 1, prior=0.05), y=lt.Float(0, 1, prior=0.05)), []
    for seed in range(12):
        loop = lt.AskTell(space, algorithm="bayes", minimize="loss", seed=seed)
        for _ in range(6):
            trial = loop.ask()
            loop.tell(trial, -trial.params["x"] - trial.params["y"])
        places.append([list(t.params.values()) for t in loop.trials])
    assert all(run[0] == [0.05, 0.05] and run[4] == [0.5, 0.5] for run in places)
    assert 0.35 < np.mean([run[5] for run in places]) < 0.65  # evenly spread, not about 0.05


def _far(p) -> float:
    return (p["x"] - 0.2) ** 2 + (p["y"] - 0.3) ** 2


def _mixed(belief: bool) -> lt.Space:
    prior = {"w": 1024, "o": "d", "b": 16, "x": 1.0} if belief else {}
    return lt.Space(
        w=lt.Int(1, 1024, log=True, prior=prior.get("w")),
        o=lt.Choice(["a", "b", "c", "d"], prior=prior.get("o")),
        b=lt.Ordinal([1, 2, 4, 8, 16], prior=prior.get("b")),
        x=lt.Float(0, 1, prior=prior.get("x")),
    )


def _curve(p) -> float:
    """Far from that prior in every parameter it is best."""
    wrong = {"a": 0.0, "b": 0.3, "c": 0.5, "d": 0.6}[p["o"]]
    return abs(np.log2(p["w"]) - 4) / 6 + wrong + 0.1 * abs(np.log2(p["b"]) - 1) + (p["x"] - 0.2) ** 2


@pytest.mark.parametrize("name", ["cmaes", "nsga2"])
def test_a_wrong_belief_about_parameters_of_all_kinds_is_overcome(name):
    found = []
    for belief in (False, True):
        best = []
        for seed in range(16):
            loop = lt.AskTell(_mixed(belief), algorithm=name, minimize="loss", seed=seed)
            for _ in range(40):
                trial = loop.ask()
                loop.tell(trial, _curve(trial.params))
            best.append(min(t.metrics["loss"] for t in loop.trials))
        found.append(np.mean(best))
    assert found[1] < found[0] + 0.15


def _told(sign: float, count: int = 20) -> list[Trial]:
    rng, space = np.random.default_rng(0), _mixed(False)
    drawn = [space.draw(rng) for _ in range(count)]
    return [Trial(i, p, Status.COMPLETE, {"loss": sign * float(_curve(p))}) for i, p in enumerate(drawn)]


@pytest.mark.parametrize("name", ["random", "sobol", "nsga2"])
def test_draws_are_uniform_once_results_deny_the_belief(name):
    space, wanted = _mixed(True), lt.AskTell(_mixed(True), minimize="loss").objectives
    generator = Key(5, 20).generator(name)
    generator.random(space.width)  # for the rest of a suggestion
    uniform = _net.point(5, 20, space.width) if name == "sobol" else generator.random(space.width)
    denied, borne_out = (search.get(name).ask(space, wanted, _told(sign), [], 1, Key(5, 20)) for sign in (1.0, -1.0))
    assert denied == [space.from_unit(uniform.tolist())]
    assert borne_out != denied


@pytest.mark.parametrize(("sign", "begins"), [(1.0, [0.5, 0.5, 0.5]), (-1.0, None)])
def test_cma_begins_anew_in_the_middle_once_results_deny_where_it_began(sign, begins):
    method, wanted = search.CMAES(population=10), lt.AskTell(_mixed(True), minimize="loss").objectives
    method.ask(_mixed(True), wanted, _told(sign, 10), [], 1, Key(5, 10))
    run = method._cache[0]
    assert run.believes == (begins is None)
    if begins is not None:
        assert run.state.m.tolist() == begins
        assert (run.state.sigma, run.state.g) == (0.25, 0)
        assert run.shares[1].tolist() == [0.25] * 4
        assert len(run.told) == 10


def test_agreement_by_hand():
    expected = np.array([0.0, 1.0, 2.0])
    assert agreement(np.empty(0), np.empty(0)) == pytest.approx(1.0)
    weight = 4.0 / np.sqrt(3)  # gaps 1, 2, 1
    right = (2 * (4 + weight) / (5 + weight) - 1) / 0.6
    assert agreement(expected, np.array([0, 1, 2.0])) == pytest.approx(right)
    assert agreement(expected, np.array([2.0, 1, 0])) == pytest.approx(max((2 * 4 / (5 + weight) - 1) / 0.6, 0))
    many = np.arange(20.0)
    assert agreement(many / 6, many[::-1]) == 0.0
    weight = 3.0 / np.sqrt(3)  # gaps 2 and 1 to the only bad one; the two good ones say nothing
    assert agreement(expected, np.array([0.0, 0, 1])) == pytest.approx((2 * (4 + weight) / (5 + weight) - 1) / 0.6)


def test_values_of_other_spaces_are_translated():
    space = lt.Space(
        lr=lt.Float(1e-4, 1e-1, log=True),
        width=lt.Int(8, 64),
        opt=lt.Choice(["sgd", "adam"], prior="adam"),
        momentum=lt.Float(0.0, 1.0).when(opt="sgd"),
        order=lt.Permutation(["a", "b"]),
    )
    got = translate(space, {"lr": 3.0, "width": 9.6, "opt": "lion", "momentum": 0.3, "gone": 1, "order": ["b", "a"]})
    assert got == {"lr": 0.1, "width": 10, "opt": "adam", "order": ("b", "a")}
    assert translate(space, {"opt": "sgd", "order": "no"})["momentum"] == 0.5
    assert space.check(got) == got


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (3, "no study"),
        ([lt.AskTell(lt.Space(x=lt.Float(0, 1)), minimize="l")], "nothing to learn"),
        (_bowl(lt.Space(z=lt.Float(0, 1)), lambda p: p["z"], 3), "shares no parameter"),
    ],
)
def test_what_cannot_warm_up_is_named(told, word):
    with pytest.raises(UsageError, match=word):
        lt.AskTell(lt.Space(x=lt.Float(0, 1)), minimize="loss", warm_start=told)


@pytest.mark.parametrize("name", [n for n in search.names() if n != "grid"])
def test_related_studies_help_and_misleading_ones_hardly_hurt(name):
    space = lt.Space(x=lt.Float(0, 1), y=lt.Float(0, 1), c=lt.Choice(["p", "q"]))

    def loss(p, shift=0.0):
        return (p["x"] - 0.2 - shift) ** 2 + (p["y"] - 0.8) ** 2 + 0.3 * (p["c"] == "q")

    others = {
        "none": None,
        "related": _bowl(space, lambda p: 5 * loss(p, 0.05) + 2, 40),
        "misleading": _bowl(space, lambda p: -loss(p), 40),
    }
    best = {}
    for kind, other in others.items():
        loop = lt.AskTell(space, algorithm=name, minimize="loss", seed=1, warm_start=other)
        for _ in range(24):
            trial = loop.ask()
            loop.tell(trial, loss(trial.params))
        losses = [t.metrics["loss"] for t in loop.trials]
        best[kind] = losses
    assert min(best["related"][:3]) < 0.05
    assert min(best["misleading"]) < 0.3  # random alone has no other promise


def test_rows_of_experience_are_capped_and_ranks_run_from_best_to_worst():
    space = lt.Space(x=lt.Float(0, 1))
    loop = lt.AskTell(space, minimize="loss")
    for i in range(500):
        loop.add({"x": i / 500}, (500 - i) / 7)
    (record,) = with_experience(space, loop).experience
    ranks = [rank for _, rank in record["trials"]]
    assert len(ranks) == 200
    assert ranks == sorted(ranks)
    assert (ranks[0], ranks[-1]) == (0.0, 1.0)
    assert record["trials"][0][0] == {"x": 499 / 500}


def test_beliefs_are_pure():
    space = believing()
    other = _bowl(space, lambda p: p["free"])
    warm = with_experience(space, other)
    rng = np.random.default_rng(0)
    history = [Trial(i, space.draw(rng), Status.COMPLETE, {"loss": float(i % 5)}) for i in range(12)]
    wanted = lt.AskTell(space, minimize="loss").objectives
    for name in search.names():
        algorithm = search.get(name)
        first = algorithm.ask(warm, wanted, history, [], 2, Key(3, 12))
        algorithm.ask(space, wanted, history[:3], [], 1, Key(3, 3))
        assert algorithm.ask(warm, wanted, history, [], 2, Key(3, 12)) == first
        again = lt.Space.from_json(warm.to_json())
        assert search.get(name).ask(again, wanted, history, [], 2, Key(3, 12)) == first


class _Slope:
    """log acquisition sum_j (j + 1) u_j, over all features."""

    def __call__(self, rows):
        return rows @ (1.0 + np.arange(rows.shape[1]))

    def with_gradient(self, rows):
        return self(rows), np.tile(1.0 + np.arange(rows.shape[1]), (len(rows), 1))


def test_edges_are_weighed_by_a_beta_density_of_every_number():
    encoding = Encoding(
        lt.Space(x=lt.Float(0, 1), c=lt.Choice(["a", "b"]), k=lt.Int(0, 9), y=lt.Float(1e-3, 1, log=True))
    )
    rows = np.random.default_rng(0).uniform(0.05, 0.95, (20, 4))
    wanted = stats.beta.logpdf(rows[:, [0, 2, 3]], 1.2, 1.2).sum(1)
    found = Inward(_Slope(), encoding)(rows) - _Slope()(rows)
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], atol=5e-3)
    assert np.isfinite(Inward(_Slope(), encoding)(np.array([[0.0, 0.25, 1.0, 1.0]]))).all()


def test_branches_with_more_numbers_are_not_held_back_by_the_edges():
    numbers = {f"x{i}": lt.Float(0, 1).when(c="b") for i in range(4)}
    encoding = Encoding(lt.Space(c=lt.Choice(["a", "b"]), **numbers))
    rows = encoding.features(np.random.default_rng(0).uniform(size=(40_000, 5)))
    density = np.exp(Inward(_Slope(), encoding)(rows) - _Slope()(rows))
    for branch in (0.25, 0.75):
        assert density[rows[:, 0] == branch].mean() == pytest.approx(1.0, abs=0.01)


def test_slopes_of_what_weighs_edges():
    encoding = Encoding(lt.Space(x=lt.Float(0, 1), c=lt.Choice(["a", "b"]), y=lt.Float(0, 1)))
    inward, rows = Inward(_Slope(), encoding), np.random.default_rng(1).uniform(0.0, 1.0, (6, 3))
    value, slopes = inward.with_gradient(rows)
    np.testing.assert_array_equal(value, inward(rows))
    for row, slope in zip(rows, slopes, strict=True):
        each = optimize.approx_fprime(row, lambda u: float(inward(u[None])[0]), 1e-7)
        np.testing.assert_allclose(slope, each, rtol=1e-4, atol=1e-4)


def test_noise_alone_does_not_draw_proposals_to_the_edges():
    space = lt.Space({f"x{i}": lt.Float(0, 1) for i in range(4)})
    loop, draws = lt.AskTell(space, algorithm="bayes", minimize="loss", seed=0), np.random.default_rng(0)
    for _ in range(40):
        loop.tell(loop.ask(), float(draws.normal()))
    late = np.array([list(t.params.values()) for t in loop.trials[10:]])
    assert ((late < 0.01) | (late > 0.99)).mean() < 0.1
