"""Rollouts in lockstep against the plainest possible loop over one environment."""

import numpy as np
import pytest
import torch
from conftest import DTYPES, drive_all, episode_runner
from short_carracing import SHORT_CARRACING, STEPS

from envs import make_env
from envs.batch import EnvironmentBatch
from envs.games import CARRACING
from models.controller import Controller
from models.sizes import CARRACING_SIZES, Sizes
from models.world_model import WorldModel
from utils.rollouts import Episode, EpisodeRunner, Lane, drive_episode, rollout_pool, worker_devices
from utils.run_folder import controller_sizes, load_mdrnn, load_vae, load_world_weights

CPU = torch.device("cpu")


def random_controllers(count: int, sizes: Sizes = CARRACING_SIZES) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.3, size=(count, sizes.controller)).astype(np.float32)


@torch.no_grad()
def plain_loop(untrained_run, controller: Controller, track: int, steps: int):
    """The equations of the paper, one frame at a time, with the modules' own forward methods."""
    vae, mdrnn = load_vae(untrained_run), load_mdrnn(untrained_run)
    environment = make_env("fast")
    frame, _ = environment.reset(seed=track)
    state = (torch.zeros(1, 1, 256), torch.zeros(1, 1, 256))
    actions = []
    for _ in range(steps):
        mu, _ = vae.encoder(torch.from_numpy(frame).permute(2, 0, 1)[None] / 255)
        action = controller(mu, state[0][0], state[1][0])
        _, state = mdrnn(action[None], mu[None], state)
        frame, _, terminated, truncated, _ = environment.step(action[0].numpy())
        actions.append(action[0].numpy())
        if terminated or truncated:
            break
    return np.array(actions)


@pytest.mark.parametrize(("inputs", "units"), [("zh", 0), ("z", 0), ("z", 40), ("zh", 8), ("zhc", 0)])
def test_the_world_model_computes_the_equations_of_the_models(untrained_run, inputs, units):
    sizes = Sizes(inputs=inputs, hidden_units=units)
    vector = random_controllers(1, sizes)[0]
    controller = Controller.from_vector(sizes, torch.from_numpy(vector))
    if inputs != "zhc":  # which no checkpoint without sizes has
        assert controller_sizes({"state_dict": controller.state_dict()}, untrained_run, "") == sizes
    np.testing.assert_array_equal(controller.to_vector().numpy(), vector)
    expected = plain_loop(untrained_run, controller, track=5, steps=60)
    world = WorldModel(load_world_weights(untrained_run, sizes), CPU, torch.float32)
    environment = make_env("fast")
    frame, _ = environment.reset(seed=5)
    frames = torch.zeros(16, 64, 64, 3, dtype=torch.uint8)
    hidden, cell = torch.zeros(16, 256), torch.zeros(16, 256)
    for row in expected:
        frames[0] = torch.from_numpy(frame)
        actions = world.step(frames, torch.from_numpy(vector).expand(16, -1), hidden, cell, torch.zeros(16, 3))
        np.testing.assert_allclose(actions[0].numpy(), row, atol=1e-4)
        frame = environment.step(row)[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_outcome_does_not_depend_on_its_company(untrained_run, dtype):
    episodes = [Episode(vector, track, patience=10) for vector in random_controllers(5) for track in range(4)]
    together = drive_all(episode_runner(untrained_run, environments=20, dtype=dtype, game=SHORT_CARRACING), episodes)
    in_turn = drive_all(episode_runner(untrained_run, environments=7, dtype=dtype, game=SHORT_CARRACING), episodes)
    assert together == in_turn
    world = WorldModel(load_world_weights(untrained_run, CARRACING_SIZES), CPU, dtype)
    assert drive_episode(world, SHORT_CARRACING, "fast", episodes[-1]) == together[-1]


def with_lanes(runner: EpisodeRunner, count: int, environments: int) -> EpisodeRunner:
    """The runner with so many lanes of so many environments."""
    world = runner.lanes[0]._world
    runner.lanes = [Lane(world, EnvironmentBatch(CARRACING, "fast", environments)) for _ in range(count)]
    return runner


def test_two_lanes_drive_as_one_does(untrained_run):
    """What a process with a GPU does (tests/test_cuda.py), without one."""
    episodes = [Episode(vector, track, patience=8) for vector in random_controllers(3) for track in range(2)]
    one = drive_all(with_lanes(episode_runner(untrained_run), 1, 4), episodes)
    runner = with_lanes(episode_runner(untrained_run), 2, 2)
    assert drive_all(runner, episodes) == one
    assert not runner.busy


def test_workers_change_nothing(untrained_run, tmp_path):
    episodes = [Episode(vector, track, patience=50) for vector in random_controllers(3) for track in range(2)]
    alone = drive_all(episode_runner(untrained_run, environments=6, game=SHORT_CARRACING), episodes)
    weights = load_world_weights(untrained_run, CARRACING_SIZES)
    with rollout_pool(SHORT_CARRACING, "fast", weights, CPU, 2, len(episodes), tmp_path, float32=True) as pool:
        outcomes = dict(pool.run(episodes))
    assert [outcomes[number] for number in range(6)] == alone


def test_workers_spread_over_all_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker_devices(torch.device("cuda"), 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert worker_devices(CPU, 2) == ["cpu", "cpu"]


def test_patience_ends_an_episode_and_charges_the_rest(untrained_run):
    stand_still = Controller()
    with torch.no_grad():
        stand_still.fc.weight.zero_()
        stand_still.fc.bias.copy_(torch.tensor([0.0, -20.0, 20.0]))  # no gas, full brake
    vector = stand_still.to_vector().numpy()
    runner = episode_runner(untrained_run, environments=2, game=SHORT_CARRACING)
    hopeless, patient = drive_all(runner, [Episode(vector, 3, patience=30), Episode(vector, 3)])
    assert hopeless.length == 31  # the first step visits the tiles under the car
    assert patient.length == STEPS
    assert hopeless.total_return == pytest.approx(patient.total_return)
