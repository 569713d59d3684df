"""The same arguments give the same proposals: in another process, with other hash seeds, with more BLAS threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import luthier as lt
from luthier import search
from luthier.keys import Key
from luthier.trial import Status

space = lt.Space(
    lr=lt.Float(1e-5, 1.0, log=True, prior=1e-3),
    width=lt.Int(1, 64, log=True),
    opt=lt.Choice(["sgd", "adam", None], prior="adam"),
    momentum=lt.Float(0.0, 1.0).when(opt="sgd"),
    order=lt.Permutation(["a", "b", "c", "d", "e"]),
    some=lt.Subset(range(8), min=1, max=5).when(opt=("adam", None)),
    where=lambda p: p["width"] * p["lr"] < 30,
)
discrete = lt.Space(order=lt.Permutation(["a", "b", "c", "d"]), some=lt.Subset(["x", "y", "z"]), n=lt.Int(1, 5))

def loss(p):
    return abs(p.get("lr", 0.1) - 0.01) + 0.1 * p["order"].index("c") + 0.05 * len(p.get("some", ()))

source = lt.AskTell(space, algorithm="random", minimize="loss", seed=8)
for _ in range(12):
    trial = source.ask()
    source.tell(trial, loss(trial.params))
for name in ("tpe", *search.names()):  # first one that brings its BLAS along while it thinks
    for where, other in ((space, None), (space, source), (discrete, None)):
        loop = lt.AskTell(where, algorithm=name, minimize="loss", seed=3, warm_start=other)
        waiting = []
        for i in range(14):
            trial = loop.ask()
            print(name, i, trial.params)
            waiting.append(trial)
            if i % 3 == 2:
                loop.tell(waiting.pop(0), failed="no") if i % 2 else loop.tell(waiting.pop(0), loss(trial.params))
            while len(waiting) > 2:
                first = waiting.pop(0)
                loop.tell(first, loss(first.params))
        done = [t for t in loop.trials if t.status is not Status.RUNNING]
        print(name, search.get(name).ask(where, loop.objectives, done, waiting, 2, Key(5, 20)))  # itself, not by a loop
"""


@pytest.mark.slow
def test_proposals_do_not_depend_on_the_process():
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    said = []
    for threads, seed in (("1", "0"), ("4", "77")):
        env = {**free, "PYTHONHASHSEED": seed, **{f"{n}_NUM_THREADS": threads for n in ("OPENBLAS", "OMP", "MKL")}}
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert len(said[0]) > 300
    assert said[0] == said[1]
