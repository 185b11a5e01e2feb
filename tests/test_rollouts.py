"""Rollouts in lockstep against the plainest possible loop over one environment."""

import numpy as np
import pytest
import torch

from envs import make_env
from models.controller import Architecture, Controller
from models.driver import Driver
from models.mdrnn import HIDDEN_SIZE
from utils.checkpoints import load_mdrnn, load_vae
from utils.rollouts import Episode, LockstepRunner, rollout_pool, worker_devices

CPU = torch.device("cpu")


LINEAR = Architecture()


def random_controllers(count: int, architecture: Architecture = LINEAR) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.3, size=(count, architecture.size)).astype(np.float32)


def drive_all(runner: LockstepRunner, episodes: list[Episode]) -> list:
    for number, episode in enumerate(episodes):
        runner.submit(number, episode)
    outcomes = {}
    while runner.busy:
        outcomes.update(runner.advance())
    return [outcomes[number] for number in range(len(episodes))]


@torch.no_grad()
def plain_loop(untrained_run, controller: Controller, track: int, steps: int):
    """The equations of the paper, one frame at a time, with the modules' own forward methods."""
    vae, mdrnn = load_vae(untrained_run), load_mdrnn(untrained_run)
    environment = make_env("fast")
    frame, _ = environment.reset(seed=track)
    state = (torch.zeros(1, 1, HIDDEN_SIZE), torch.zeros(1, 1, HIDDEN_SIZE))
    actions = []
    for _ in range(steps):
        mu, _ = vae.encoder(torch.from_numpy(frame).permute(2, 0, 1)[None] / 255)
        action = controller(mu, state[0][0])
        _, state = mdrnn(action[None], mu[None], state)
        frame, _, terminated, truncated, _ = environment.step(action[0].numpy())
        actions.append(action[0].numpy())
        if terminated or truncated:
            break
    return np.array(actions)


@pytest.mark.parametrize("architecture", [LINEAR, Architecture(False), Architecture(False, 40), Architecture(True, 8)])
def test_driver_computes_the_equations_of_the_models(untrained_run, architecture):
    vector = random_controllers(1, architecture)[0]
    controller = Controller.from_vector(architecture, torch.from_numpy(vector))
    assert Architecture.of(controller.state_dict()) == architecture
    np.testing.assert_array_equal(controller.to_vector().numpy(), vector)
    expected = plain_loop(untrained_run, controller, track=5, steps=60)
    driver = Driver(load_vae(untrained_run), load_mdrnn(untrained_run), architecture, CPU, torch.float32)
    environment = make_env("fast")
    frame, _ = environment.reset(seed=5)
    frames = torch.zeros(16, 64, 64, 3, dtype=torch.uint8)
    hidden, memory = torch.zeros(16, HIDDEN_SIZE), torch.zeros(16, HIDDEN_SIZE)
    for row in expected:
        frames[0] = torch.from_numpy(frame)
        actions = driver.step(frames, torch.from_numpy(vector).expand(16, -1), hidden, memory)
        np.testing.assert_allclose(actions[0].numpy(), row, atol=1e-4)
        frame = environment.step(row)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_outcome_does_not_depend_on_its_company(untrained_run, dtype):
    episodes = [Episode(vector, track, patience=60) for vector in random_controllers(5) for track in range(4)]
    together = drive_all(LockstepRunner(untrained_run, LINEAR, "fast", 20, "cpu", dtype), episodes)
    in_turn = drive_all(LockstepRunner(untrained_run, LINEAR, "fast", 3, "cpu", dtype), episodes)
    assert together == in_turn


def test_workers_change_nothing(untrained_run):
    episodes = [Episode(vector, track, patience=50) for vector in random_controllers(3) for track in range(2)]
    alone = drive_all(LockstepRunner(untrained_run, LINEAR, "fast", 6, "cpu", torch.float32), episodes)
    with rollout_pool(untrained_run, LINEAR, "fast", CPU, workers=2, episodes=6, force_float32=True) as pool:
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
    runner = LockstepRunner(untrained_run, LINEAR, "fast", 2, "cpu", torch.float32)
    hopeless, patient = drive_all(runner, [Episode(vector, 3, patience=70), Episode(vector, 3)])
    assert hopeless.length == 71  # the first step visits the tiles under the car
    assert patient.length == 1000
    assert hopeless.total_return == pytest.approx(patient.total_return)
