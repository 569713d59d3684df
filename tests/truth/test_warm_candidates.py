"""Candidates of the Parzen search, when another study warms it up, stand in the order of their own totals."""

from __future__ import annotations

import numpy as np

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search import _memory, tpe
from luthier.search._experience import Experience
from luthier.search._warm import with_experience
from luthier.space import Choice, Float, Permutation, Space
from luthier.study import tune
from luthier.trial import Status, Trial


def test_the_best_of_each_column_counts_for_what_it_is(monkeypatch):
    plain = Space(**{f"c{i}": Choice(list("abcdefgh")) for i in range(6)}, o=Permutation(list("abcd")), x=Float(0, 1))

    def loss(p) -> float:
        return p["x"] + sum(p[f"c{i}"] != "c" for i in range(6)) + p["o"].index("a")

    source = tune(loss, plain, minimize="loss", algorithm="random", trials=12, progress=False)
    space = with_experience(plain, source)
    memory = _memory.recall(None, space, Objectives.of(minimize="loss"))
    drawn = [space.draw(Key(1, n).generator("history")) for n in range(40)]
    history = [Trial(n, p, Status.COMPLETE, {"loss": loss(p)}, (), None, 0.0, 1.0) for n, p in enumerate(drawn)]
    good, bad = tpe.TPE()._split(memory, history, [])
    seen, real = [], tpe.log_ratio
    monkeypatch.setattr(tpe, "log_ratio", lambda *a: seen.append((a[2], real(*a))) or seen[-1][1])
    monkeypatch.setattr(Experience, "bonus", lambda *_: 0.0)
    for number in range(20):
        found = tpe.TPE()._candidates(memory.belief, good, bad, Key(3, number).generator("tpe"))
        snapped, ratio = seen[-1]
        rows, _ = memory.encoding.snap(found)
        same = rows[:, None, :] == snapped[None]
        order = memory.encoding.blocks[0].place
        same[:, :, order] = same[:, :, order].all(2, keepdims=True)  # an order is one value in several columns
        at = same.argmax(1)
        totals = ratio[at, np.arange(rows.shape[1])].sum(1)
        assert (np.diff(totals) <= 1e-9).all()
