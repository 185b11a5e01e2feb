"""Two commands on one folder: the second is refused, and no lock outlives its process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, assert_one_line_error, run, start, succeed, wait_until, workers_of

from utils.commandline import UserError
from utils.files import UNFINISHED
from utils.locks import HOUR, LOCK, locked

HOLDER = """
import sys, time
from pathlib import Path
from utils.locks import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen:
    """A process that has locked the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    return process


def test_the_second_is_refused_and_a_killed_holder_leaves_no_lock(tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(UserError, match=f"{tmp_path}: process {process.pid} on ") as refused, locked(tmp_path):
            pass
        assert "\n" not in str(refused.value)
    finally:
        process.kill()
        process.wait()
    assert str(process.pid) in (tmp_path / LOCK).read_text()  # stale words, but no lock
    with locked(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} on "), locked(tmp_path):
        pass
    with locked(tmp_path / "another"), locked(tmp_path):
        pass


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path):
    old, new = (tmp_path / "thread_0" / f".rollout_{number}.npz.x{UNFINISHED}" for number in (1, 2))
    old.parent.mkdir()
    for path, age in ((old, 2 * HOUR), (new, 0)):
        path.write_bytes(b"half of it")
        os.utime(path, (time.time() - age,) * 2)
    with locked(tmp_path):
        assert not old.exists() and new.exists()  # somebody may be writing the other one


@pytest.mark.parametrize("stage", ["vae", "mdrnn", "ctrl", "dataset"])
def test_every_stage_refuses_a_second_command(stage, tiny_run, tiny_dataset):
    data = ["--dataset", tiny_dataset]
    script, options, folder = {
        "vae": ("trainvae.py", ["--logdir", tiny_run, *data], tiny_run / "vae"),
        "mdrnn": ("trainmdrnn.py", ["--logdir", tiny_run, *data], tiny_run / "mdrnn"),
        "ctrl": ("traincontroller.py", ["--logdir", tiny_run], tiny_run / "ctrl"),
        "dataset": ("data/generation_script.py", ["--rootdir", tiny_run / "new"], tiny_run / "new"),
    }[stage]
    with locked(folder):
        before = sorted(folder.rglob("*"))
        assert_one_line_error(run(script, *options), folder, f"process {os.getpid()}")
        assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_a_worker_that_outlives_its_parent_holds_no_lock(tmp_path):
    """Stopped, it cannot end with its parent."""
    options = ["--rootdir", tmp_path, "--threads", 1, "--rollouts"]
    with start("data/generation_script.py", *options, 10_000) as process:
        wait_until(lambda: list(tmp_path.glob("thread_*/rollout_0.npz")), seconds=120)
        (worker,) = workers_of(process.pid)
        os.kill(worker, signal.SIGSTOP)
        process.kill()
        process.wait()
        try:
            assert "rollouts" in succeed(run("data/generation_script.py", *options, 1))
        finally:
            os.kill(worker, signal.SIGKILL)
