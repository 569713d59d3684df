"""The Ray executor on Ray's own simulated cluster; skipped where Ray is not installed."""

from __future__ import annotations

import functools
import os
import time

import pytest

import luthier as lt
from luthier.errors import UsageError
from luthier.trial import Status

ray = pytest.importorskip("ray", reason="the Ray executor is not tested: the package ray is not installed")

SPACE = lt.Space(x=lt.Float(-1, 1))


def tuned(objective, **options):
    defaults = {"minimize": "loss", "algorithm": "random", "progress": False, "executor": "ray"}
    return lt.tune(objective, SPACE, **{**defaults, **options})


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_trials_report_stop_fail_and_break_limits(cluster):
    def objective(trial):
        match trial.number:
            case 1:
                raise ValueError("bad luck")
            case 2:
                os.kill(os.getpid(), 9)
            case 3:
                return lambda: 3
            case 4:
                time.sleep(600)
        for step in range(1, 4):
            trial.report(step, loss=99.0 if trial.number == 7 else trial["x"] ** 2)
        return trial["x"] ** 2

    rule = lt.stop.Median(min_trials=2)
    study = tuned(objective, trials=8, workers=2, stop=rule, limits=lt.Limits(seconds=3))
    signs = {1: "ValueError: bad luck", 2: "Ray lost it", 3: "not a result", 4: "out of time", 7: "median"}
    for number, sign in signs.items():
        assert sign in study.trials[number].cause
    whole = [study.trials[n] for n in (0, 5)]
    assert all(t.status is Status.COMPLETE and len(t.reports) == 3 for t in whole)


def test_the_same_trials_as_without_ray(cluster):
    def objective(trial):
        trial.report(1, loss=trial["x"])
        return trial["x"] ** 2

    facts = [
        [(t.params, t.metrics, t.reports) for t in tuned(objective, trials=8, deterministic=True, **how).trials]
        for how in ({"workers": 2}, {"executor": "inline"})
    ]
    assert facts[0] == facts[1]


@pytest.mark.slow
def test_a_node_that_dies_costs_its_trials_only_and_the_study_goes_on_without_ray(cluster, tmp_path):
    from luthier.run.ray import Ray

    node = cluster.add_node(num_cpus=2, resources={"far": 2})
    cluster.wait_for_nodes()
    started = tmp_path / "started"

    def objective(trial):
        started.touch()
        time.sleep(0.2)
        return trial["x"] ** 2

    def watch(study, trial):
        if trial.number == 3:
            cluster.remove_node(node)
            cluster.add_node(num_cpus=2, resources={"far": 2})

    far = functools.partial(Ray, resources={"far": 1})
    options = {"store": tmp_path / "s.db", "name": "n"}
    study = tuned(objective, trials=12, workers=2, executor=far, callbacks=[watch], **options)
    assert [t.number for t in study.trials] == list(range(12))
    lost = [t for t in study.trials if t.status is Status.FAILED]
    assert all("Ray lost it" in t.cause for t in lost)
    assert len(lost) <= 2
    study = tuned(objective, trials=15, executor="inline", **options)
    assert {t.status for t in study.trials[12:]} == {Status.COMPLETE}


def test_a_limit_on_memory_is_left_to_ray(cluster):
    with pytest.raises(UsageError, match="Ray watches memory"):
        tuned(lambda t: 1.0, trials=1, limits=lt.Limits(memory_gb=1))
