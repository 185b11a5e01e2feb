"""A pool of worker processes that outlives the death of its workers.

The pool hands out numbered jobs and yields their results. When a worker dies, whatever the reason, the console says
so, its jobs go to others and a new worker takes its place; a job that goes down with three workers ends the run. A
worker that hangs is killed, and has died then. Workers end with their parent, however it ends.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn, Protocol

from tqdm import tqdm

from utils.commandline import UserError

DEATHS_PER_JOB, STARTS = 3, 10
# Workers are forked from a server process that has done the slow imports once. It runs no threads, and nothing of ours
# but worker_ready.py, so that a fork of it is as safe as a new process.
FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
SLOW_IMPORTS = ["torch", "numba", "worker_ready", "gymnasium.envs.box2d.car_racing", "isal.isal_zlib", "cma", "tqdm"]
LOG_LINES_SHOWN = 8

# A worker gives a sign of life after every `advance`, but no more often than this; seconds, as the numbers below.
SIGN_EVERY = 1.0
# It hangs if it has been silent for ten times as long as any worker was before, and for a minute at least: slow workers
# are not to be killed, and to wait a minute too long costs a minute. Time that it waits for a processor does not count:
# with 1% of one, as beside more important work, a second of its work takes minutes.
PATIENCE, LEAST_PATIENCE = 10, 60.0
START_PATIENCE = 600.0  # until the first `advance` is done: imports, compilation, the first use of a GPU


class Runner(Protocol):
    """Does jobs inside a worker, as many at a time as it likes."""

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do."""

    def submit(self, number: int, job: Any) -> None:
        """Take a job."""

    def advance(self) -> list[tuple[int, Any]]:
        """Do some work, for seconds at most; return the jobs it finished as (number, result). A UserError ends the
        run: no other worker could do better."""


class Pool(Protocol):
    """Does jobs on this machine (WorkerPool) or on many (utils.ray_pool.RayPool)."""

    def __enter__(self) -> "Pool": ...

    def __exit__(self, *exception: object) -> None: ...

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Do all jobs; yield (position in `jobs`, result) as each is finished."""


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    log: Path
    outbox: SimpleQueue  # what is sent to it, in this order, by `postman`
    postman: threading.Thread
    jobs: dict[int, Any] = field(default_factory=dict)  # handed out and not yet finished
    started: bool = False  # it has given its first sign of life
    silence: float = 0.0  # seconds since the last one, as far as there was reason to expect any
    queued: float = 0.0  # seconds that it has waited for a processor so far
    hung: float = 0.0  # after so many seconds of silence it was killed


class WorkerPool:
    """Processes that do jobs.

    make_runner: importable function that makes a worker's Runner inside its process.
    arguments: its arguments, one tuple for every worker.
    capacity: how many jobs a worker holds at a time.
    log_dir: each worker's output goes to worker_<i>.log there.
    """

    def __init__(
        self, make_runner: Callable[..., Runner], arguments: list[tuple], capacity: int, log_dir: Path
    ) -> None:
        self._make_runner = make_runner
        self._arguments = arguments
        self._capacity = capacity
        self._log_dir = log_dir
        log_dir.mkdir(parents=True, exist_ok=True)
        for index in range(len(arguments)):
            (log_dir / f"worker_{index}.log").write_bytes(b"")
        self._longest_silence = 0.0  # of any worker that then gave a sign of life
        self._closed = threading.Event()
        self._workers: list[_Worker] = []
        try:
            for index in range(len(arguments)):
                self._workers.append(self._start(index))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _bury(worker)

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Do all jobs; yield (position in `jobs`, result) as each is finished.

        Raises UserError, with the last lines of the worker's log, if a job goes down with three workers; and that of a
        worker.
        """
        fresh, waiting = enumerate(jobs), deque[tuple[int, Any]]()  # waiting: what a dead worker left behind
        deaths: dict[int, int] = {}
        while True:
            self._hand_out(waiting, fresh)
            if not any(worker.jobs for worker in self._workers):
                return
            ready = wait([worker.connection for worker in self._workers])
            for index, worker in enumerate(self._workers):
                if worker.connection not in ready:
                    continue
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    waiting.extendleft(reversed(worker.jobs.items()))
                    self._replace(index, deaths)
                    continue
                self._hear(worker)
                if isinstance(message, UserError):
                    raise message
                if message is not None:
                    number, result = message
                    del worker.jobs[number]
                    yield number, result

    def _hand_out(self, waiting: deque[tuple[int, Any]], fresh: Iterator[tuple[int, Any]]) -> None:
        """Give jobs to the workers in turn, one each round, so that all get the same share."""
        while free := [worker for worker in self._workers if len(worker.jobs) < self._capacity]:
            for worker in free:
                numbered = waiting.popleft() if waiting else next(fresh, None)
                if numbered is None:
                    return
                number, job = numbered
                if not worker.jobs:
                    worker.silence = 0.0
                worker.jobs[number] = job
                worker.outbox.put(numbered)

    def _hear(self, worker: _Worker) -> None:
        """A worker has given a sign of life."""
        if worker.started:
            self._longest_silence = max(self._longest_silence, worker.silence)
        worker.started, worker.silence = True, 0.0

    def _watch(self) -> None:
        """A thread's life: kill workers that hang. Their connections end by that, also under a `send` or `recv` that
        waits for them, and `run` does the rest."""
        tick = min(SIGN_EVERY, LEAST_PATIENCE / 10)
        before = time.monotonic()
        while not self._closed.wait(tick):
            now = time.monotonic()
            # Time in which this process was stopped, too, says nothing about its workers.
            passed, before = min(now - before, 2 * tick), now
            for worker in list(self._workers):
                with contextlib.suppress(OSError):  # its connection has just been closed
                    queued = _seconds_queued(worker.process.pid)
                    waited, worker.queued = queued - worker.queued, queued
                    # A message that `run` has not read yet is a sign of life.
                    if worker.jobs and not worker.connection.poll():
                        worker.silence += max(0.0, passed - waited)
                        if worker.silence > self._deadline(worker) and not worker.hung:
                            worker.hung = worker.silence
                            worker.process.kill()

    def _deadline(self, worker: _Worker) -> float:
        """The longest silence (s) after which a worker may still be alive."""
        least = LEAST_PATIENCE if worker.started else START_PATIENCE
        return max(least, PATIENCE * self._longest_silence)

    def _start(self, index: int) -> _Worker:
        context: Any = multiprocessing.get_context("forkserver" if FORKSERVER else "spawn")
        context.set_forkserver_preload(SLOW_IMPORTS)
        connection, theirs = context.Pipe()
        log = self._log_dir / f"worker_{index}.log"
        for attempt in range(1, STARTS + 1):
            process = context.Process(target=_work, args=(theirs, log), name=f"worker {index}", daemon=True)
            try:
                _start_process(process)
                break
            except (EOFError, ConnectionError):  # the server was killed just now; the next attempt starts another one
                time.sleep(0.1 * attempt)
                if attempt == STARTS:
                    raise UserError(f"worker {index} cannot be started: the process that forks it dies") from None
        theirs.close()
        outbox: SimpleQueue = SimpleQueue()
        outbox.put((self._make_runner, self._arguments[index]))
        postman = threading.Thread(target=_deliver, args=(connection, outbox), daemon=True)
        postman.start()
        return _Worker(process, connection, log, outbox, postman)

    def _replace(self, index: int, deaths: dict[int, int]) -> None:
        worker = self._workers[index]
        worker.process.join(LEAST_PATIENCE)
        worker.process.kill()  # it has hung up, and hangs in its end
        _bury(worker)
        reason = _describe_exit(worker.process.exitcode)
        if worker.hung:
            reason = f"it hung and was killed: no sign of life for {worker.hung:.0f} s"
        last_lines = worker.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        for number in worker.jobs:
            deaths[number] = deaths.get(number, 0) + 1
            if deaths[number] >= DEATHS_PER_JOB:
                lines = "".join(f"\n    {line}" for line in last_lines)
                raise UserError(
                    f"worker {index} died ({reason}), the third to die with the same job; "
                    f"its log is {worker.log} and ends:{lines or ' (empty)'}"
                )
        last_line = f": {last_lines[-1]}" if last_lines else ""
        tqdm.write(
            f"worker {index} died ({reason}{last_line}); its {len(worker.jobs)} jobs are handed out again "
            f"and a new worker takes its place (log: {worker.log})",
            file=sys.stderr,
        )
        self._workers[index] = self._start(index)


