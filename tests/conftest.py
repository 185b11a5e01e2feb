"""What the tests of several scripts share: running a script as a user would, and small data made by the real ones."""

import contextlib
import fcntl
import functools
import importlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from short_carracing import RUN_SHORT, SHORT_CARRACING

from data.loaders import find_rollouts, load_rollout
from data.rollouts import Rollout, pack_rollout, save_rollout
from envs.games import CARRACING, GAMES, Game
from models.mdrnn import MDRNN
from models.vae import VAE
from utils.checkpoints import save_checkpoint
from utils.commandline import run_script
from utils.precision import fast_dtype
from utils.rollouts import Episode, EpisodeRunner, Outcome
from utils.run_folder import load_world_weights
from utils.workers import Runner

ROOT = Path(__file__).parent.parent
# One thread a process: with more, results depend on the machine, and processes that share cores slow each other down.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
torch.set_num_threads(1)
# In which V and M may compute here: a processor that gains nothing by half precision never drives or dreams in it.
DTYPES = list(dict.fromkeys([torch.float32, fast_dtype(torch.device("cpu"))]))


def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script of the project, or with -m a module, to its end in this process, which saves the seconds that
    imports take; returns its status and what it printed. It takes the machine for one with a single core: few episodes
    cost a worker as much as sixteen, see models.world_model."""
    if script == "-m":
        script, arguments = str(arguments[0]), arguments[1:]
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    words = [str(word) for word in arguments]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    status = 0
    with (
        mock.patch("os.sched_getaffinity", return_value={0}),
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        try:
            run_script(functools.partial(module.main, words))
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess([script, *words], status, output.getvalue(), errors.getvalue())


def run_process(script: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """The same in a process of its own, for what a process is needed for."""
    command = [sys.executable, script, *map(str, arguments)]
    settings = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run(command, **settings | options)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """In this block no file may grow larger than so many bytes: a write then fails in its midst, as on a full disk.
    The server that workers are forked from should run before: it would keep the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def heed_ctrl_c() -> None:
    """For a new process: not to inherit that SIGINT is ignored, as it is when the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def launch(script: str, *arguments: object, **options) -> subprocess.Popen:
    """Start a script of the project in the background."""
    command = [sys.executable, script, *map(str, arguments)]
    settings = {"cwd": ROOT, "env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{"preexec_fn": heed_ctrl_c} | settings | options)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a script: children of the server that forks them."""
    return [worker for server in servers_of(pid) for worker in children_of(server)]


def servers_of(pid: int) -> list[int]:
    return [child for child in children_of(pid) if b"forkserver" in about(child, "cmdline")]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in about(pid, f"task/{pid}/children").split()]


