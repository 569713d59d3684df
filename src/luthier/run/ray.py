"""Trials on a Ray cluster."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import cloudpickle

from luthier.errors import UsageError
from luthier.extras import need
from luthier.run import Desk, Job, Outcome, Work
from luthier.run._live import Broken, evaluate
from luthier.run._pack import pack
from luthier.run._worker import closing, ending, written
from luthier.trial import Report, Status

_LISTEN = 0.1  # seconds that one look into the mailbox takes at most


class Ray:
    """Tasks on a Ray cluster, of one machine or many; the driver stays where it is and alone decides and writes.

    A trial on a node that dies fails with that cause; a study's checkpoints outlive a node if its store
    lies on storage that all nodes share. Results travel as JSON: only jobs are pickled.

    Args:
        work: the objective and how many trials may run at once.
        desk: the driver.
        address: of a running cluster; None: the one that RAY_ADDRESS names, else a new one on this machine.
        cpus: of each trial.
        gpus: of each trial.
        resources: custom resources of each trial.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: the objective cannot travel, or a limit on memory: Ray has its own.

    Example:
        ``executor=functools.partial(Ray, address="auto", gpus=0.5)``
    """

    def __init__(
        self,
        work: Work,
        desk: Desk,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        if work.limits.memory_gb is not None:
            raise UsageError(
                "Ray watches memory itself", expected="Limits(seconds=...)", got=work.limits, fix="leave memory_gb out"
            )
        self._ray: Any = need("ray", "ray", 'executor="ray"')
        self._work = work
        self._desk = desk
        self._jobs: dict[Any, Job] = {}
        self._began: dict[int, float] = {}
        self._late: set[int] = set()
        packed = pack(work)
        self._mine = not self._ray.is_initialized()
        if self._mine:
            self._ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        self._packed = self._ray.put(packed)
        here = self._ray.get_runtime_context().get_node_id()
        beside = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self._box = self._ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=beside).remote()
        wants = {"num_cpus": cpus, "num_gpus": gpus, "resources": dict(resources or {}), "max_retries": 0}
        self._task = self._ray.remote(_serve).options(**wants)

    @property
    def free(self) -> int:
        return self._work.workers - len(self._jobs)

    def submit(self, job: Job) -> None:
        ref = self._task.remote(self._packed, cloudpickle.dumps(job), self._box)
        self._jobs[ref] = job

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._jobs:
            news = self._ray.get(self._box.take.remote(min(_LISTEN, seconds)))
            for number, text in news:
                self._hear(number, text)
            self._stop_late_ones()
            done, _ = self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0)
            for ref in done:
                self._finish(ref)
            if done or time.monotonic() > until:
                return

    def close(self) -> None:
        for ref in self._jobs:
            self._ray.cancel(ref, force=True)
        self._jobs = {}
        if self._mine and self._ray.is_initialized():
            self._ray.shutdown()

    def _hear(self, number: int, text: str | None) -> None:
        if text is None:
            self._began[number] = time.monotonic()
            return
        message = json.loads(text)
        metrics = {name: float.fromhex(value) for name, value in message["metrics"].items()}
        answer = self._desk.reported(number, Report(message["step"], metrics))
        self._box.answer.remote(number, answer)

    def _stop_late_ones(self) -> None:
        allowed = self._work.limits.seconds
        for ref, job in self._jobs.items():
            began = self._began.get(job.number)
            if allowed is not None and began is not None and time.monotonic() - began > allowed:
                self._late.add(job.number)
                self._ray.cancel(ref, force=True)

    def _finish(self, ref: Any) -> None:
        job = self._jobs.pop(ref)
        try:
            outcome = ending(json.loads(self._ray.get(ref)))
        except self._ray.exceptions.RayError as error:
            outcome = Outcome(Status.FAILED, cause=self._cause(job.number, error))
        self._desk.finished(job.number, outcome)

    def _cause(self, number: int, error: Exception) -> str:
        if number in self._late:
            return f"out of time: it ran longer than {self._work.limits.seconds:g} s"
        return f"Ray lost it: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


class _Mailbox:
    """An actor beside the driver, where trials leave their reports and wait for the answer."""

    def __init__(self) -> None:
        self._news: list[tuple[int, str | None]] = []
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._any = asyncio.Event()

    async def begin(self, number: int) -> None:
        self._put(number, None)

    async def report(self, number: int, text: str) -> str | None:
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._put(number, text)
        return await self._asked[number]

    async def take(self, seconds: float) -> list[tuple[int, str | None]]:
        try:
            await asyncio.wait_for(self._any.wait(), seconds)
        except TimeoutError:
            return []
        news, self._news = self._news, []
        self._any.clear()
        return news

    async def answer(self, number: int, reason: str | None) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None and not asked.done():
            asked.set_result(reason)

    def _put(self, number: int, text: str | None) -> None:
        self._news.append((number, text))
        self._any.set()


def _serve(packed: bytes, job_bytes: bytes, box: Any) -> str:
    """One trial, on whatever node Ray chose."""
    ray: Any = importlib.import_module("ray")
    objective, objectives = cloudpickle.loads(packed)
    job: Job = cloudpickle.loads(job_bytes)
    box.begin.remote(job.number)

    def tell(report: Report) -> str | None:
        text = json.dumps({"step": report.step, "metrics": written(report.metrics)})
        try:
            answer: str | None = ray.get(box.report.remote(job.number, text))
        except ray.exceptions.RayError as error:
            raise Broken from error
        return answer

    outcome = evaluate(objective, objectives, job, tell)
    return json.dumps(closing(outcome))


METHOD = Ray
