"""The bound on the time that proposing takes: what degrades, when, and that it is said and can be replayed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import luthier as lt
from luthier.errors import UsageError
from luthier.keys import Key
from luthier.progress import Shown
from luthier.search._cheaper import ladder
from luthier.study import governor
from luthier.study.governor import Bound, Governor

SPACE = lt.Space(x=lt.Float(-1, 1))


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(governor, "time", made)
    return made


class Thinker:
    """Proposals that cost so many seconds, and what comes after them."""

    def __init__(self, clock: Clock, seconds: float, after: Thinker | None = None) -> None:
        self.clock, self.seconds, self.after = clock, seconds, after

    def cheaper(self) -> Thinker | None:
        return self.after

    def ask(self, space, objectives, history, pending, n, key):
        self.clock.now += self.seconds
        return [space.draw(key.generator("test"))]


def course(clock: Clock, algorithm, bound: Bound | None, trial: float, proposals: int) -> tuple[list, list, float]:
    """Levels, words, and the share that proposing took, with trials of so many seconds."""
    words: list[str] = []
    made = Governor(algorithm, bound, words.append)
    levels, spent, began = [], 0.0, clock.now
    for number in range(proposals):
        before = clock.now
        levels.append(made.ask(number, lambda a, n=number: a.ask(SPACE, None, [], [], 1, Key(0, n)))[1])
        spent += clock.now - before
        clock.now += trial
    return levels, words, spent / (clock.now - began)


def test_a_share_that_was_asked_for_holds(clock):
    slow = Thinker(clock, 1.0, Thinker(clock, 0.3, Thinker(clock, 0.001)))
    levels, words, share = course(clock, slow, Bound.of(0.1, False), 0.5, 200)
    assert levels == sorted(levels)
    assert levels[-1] == 2
    assert share < 0.1
    assert len(words) == 2
    assert "proposing took 7" in words[0]
    assert "from trial 5 on, Thinker proposes" in words[0]


def test_cheap_proposals_are_left_alone_unless_a_share_was_asked_for(clock):
    assert course(clock, Thinker(clock, 0.05), Bound.of("auto", False), 0.0, 900)[1] == []  # below half a second each
    assert course(clock, Thinker(clock, 0.6), Bound.of("auto", False), 0.0, 90)[1] == []  # less than a minute in all
    assert course(clock, Thinker(clock, 5.0), Bound.of("auto", False), 60.0, 90)[1] == []  # less than a tenth
    assert course(clock, Thinker(clock, 9.0), None, 0.0, 90)[1] == []
    levels, words, _ = course(clock, Thinker(clock, 5.0, Thinker(clock, 0.1)), Bound.of("auto", False), 5.0, 30)
    assert levels == [0] * 13 + [1] * 17  # a minute of proposing, then one more
    assert len(words) == 1


def test_where_nothing_is_cheaper_it_is_said_once(clock):
    _, words, _ = course(clock, Thinker(clock, 5.0), Bound.of(0.1, False), 1.0, 50)
    assert len(words) == 1
    assert "nothing cheaper is known" in words[0]


@pytest.mark.parametrize("algorithm", ["bayes", "auto"])
def test_a_real_search_degrades_in_named_steps_and_can_be_replayed(tmp_path, algorithm):
    text = io.StringIO()
    study = lt.tune(
        lambda t: t["x"] ** 2,
        lt.Space(x=lt.Float(-1, 1), y=lt.Float(-1, 1), kind=lt.Choice(["a", "b", "c"])),
        minimize="loss",
        algorithm=algorithm,
        trials=150,
        overhead=0.01,
        progress=Shown(Console(file=text, width=500)),
        store=tmp_path / "s.db",
        name="n",
    )
    levels = [study.views[n].level for n in range(150)]
    assert levels == sorted(levels)
    assert levels[-1] >= 1
    assert "of the time" in text.getvalue()
    assert "fewer candidates" in text.getvalue()
    assert lt.load_study(tmp_path / "s.db").replay() == []


def test_ladders_end_with_random_search():
    for name, steps in (("bayes", 4), ("auto", 4), ("tpe", 2), ("random", 1), ("cmaes", 1)):
        made = ladder(lt.search.get(name))
        assert len(made) == steps
        assert steps == 1 or type(made[-1][1]).__name__ == "Random"


def test_what_cannot_be_read_is_refused():
    for bad in (0, 1.5, -1, "lots", True):
        with pytest.raises(UsageError, match="overhead"):
            lt.tune(lambda t: 1.0, SPACE, minimize="l", trials=1, overhead=bad, progress=False)
    with pytest.raises(UsageError, match="deterministic"):
        lt.tune(lambda t: 1.0, SPACE, minimize="l", trials=1, overhead=0.1, deterministic=True, progress=False)
    assert Bound.of("auto", True) is None
