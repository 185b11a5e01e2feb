"""--ray against a real cluster: two nodes on this machine, which are killed, and others that join.

The long form, with the real game and minutes of it, is tests/ray_chaos.py.
"""

import json
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import assert_one_line_error, run, succeed
from squares import Squares
from toy_game import TOY

from envs.games import GAMES
from models.controller import Controller
from models.mdrnn import MDRNN
from models.vae import VAE
from utils import ray_cluster
from utils.checkpoints import save_checkpoint
from utils.commandline import UserError
from utils.ray_cluster import open_cluster

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
from ray.cluster_utils import Cluster  # noqa: E402
from ray.experimental import internal_kv  # noqa: E402
from ray_chaos import NODE, kill_node  # noqa: E402

from utils import ray_pool  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """A head and another node, of one core each."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        # The path of a socket has 107 characters at most, too few for pytest's folders.
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the actors find the toy game
        # Ray looks for a dead node every three seconds, five times.
        patch.setenv("RAY_health_check_period_ms", "500")
        patch.setenv("RAY_worker_niceness", "0")  # other tests run beside these
        patch.setattr(ray_pool, "LOOK_EVERY", 0.5)
        patch.setattr(ray_pool, "LEAST_PATIENCE", 4)
        nodes = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        nodes.add_node(**NODE)
        try:
            yield nodes
        finally:
            nodes.shutdown()


@pytest.fixture
def lamp(tmp_path, monkeypatch):
    """A run folder of the toy game, with models as they are born."""
    monkeypatch.setitem(GAMES, TOY.name, TOY)
    torch.manual_seed(0)
    for stage, model in (("vae", VAE(TOY.sizes)), ("mdrnn", MDRNN(TOY.sizes)), ("ctrl", Controller(TOY.sizes))):
        state = {"state_dict": model.state_dict(), "game": TOY.name, "sizes": TOY.sizes.to_dict()}
        save_checkpoint(tmp_path / "lamp" / stage / "best.tar", state)
    return tmp_path / "lamp"


@contextmanager
def squares(cluster, folder: Path, most: int | None = None):
    """A pool of Squares on the cluster."""
    with open_cluster(cluster.address, most) as opened, opened.pool(Squares, (folder,), capacity=4, jobs=500) as pool:
        yield pool


def test_the_pool_outlives_its_actors_and_its_nodes(cluster, tmp_path, capfd, monkeypatch):
    with squares(cluster, tmp_path) as pool:
        # A process dies at job 7, a Runner fails at job 11, another hangs at job 88.
        jobs = [*range(19), 88]
        assert dict(pool.run(jobs)) == {number: job**2 for number, job in enumerate(jobs)}
        console = capfd.readouterr().err
        assert "its process or its machine is gone" in console and "ValueError: eleven is too much" in console
        assert "hangs: no answer for" in console

        answers = pool.run(range(100, 600))
        results = dict([next(answers)])
        kill_node(next(iter(cluster.worker_nodes)))
        results |= dict(next(answers) for _ in range(300))
        cluster.remove_node(next(iter(cluster.worker_nodes)))
        cluster.add_node(**NODE)
        results |= dict(answers)
        assert results == {job: (100 + job) ** 2 for job in range(500)}

        monkeypatch.setattr(ray_pool, "DEATHS_PER_JOB", 1)  # every process takes seconds to start again
        with pytest.raises(UserError, match="actors died with the same job"):
            list(pool.run([1, 2, 666, 4]))


def test_a_machine_with_other_code_is_refused(cluster, tmp_path, monkeypatch):
    ours = ray_pool.identity()
    monkeypatch.setattr(ray_pool, "identity", lambda: ours | {"torch": "0.1"})
    with squares(cluster, tmp_path, most=1) as pool, pytest.raises(UserError, match="torch is .*, not 0.1"):
        list(pool.run([1, 2]))


def test_the_scripts_do_on_a_cluster_what_they_do_here(cluster, lamp, tmp_path):
    """C learns with an actor in each of its two pools, and is scored on both machines."""
    results = []
    for words in ([], ["--ray", cluster.address]):
        train = ["--logdir", lamp, "--noreload", "--generations", 3, "--pop-size", 4, "--n-samples", 2, *words]
        evaluation = ["--eval-episodes", 4, "--eval-env", "plain", "--max-workers", 1]
        succeed(run("traincontroller.py", *train, *evaluation))
        succeed(run("test_controller.py", "--logdir", lamp, "--episodes", 8, "--json", tmp_path / "score", *words))
        data = ["--logdir", lamp, "--game", TOY.name, "--rootdir", tmp_path / f"data{len(words)}", "--rollouts", 6]
        succeed(run("data/generation_script.py", "--policy", "controller", *data, *words, "--threads", 1))
        search = torch.load(lamp / "ctrl" / "checkpoint.tar", weights_only=True)
        rollouts = sorted(tmp_path.glob(f"data{len(words)}/*/*.npz"))
        history = [row | {"seconds": 0} for row in search["history"]]
        weights = {name: weight.tolist() for name, weight in search["state_dict"].items()}
        returns = json.loads((tmp_path / "score").read_text())["returns"]
        results.append((history, weights, returns, [(path.name, path.read_bytes()) for path in rollouts]))
    assert results[0] == results[1]
    assert len(results[0][2]) == 8 and len(results[0][3]) == 6


def test_what_is_wrong_with_a_cluster_is_one_line(cluster, lamp, monkeypatch):
    score = ["test_controller.py", "--logdir", lamp, "--episodes", 2, "--ray"]
    key, namespace = b"CLUSTER_METADATA", b"cluster"
    ray.init(cluster.address, logging_level="error")
    metadata = json.loads(internal_kv._internal_kv_get(key, namespace=namespace))
    older = json.dumps(metadata | {"ray_version": "2.50.0"}).encode()
    internal_kv._internal_kv_put(key, older, overwrite=True, namespace=namespace)
    try:
        assert_one_line_error(run(*score, cluster.address), "the cluster has Ray 2.50.0", ray.__version__)
    finally:
        internal_kv._internal_kv_put(key, json.dumps(metadata).encode(), overwrite=True, namespace=namespace)
        ray.shutdown()

    monkeypatch.setattr(ray_cluster, "ANSWER_WITHIN", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert_one_line_error(run(*score, address), address, "no cluster answers within 2 seconds")

    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    assert_one_line_error(run(*score, "auto"), "pip install -r requirements-ray.txt")
