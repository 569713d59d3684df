"""Importance of parameters against functions whose shares are known."""

import luthier as lt


def _tuned(objective, algorithm="random", trials=60):
    space = lt.Space(a=lt.Float(0, 1), b=lt.Float(0, 1), c=lt.Choice(["u", "v", "w"]), idle=lt.Int(1, 9))
    return lt.tune(objective, space, minimize="loss", trials=trials, algorithm=algorithm, progress=False)


def test_what_does_nothing_has_no_share_even_where_the_search_went_to_the_optimum():
    shares = _tuned(lambda t: (t["a"] - 0.3) ** 2 + 0.3 * (t["c"] == "v"), "bayes", 40).importance()
    assert next(iter(shares)) == "a"
    assert shares["idle"] < shares["a"] / 3


def test_shares_follow_variances():
    """Var(3a) = 9 Var(b): nine tenths and one tenth of what is explained."""
    shares = _tuned(lambda t: 3 * t["a"] + t["b"], trials=150).importance()
    assert 0.8 < shares["a"] / (shares["a"] + shares["b"]) < 0.97
    assert sum(shares.values()) <= 1.0 + 1e-9


def test_one_diverged_trial_does_not_hide_the_rest():
    shares = _tuned(lambda t: 1e9 if t.number == 7 else t["a"] ** 2, trials=80).importance()
    assert next(iter(shares)) == "a"
    assert shares["a"] > 0.4
