"""The pool of utils/workers.py over the machines of a Ray cluster: the same jobs, the same Runners, the same results.

Every core has an actor, which is a process of Ray's with one Runner in it. It gets the Runner's arguments, V's and M's
weights among them, once, through Ray's object store; then it is called with a few jobs at a time. Actors follow the
machines: those of one that joins are started, the jobs of one that leaves are handed out again. So a job may be done
twice, with the same result, which its seed decides. docs/SCALING.md tells how to start a cluster.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from utils.commandline import UserError
from utils.provenance import differences, identity
from utils.workers import DEATHS_PER_JOB, START_PATIENCE, Runner

LOOK_EVERY = 5  # seconds: for machines that have joined
PATIENCE = 30  # seconds without a core to work on before that is said
SIGN_EVERY = 5  # seconds: an actor that works answers at least that often
# An actor hangs if it takes ten times as long as any answer did before, and a minute at least; its first answer may
# take as long as a worker's.
TIMES_AS_LONG, LEAST_PATIENCE = 10, 60
MOST_STARTS = 24  # of an actor without success: two minutes, in which Ray finds out if its machine is gone


class RemoteRunner:
    """What an actor is: a Runner that is given jobs, and asked for results, by calls."""

    _runner: Runner | None = None

    def start(self, parts: tuple[Callable[..., Runner], tuple]) -> dict[str, str | None]:
        """Make the Runner; returns the identity of the machine. Called anew whenever the process has."""
        make_runner, arguments = parts
        self._runner = make_runner(*arguments)
        return identity()

    def work(self, jobs: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """Take numbered jobs and work until one is finished, of these or of earlier ones, or some seconds have passed;
        returns (number, result) of what is finished."""
        until = time.monotonic() + SIGN_EVERY
        assert self._runner is not None, "its process had died and was started again"
        for number, job in jobs:
            self._runner.submit(number, job)
        finished: list[tuple[int, Any]] = []
        while self._runner.busy and not finished and time.monotonic() < until:
            finished = self._runner.advance()
        return finished


@dataclass(eq=False)
class _Actor:
    handle: Any  # of a RemoteRunner
    node: str  # the id of its machine
    address: str  # of its machine
    call: Any  # the one call that it has not answered, an ObjectRef; None if there is none
    called: float = field(default_factory=time.monotonic)  # when
    ready: bool = False  # it runs, and its machine is as this one; until then it gets no jobs
    worked: bool = False  # its process has answered a call with jobs, so that nothing is left to be compiled
    jobs: dict[int, Any] = field(default_factory=dict)  # handed out and not yet finished
    fresh: list[tuple[int, Any]] = field(default_factory=list)  # of these, what its next call brings
    lost: list[int] = field(default_factory=list)  # the jobs that its last process died with
    starts: int = 0  # how often it was asked to start and was not there


class RayPool:
    """Actors that do jobs.

    make_runner, capacity: as in WorkerPool (utils/workers.py).
    arguments: make_runner's, the same for all.
    most: how many actors there are at most; up to that one for every core of the cluster, however it grows.
    share: the part of its core that an actor asks for; less than 1 where another pool has actors on the same cores.
    on_gpu: whether actors need a GPU; those of a machine share its GPUs.
    """

    def __init__(
        self, make_runner: Callable[..., Runner], arguments: tuple, capacity: int, most: int, share: float, on_gpu: bool
    ) -> None:
        self._parts = ray.put((make_runner, arguments))
        self._capacity = capacity
        self._most = most
        self._share = share
        self._on_gpu = on_gpu
        self._actors: list[_Actor] = []
        self._refused: dict[str, str] = {}  # machines that cannot work, and why
        self._identity = identity()
        self._differing: set[str] = set()  # machines with another processor
        self._longest = 0.0  # seconds that an answer has taken
        self._looked = self._worked = time.monotonic()
        self._follow_nodes()

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *exception: object) -> None:
        for actor in self._actors:
            ray.kill(actor.handle)

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Do all jobs; yield (position in `jobs`, result) as each is finished. Waits while there is no machine.

        Raises UserError if a job goes down with three actors whose machines live on, or if no machine can work.
        """
        upcoming, waiting = enumerate(jobs), deque[tuple[int, Any]]()  # waiting: what dead actors left behind
        deaths: dict[int, int] = {}
        for actor in self._actors:
            actor.lost = []  # of an earlier run
        while True:
            if not waiting:
                waiting.extend(islice(upcoming, 1))  # so that it is empty when there is nothing left
            if not waiting and not any(actor.jobs for actor in self._actors):
                return
            self._deal(waiting, upcoming)
            self._call()
            for actor in self._answers():
                call, actor.call = actor.call, None
                try:
                    answer = ray.get(call)
                except RayError as error:
                    waiting.extendleft(reversed(actor.jobs.items()))
                    self._bury(actor, error)
                    continue
                if not actor.ready:
                    self._welcome(actor, answer, deaths)
                    continue
                if actor.worked:
                    self._longest = max(self._longest, time.monotonic() - actor.called)
                actor.worked = True
                for number, result in answer:
                    del actor.jobs[number]
                    yield number, result
            if time.monotonic() - self._looked > LOOK_EVERY:
                self._follow_nodes()
                self._kill_hung()

    def _deal(self, waiting: deque[tuple[int, Any]], upcoming: Iterator[tuple[int, Any]]) -> None:
        """Give jobs to the actors in turn, one each round, so that all get the same share."""
        idle = [actor for actor in self._actors if actor.ready and actor.call is None]
        while free := [actor for actor in idle if len(actor.jobs) < self._capacity]:
            for actor in free:
                numbered = waiting.popleft() if waiting else next(upcoming, None)
                if numbered is None:
                    return
                actor.jobs[numbered[0]] = numbered[1]
                actor.fresh.append(numbered)

    def _call(self) -> None:
        """Have the actors that have jobs work on."""
        for actor in self._actors:
            if actor.jobs and actor.call is None:
                actor.call, actor.called, actor.fresh = actor.handle.work.remote(actor.fresh), time.monotonic(), []

    def _answers(self) -> list[_Actor]:
        """Wait until an actor answers, for some seconds at most; returns all that have."""
        calls = {actor.call: actor for actor in self._actors if actor.call is not None}
        if not calls:
            time.sleep(1)
            return []
        answered, _ = ray.wait(list(calls), timeout=LOOK_EVERY)
        if answered:
            answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [calls[call] for call in answered]

    def _kill_hung(self) -> None:
        """Ray starts again what is killed here, as if it had died."""
        patience = max(LEAST_PATIENCE, TIMES_AS_LONG * self._longest)
        for actor in self._actors:
            silence = time.monotonic() - actor.called
            if actor.ready and actor.call is not None and silence > (patience if actor.worked else START_PATIENCE):
                tqdm.write(f"an actor on node {actor.address} hangs: no answer for {silence:.0f} s", file=sys.stderr)
                ray.kill(actor.handle, no_restart=False)

    def _follow_nodes(self) -> None:
        """Start actors on machines that have more cores than actors. Raises UserError if no machine can work."""
        self._looked = time.monotonic()
        nodes = working_nodes(self._on_gpu)
        if nodes and all(node["NodeID"] in self._refused for node in nodes):
            raise UserError(next(iter(self._refused.values())))
        for actor in self._actors:
            if actor.call is None and not actor.ready:
                actor.call = actor.handle.start.remote(self._parts)
        for node in nodes:
            if node["NodeID"] not in self._refused:
                wanted = cores_of(node) - sum(actor.node == node["NodeID"] for actor in self._actors)
                wanted = min(wanted, self._most - len(self._actors))
                self._actors += [self._start(node) for _ in range(wanted)]
        if any(actor.ready for actor in self._actors):
            self._worked = self._looked
        elif self._looked - self._worked > PATIENCE:
            self._worked = self._looked
            tqdm.write(
                "waiting for a machine of the cluster; ray status tells whether there is one with a free core",
                file=sys.stderr,
            )

    def _start(self, node: dict[str, Any]) -> _Actor:
        gpus = self._share * node["Resources"]["GPU"] / cores_of(node) if self._on_gpu else 0
        actor_class: Any = ray.remote(RemoteRunner)
        handle = actor_class.options(
            num_cpus=self._share,
            num_gpus=min(int(gpus * 10_000) / 10_000, 1),  # Ray counts in ten-thousandths
            max_restarts=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        return _Actor(handle, node["NodeID"], node["NodeManagerAddress"], handle.start.remote(self._parts))

    def _welcome(self, actor: _Actor, theirs: dict[str, str | None], deaths: dict[int, int]) -> None:
        """An actor runs, for the first time or again. If again, then its machine was not the reason why it died."""
        for number in actor.lost:
            deaths[number] = deaths.get(number, 0) + 1
            if deaths[number] >= DEATHS_PER_JOB:
                raise UserError(
                    f"three actors died with the same job, the last on node {actor.address}; what they printed is "
                    "there, in session_latest/logs in Ray's folder of temporary files"
                )
        actor.lost = []
        other = differences({"processor": self._identity["processor"]}, theirs)
        if reason := differences(self._identity, theirs | {"processor": self._identity["processor"]}):
            ray.kill(actor.handle)
            self._refuse(actor, reason)
            return
        if other and actor.node not in self._differing:
            self._differing.add(actor.node)
            tqdm.write(f"node {actor.address}: {other}: its results may differ in the last digits", file=sys.stderr)
        actor.ready, actor.starts = True, 0

    def _bury(self, actor: _Actor, error: RayError) -> None:
        """An actor's process has died, its Runner has failed, or its machine is gone. Raises the Runner's UserError."""
        if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
            raise error.cause
        runner_failed = isinstance(error, RayTaskError)
        reason = _last_line(error) if runner_failed else "its process or its machine is gone"
        actor.starts += 1
        if actor.ready:
            lost = f"its {len(actor.jobs)} jobs are handed out again"
            tqdm.write(f"an actor on node {actor.address} died ({reason}); {lost}", file=sys.stderr)
            actor.ready = actor.worked = False
            actor.lost, actor.jobs, actor.fresh = list(actor.jobs), {}, []
            if runner_failed:
                ray.kill(actor.handle, no_restart=False)  # its process lives, but its Runner has to begin anew
        elif runner_failed or (isinstance(error, RayActorError) and error.actor_init_failed):
            self._refuse(actor, _last_line(error))
        elif not isinstance(error, ActorUnavailableError):  # Ray has given it up
            self._actors.remove(actor)
            if not any(other.node == actor.node for other in self._actors):
                tqdm.write(f"node {actor.address} has left", file=sys.stderr)
        elif actor.starts > MOST_STARTS:
            ray.kill(actor.handle)
            self._refuse(actor, "its processes die when they start")

    def _refuse(self, actor: _Actor, reason: str) -> None:
        """Do without a machine."""
        self._actors.remove(actor)
        if actor.node not in self._refused:
            self._refused[actor.node] = f"node {actor.address} cannot work: {reason}; see docs/SCALING.md, Code"
            tqdm.write(self._refused[actor.node], file=sys.stderr)


def _last_line(error: RayError) -> str:
    return str(error).strip().splitlines()[-1].strip()


def cores_of(node: dict[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0))


def working_nodes(on_gpu: bool = False) -> list[dict[str, Any]]:
    """The machines that are there and have cores, and GPUs if these are asked for, as ray.nodes() describes them."""
    needed = ("CPU", "GPU") if on_gpu else ("CPU",)
    return [node for node in ray.nodes() if node["Alive"] and all(node["Resources"].get(name) for name in needed)]