def _deliver(connection: Connection, outbox: SimpleQueue) -> None:
    """A thread's life: send what is in the outbox, until there is None. `run` must not wait until a worker reads: that
    may be waiting until `run` reads its result. If the worker is dead, `run` reads the end of its connection and takes
    its jobs back."""
    with contextlib.suppress(OSError):
        while (message := outbox.get()) is not None:
            connection.send(message)


def _bury(worker: _Worker) -> None:
    """Put away what is left of a worker that was killed."""
    worker.process.join()
    worker.outbox.put(None)
    worker.postman.join()  # nobody reads what it may be sending, so that it fails
    worker.connection.close()


def _seconds_queued(pid: int | None) -> float:
    """How long a process was ready to run and had no processor so far; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def _start_process(process: multiprocessing.process.BaseProcess) -> None:
    """Start a worker. Raises UserError if the temporary folder does not do for it; EOFError or ConnectionError if the
    server that forks it is gone."""
    try:
        if FORKSERVER:
            _start_server()
        process.start()  # waits for the server's imports, which take seconds
    except OSError as error:
        if "AF_UNIX path too long" not in str(error):
            raise
        folder = tempfile.gettempdir()
        raise UserError(
            f"{folder}: too long a name for the sockets of worker processes; put TMPDIR=/tmp in front of the command"
        ) from None


def _start_server() -> None:
    """Start the server that workers are forked from, if it does not run. Ctrl-C reaches the whole process group, but it
    is the parent that ends the workers: a process that is started while a signal is blocked never heeds it, from its
    first instruction, nor do those that it forks."""
    resource_tracker.ensure_running()  # the server needs it; it would unblock the signal
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)  # one that came meanwhile comes now


def _describe_exit(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"{name}, out of memory?" if name == "SIGKILL" else name
    return f"exit status {exitcode}"


def _work(connection: Connection, log: Path) -> None:
    """A worker's life: make a Runner, take jobs, advance them, send results, until the parent hangs up.

    What its Runner is made of comes over the connection, too. Among the arguments of the process it would not fit into
    the pipe that these come through: a parent could then be held up by a worker that is stopped before it has read
    them, and one that is ended meanwhile would leave half of them, with a traceback on the console.
    """
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        make_runner, arguments = connection.recv()
        _serve(connection, make_runner(*arguments))
    except UserError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pool or is gone


def _serve(connection: Connection, runner: Runner) -> NoReturn:
    """Do jobs, with a sign of life (None) now and then. Raises an OSError or EOFError when the parent hangs up."""
    last_sign = 0.0
    while True:
        while not runner.busy or connection.poll():
            runner.submit(*connection.recv())
        for number, result in runner.advance():
            connection.send((number, result))
        if time.monotonic() - last_sign > SIGN_EVERY:
            connection.send(None)
            last_sign = time.monotonic()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
