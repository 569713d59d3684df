"""Algorithms think with one BLAS thread, and objectives get theirs back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy, scipy.linalg
import luthier as lt
from threadpoolctl import threadpool_info

def threads():
    return max(row["num_threads"] for row in threadpool_info() if row["user_api"] == "blas")

class Spy:
    def ask(self, space, objectives, history, pending, n, key):
        asked.append(threads())
        return [space.draw(key.generator("spy"))]

asked, evaluated = [], []
space = lt.Space(x=lt.Float(0, 1))
objective = lambda t: evaluated.append(threads()) or 1.0
study = lt.tune(objective, space, minimize="l", algorithm=Spy(), trials=3, progress=False)
study.replay(algorithm=Spy())
loop = lt.AskTell(space, minimize="l", algorithm=Spy())
loop.tell(loop.ask(), 1.0)
print(set(asked), len(asked), set(evaluated), threads())
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: there is nothing to limit")
def test_proposals_are_made_with_one_thread_and_trials_with_all():
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    env = {**free, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "{1} 7 {2} 2", done.stderr