def about(pid: int, what: str) -> bytes:
    """What the system says about a process; nothing, if it has just ended."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def launch_short(script: str, *arguments: object, **options) -> subprocess.Popen:
    """The same, with short episodes of CarRacing."""
    return launch("-c", RUN_SHORT, script, *arguments, **options)


@contextmanager
def start(script: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """Start a script of the project; it is ended with the block if it still runs then."""
    process = launch(script, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds; fails if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextmanager
def a_worker_killed_when(condition: Callable[[], object]) -> Iterator[None]:
    """In this block a worker of this process is killed, once the condition holds."""

    def kill() -> None:
        wait_until(condition)
        os.kill(workers_of(os.getpid())[0], signal.SIGKILL)

    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill)
        yield
        killing.result()


def succeed(result: subprocess.CompletedProcess) -> str:
    """The output of a script that ended well."""
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def assert_one_line_error(result: subprocess.CompletedProcess, *parts: object) -> None:
    """The contract's answer to a user's mistake: status 1, one line, and these parts in it."""
    assert result.returncode == 1, result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and result.stderr.rstrip().endswith(lines[0]), result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert str(part) in lines[0]


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name, which `make` makes once for all processes that the tests run in; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # this process's own lies in the one of all
    folder, done = base / name, base / f"{name}.made"
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def generated(tmp_path_factory) -> Path:
    """Four rollouts as the generation script makes them; not to be changed."""

    def make(folder: Path) -> None:
        succeed(run("data/generation_script.py", "--rollouts", 4, "--rootdir", folder, "--threads", 2))

    return made_once(tmp_path_factory, "generated", make)


@pytest.fixture(scope="session")
def tiny_dataset(generated, tmp_path_factory) -> Path:
    """The first seconds of four real rollouts, of different lengths; not to be changed."""

    def make(folder: Path) -> None:
        for path, length in zip(find_rollouts(generated), (110, 20, 60, 120), strict=True):
            arrays = load_rollout(path, Rollout._fields)
            rollout = Rollout(*(array[:length] for array in arrays))
            save_rollout(folder / "thread_0" / path.name, pack_rollout(rollout))

    return made_once(tmp_path_factory, "tiny", make)


@pytest.fixture(scope="session")
def trained(tiny_dataset, tmp_path_factory) -> Path:
    """A run folder with V and M after one epoch; not to be changed."""

    def make(folder: Path) -> None:
        for script in ("trainvae.py", "trainmdrnn.py"):
            succeed(run(script, "--logdir", folder, "--dataset", tiny_dataset, "--epochs", 1))

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture(scope="session")
def dreamer(trained, tiny_dataset, tmp_path_factory) -> Path:
    """A run folder with V, and M that has learned rewards; not to be changed."""

    def make(folder: Path) -> None:
        shutil.copytree(trained / "vae", folder / "vae")
        options = ["--include_reward", "--epochs", 3, "--nosamples"]
        succeed(run("trainmdrnn.py", "--logdir", folder, "--dataset", tiny_dataset, *options))
        # After so few steps of training M does not know yet that ends are rare.
        state = torch.load(folder / "mdrnn" / "best.tar", weights_only=True)
        state["state_dict"]["gmm_linear.bias"][-1] = -9
        save_checkpoint(folder / "mdrnn" / "best.tar", state)

    return made_once(tmp_path_factory, "dreamer", make)


@pytest.fixture
def tiny_run(trained, tmp_path) -> Path:
    """A copy of `trained` that the test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def short_episodes(monkeypatch) -> None:
    """Scripts that are run in this process take CarRacing for a game with short episodes."""
    monkeypatch.setitem(GAMES, CARRACING.name, SHORT_CARRACING)


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory) -> Path:
    """A run folder with V and M as they are born, for tests to which it does not matter how well they see; not to be
    changed."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    save_checkpoint(folder / "vae" / "best.tar", {"state_dict": VAE().state_dict()})
    save_checkpoint(folder / "mdrnn" / "best.tar", {"state_dict": MDRNN().state_dict()})
    return folder


def fitness(candidates: np.ndarray) -> np.ndarray:
    """What the searches are tried on: the nearer to 0.3 everywhere, the better."""
    return -np.square(candidates - 0.3).sum(axis=1)


def evolve(evolution, generations: int):
    """The search after so many generations more."""
    for _ in range(generations):
        evolution.tell(fitness(evolution.ask()))
    return evolution


def episode_runner(
    logdir: Path, sizes=CARRACING.sizes, environments: int = 16, dtype=torch.float32, game: Game = CARRACING
) -> EpisodeRunner:
    """The drive loop with V and M of a run folder, in the fast environment."""
    return EpisodeRunner(game, "fast", load_world_weights(logdir, sizes), environments, "cpu", dtype)


def drive_all(runner: Runner, episodes: list[Episode]) -> list[Outcome]:
    """The outcomes of the episodes, in their order."""
    for number, episode in enumerate(episodes):
        runner.submit(number, episode)
    outcomes = {}
    while runner.busy:
        outcomes.update(runner.advance())
    return [outcomes[number] for number in range(len(episodes))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a process with nothing left to do then waits seconds for the other, not minutes."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
