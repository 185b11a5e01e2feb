"""The pool against real processes that really die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.commandline import UserError
from utils.workers import WorkerPool


class Squares:
    """A Runner that squares numbers, and has the accidents it is asked to have."""

    def __init__(self, folder: Path, accident: str = ""):
        self._folder = folder
        self._jobs: list[tuple[int, int]] = []
        if accident == "start":
            raise RuntimeError("no luck at the start")

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def submit(self, number: int, job: int) -> None:
        self._jobs.append((number, job))

    def advance(self) -> list[tuple[int, int]]:
        number, job = self._jobs.pop(0)
        once = self._folder / f"once_{job}"
        if job == 7 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if job == 11 and not once.exists():
            once.touch()
            raise ValueError("eleven is too much")
        if job == 666:
            raise ValueError("always too much")
        return [(number, job**2)]


def squares(folder: Path, jobs: list[int], workers: int = 2, accident: str = "", capacity: int = 4) -> list[int]:
    with WorkerPool(Squares, [(folder, accident)] * workers, capacity, folder / "tmp") as pool:
        results = dict(pool.run(jobs))
    return [results[number] for number in range(len(jobs))]


@pytest.mark.parametrize("workers", [1, 3])
def test_all_jobs_are_done_in_their_places(tmp_path, workers):
    assert squares(tmp_path, list(range(6)), workers) == [0, 1, 4, 9, 16, 25]


def test_dead_workers_are_replaced_and_their_jobs_done(tmp_path, capfd):
    jobs = list(range(20))
    assert squares(tmp_path, jobs) == [job**2 for job in jobs]
    console = capfd.readouterr().err
    assert "SIGKILL, out of memory?" in console
    assert "ValueError: eleven is too much" in console
    assert str(tmp_path / "tmp" / "worker_") in console
    assert console.count("a new worker takes its place") == 2


def test_a_job_that_kills_every_worker_ends_the_run(tmp_path):
    with pytest.raises(UserError, match="always too much") as error:
        squares(tmp_path, [1, 2, 666, 4])
    assert "worker_" in str(error.value)


def test_workers_that_cannot_start_end_the_run_within_seconds(tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError, match="no luck at the start"):
        squares(tmp_path, [1, 2], accident="start")
    assert time.monotonic() - start < 60


def test_no_worker_outlives_a_killed_parent(tmp_path):
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_workers import Squares
from utils.workers import WorkerPool
if __name__ == "__main__":
    folder = Path({str(tmp_path)!r})
    with WorkerPool(Squares, [(folder,)] * 2, 4, folder / "tmp") as pool:
        assert len(list(pool.run([1, 2]))) == 2
        print(*(worker.process.pid for worker in pool._workers), flush=True)
        time.sleep(600)
"""
    path = tmp_path / "parent.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(alive(pid) for pid in workers)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
