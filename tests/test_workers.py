"""The pool against real processes that really die."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, assert_one_line_error, launch, run_process, servers_of, wait_until, workers_of
from squares import Echo, Imported, Large, Lengths, Squares

from utils import workers
from utils.commandline import UserError
from utils.workers import WorkerPool

LARGE_WORKERS = """
import sys
from pathlib import Path
from utils import workers
from utils.commandline import run_script
from utils.workers import WorkerPool
workers.SLOW_IMPORTS = ["numba"]  # a moment, in which a signal can come
def main():
    with WorkerPool(len, [("x" * 10_000_000,)] * 2, 4, Path(sys.argv[1])) as pool:
        list(pool.run([1]))
if __name__ == "__main__":
    run_script(main)
"""


VANISHING_PARENT = """
import os
from multiprocessing import forkserver
forkserver.set_forkserver_preload(["worker_ready"])
exit_status, what_to_run = forkserver.connect_to_new_process([])
os.close(what_to_run)
assert forkserver.read_signed(exit_status) > 0, "not a process number"
assert forkserver.read_signed(exit_status) == 1
"""


def squares(folder: Path, jobs: list[int], count: int = 2, accident: str = "", capacity: int = 4) -> list[int]:
    with WorkerPool(Squares, [(folder, accident)] * count, capacity, folder / "tmp") as pool:
        results = dict(pool.run(jobs))
    return [results[number] for number in range(len(jobs))]


def test_a_worker_finds_the_slow_imports_done(tmp_path):
    with WorkerPool(Imported, [(tmp_path,)], 4, tmp_path / "tmp") as pool:
        assert dict(pool.run(["torch", "worker_ready", "numba.np.linalg", "nothing"])) == {
            0: True, 1: True, 2: True, 3: False
        }  # fmt: skip


def test_large_jobs_and_large_results_do_not_wait_for_each_other(tmp_path):
    jobs = [bytes([number]) * 100_000 for number in range(40)]
    results = {}
    with WorkerPool(Echo, [(tmp_path,)], 20, tmp_path / "tmp") as pool:
        # In a thread, because a pool that waits for ever cannot be stopped but by its end.
        thread = threading.Thread(target=lambda: results.update(pool.run(jobs)), daemon=True)
        thread.start()
        thread.join(timeout=60)
        assert results == {number: job * 10 for number, job in enumerate(jobs)}


@pytest.mark.parametrize("count", [1, 3])
def test_all_jobs_are_done_in_their_places(tmp_path, count):
    assert squares(tmp_path, list(range(6)), count) == [0, 1, 4, 9, 16, 25]


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


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(workers, "LEAST_PATIENCE", 2.0)
    monkeypatch.setattr(workers, "START_PATIENCE", 2.0)  # the worker may hang before its first sign of life


@pytest.mark.slow
def test_a_worker_that_was_stopped_is_killed_and_its_jobs_done(impatient, tmp_path, capfd):
    jobs = [1, 88, 2, 3, 4]
    assert squares(tmp_path, jobs) == [job**2 for job in jobs]
    assert "it hung and was killed: no sign of life for" in capfd.readouterr().err


@pytest.mark.slow
def test_a_job_that_never_returns_ends_the_run(impatient, tmp_path):
    with pytest.raises(UserError, match="it hung and was killed.*the third to die with the same job"):
        squares(tmp_path, [1, 99])


@pytest.mark.slow
def test_a_stopped_worker_cannot_block_the_parent_that_sends_to_it(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "START_PATIENCE", 2.0)
    jobs = ["x" * 10_000_000, "y"]
    with WorkerPool(Lengths, [(tmp_path, "stop at the start")], 4, tmp_path / "tmp") as pool:
        assert dict(pool.run(jobs)) == {0: 10**14, 1: 1}


@pytest.mark.slow
def test_a_worker_that_was_stopped_at_its_start_cannot_block_the_parent(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "START_PATIENCE", 2.0)
    with WorkerPool(Large, [(tmp_path, "x" * 10_000_000)], 4, tmp_path / "tmp") as pool:
        os.kill(pool._workers[0].process.pid, signal.SIGSTOP)
        assert dict(pool.run([2, 3])) == {0: 4, 1: 9}


@pytest.mark.parametrize(("moment", "sent"), [(servers_of, signal.SIGINT), (workers_of, signal.SIGTERM)])
def test_a_command_that_is_stopped_while_its_workers_start_ends_in_one_line(moment, sent, tmp_path):
    path = tmp_path / "parent.py"
    path.write_text(LARGE_WORKERS)
    options = {"env": ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, "start_new_session": True}
    process = launch(str(path), tmp_path, **options)
    wait_until(lambda: moment(process.pid))
    os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=60)  # workers, too, have closed it then
    assert process.returncode == 130
    assert errors.strip() == "interrupted; the same command again, but for --noreload, goes on from what is saved"


def test_a_parent_that_ends_before_it_has_said_what_to_run_leaves_no_traceback():
    result = run_process("-c", VANISHING_PARENT)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_slow_workers_are_not_taken_for_hung_ones(tmp_path):
    with WorkerPool(Squares, [(tmp_path,)], 4, tmp_path / "tmp") as pool:
        (worker,) = pool._workers
        assert pool._deadline(worker) == workers.START_PATIENCE
        assert dict(pool.run([3])) == {0: 9}
        assert pool._deadline(worker) == workers.LEAST_PATIENCE
        worker.silence = 40.0  # an episode took so long, and then was done
        pool._hear(worker)
        assert pool._deadline(worker) == 400 and worker.silence == 0


def test_a_mistake_of_the_user_is_told_at_once(tmp_path):
    with pytest.raises(UserError, match="^nothing that another worker could mend$"):
        squares(tmp_path, [1, 2], accident="user")


def test_a_killed_server_costs_nothing(tmp_path):
    """The server that workers are forked from."""
    with WorkerPool(Squares, [(tmp_path,)] * 2, 4, tmp_path / "tmp") as pool:
        assert dict(pool.run([1, 2])) == {0: 1, 1: 4}
        (server,) = servers_of(os.getpid())
        os.kill(server, signal.SIGKILL)
        assert dict(pool.run([3, 7, 5])) == {0: 9, 1: 49, 2: 25}  # 7 takes a worker along


def test_a_temporary_folder_of_a_long_name_is_one_clear_line(tmp_path):
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    path = tmp_path / "parent.py"
    path.write_text(LARGE_WORKERS)
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    assert_one_line_error(run_process(str(path), tmp_path, env=environment), folder, "TMPDIR=/tmp")


def test_no_worker_outlives_a_killed_parent(tmp_path):
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from squares import Squares
from utils import workers
from utils.workers import WorkerPool
workers.SLOW_IMPORTS = []
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
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
