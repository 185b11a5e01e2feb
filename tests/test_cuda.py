"""The stages on a GPU. Without one these tests are skipped; what can be tried without is in test_rollouts.py."""

import os

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, assert_one_line_error, drive_all, run, run_process, succeed
from test_rollouts import random_controllers, with_lanes

from data.loaders import find_rollouts
from envs.games import CARRACING
from models.sizes import CARRACING_SIZES
from models.world_model import WorldModel
from utils.checkpoints import load_checkpoint
from utils.precision import fast_dtype
from utils.rollouts import Episode, EpisodeRunner, rollout_pool, worker_devices
from utils.run_folder import load_world_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here (CUDA)")

GPU, CPU = torch.device("cuda"), torch.device("cpu")
SHORT = ["--n-samples", 1, "--pop-size", 4, "--eval-episodes", 2, "--max-workers", 2]


def gpu_memory_of(script: str, *arguments: object) -> int:
    """Runs a script of the project on the GPU; the bytes that this process had there at most."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    succeed(run(script, *arguments, "--device", "cuda"))
    return torch.cuda.max_memory_allocated() - before


@pytest.fixture(scope="module")
def folder(tiny_dataset, tmp_path_factory):
    """A run folder with V and M that were trained on the GPU; the tests train on in it."""
    folder = tmp_path_factory.mktemp("cuda") / "run"
    options = ["--logdir", folder, "--dataset", tiny_dataset, "--epochs", 1]
    assert gpu_memory_of("trainvae.py", *options) > 1_000_000
    assert gpu_memory_of("trainmdrnn.py", *options, "--include_reward") > 1_000_000
    return folder


@pytest.fixture
def weights(folder):
    return load_world_weights(folder, CARRACING_SIZES)


def gpu_runner(weights, environments=8):
    return EpisodeRunner(CARRACING, "fast", weights, environments, "cuda", fast_dtype(GPU))


def short_episodes():
    return [Episode(vector, track, patience=50) for vector in random_controllers(4) for track in range(3)]


def test_every_stage_runs_on_the_gpu(folder, tmp_path):
    device = ["--device", "cuda"]
    succeed(run("traincontroller.py", "--logdir", folder, *SHORT, *device, "--generations", 1))
    succeed(run("traincontroller.py", "--logdir", folder, *SHORT, *device, "--generations", 2))
    assert load_checkpoint(folder / "ctrl" / "checkpoint.tar", "")["epoch"] == 2
    assert "score" in succeed(run("test_controller.py", "--logdir", folder, "--episodes", 2, "--env", "fast", *device))
    driver = ["--policy", "controller", "--logdir", folder, "--threads", 2, *device]
    succeed(run("data/generation_script.py", "--rollouts", 2, "--rootdir", tmp_path / "rollouts", *driver))
    assert len(find_rollouts(tmp_path / "rollouts")) == 2


@pytest.mark.parametrize(("script", "stage"), [("trainvae.py", "vae"), ("trainmdrnn.py", "mdrnn")])
def test_what_was_trained_on_the_gpu_goes_on_without_one(script, stage, folder, tiny_dataset):
    state = load_checkpoint(folder / stage / "checkpoint.tar", "")
    options = ["--logdir", folder, "--dataset", tiny_dataset, "--epochs", state["epoch"] + 1, "--nosamples"]
    output = succeed(run(script, *options, "--device", "cpu"))
    assert f"after epoch {state['epoch']}" in output


def test_the_gpu_computes_what_the_processor_does(weights):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (16, 64, 64, 3), dtype=torch.uint8, generator=generator)
    controllers = torch.from_numpy(random_controllers(16))
    actions, states = [], []
    for device in (CPU, GPU):
        hidden, cell = torch.zeros(2, 16, CARRACING_SIZES.hidden, device=device)
        world = WorldModel(weights, device, torch.float32)
        for _ in range(3):
            moment = world.step(frames, controllers.to(device), hidden, cell, torch.zeros(16, 3, device=device))
        actions.append(moment.cpu().numpy())
        states.append(hidden.cpu().numpy())
    # A GPU may multiply with ten bits of mantissa (TF32).
    np.testing.assert_allclose(actions[1], actions[0], atol=0.02)
    np.testing.assert_allclose(states[1], states[0], atol=0.02)


def test_two_lanes_drive_as_one_does(weights):
    runner = gpu_runner(weights)
    assert len(runner.lanes) == 2
    two = drive_all(runner, short_episodes())
    assert drive_all(with_lanes(gpu_runner(weights), 1, 8), short_episodes()) == two
    assert not runner.busy


def test_workers_change_nothing(weights, tmp_path):
    """They use all GPUs, which should be of one kind here."""
    episodes = short_episodes()
    with rollout_pool(CARRACING, "fast", weights, GPU, 2, len(episodes), tmp_path) as pool:
        outcomes = dict(pool.run(episodes))
    alone = drive_all(gpu_runner(weights, len(episodes) // 2), episodes)
    assert [outcomes[number] for number in range(len(episodes))] == alone


def test_workers_take_the_gpus_that_are_visible():
    count = torch.cuda.device_count()
    assert worker_devices(GPU, count + 1) == [*(f"cuda:{i}" for i in range(count)), "cuda:0"]
    code = "import torch; from utils.rollouts import worker_devices; print(worker_devices(torch.device('cuda'), 2))"
    visible = ENVIRONMENT | {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[-1]}
    assert succeed(run_process("-c", code, env=visible)).strip() == "['cuda:0', 'cuda:0']"


def test_where_no_gpu_is_visible_none_can_be_asked_for(folder):
    hidden = ENVIRONMENT | {"CUDA_VISIBLE_DEVICES": ""}
    command = ["test_controller.py", "--logdir", folder, "--episodes", 1, "--device", "cuda"]
    assert_one_line_error(run_process(*command, env=hidden), "PyTorch sees no GPU", "--device cpu")
