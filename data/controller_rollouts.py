"""Rollouts of a trained driver with exploration noise: what V and M learn from in later rounds of the iterative
pipeline (paper, section 5)."""

from pathlib import Path

import numpy as np
import torch

from data.carracing import Rollout, RolloutRunner
from envs import make_env
from envs.carracing import MAX_EPISODE_STEPS
from models.mdrnn import ACTION_SIZE, HIDDEN_SIZE
from models.vae import FRAME_SIZE
from utils.checkpoints import load_controller, load_driver
from utils.rollouts import BATCH_MULTIPLE

NOISE_MEMORY = 0.9  # a push on the wheel lasts some ten steps; white noise would only tremble


def exploration_noise(generator: np.random.Generator, steps: int, largest: float) -> np.ndarray:
    """What is added to a rollout's actions, (steps, 3) float32: an Ornstein-Uhlenbeck process whose deviation is
    drawn once, uniform in [0, largest], so that a dataset holds calm driving as well as recoveries from mistakes."""
    deviation = generator.uniform(0, largest)
    noise = generator.normal(scale=deviation, size=(steps, ACTION_SIZE)).astype(np.float32)
    for step in range(1, steps):
        noise[step] = NOISE_MEMORY * noise[step - 1] + (1 - NOISE_MEMORY**2) ** 0.5 * noise[step]
    return noise


class ControllerRunner(RolloutRunner):
    """Drives with the V, M and C of a run folder, as many rollouts at a time as make a batch. A rollout does not depend
    on those beside it."""

    batch = BATCH_MULTIPLE

    def __init__(self, env_kind: str, logdir: Path, largest_noise: float, seed: int, device: str, dtype: torch.dtype):
        super().__init__(seed)
        torch.set_num_threads(1)  # the processes share the cores already
        controller = load_controller(logdir)
        self._driver = load_driver(logdir, controller.architecture, torch.device(device), dtype)
        self._controller = controller.to_vector()
        self._environments = [make_env(env_kind) for _ in range(BATCH_MULTIPLE)]
        self._largest_noise = largest_noise

    def drive(self, tracks: list[int], noise: list[np.random.Generator]) -> list[Rollout]:
        pushes = torch.zeros(MAX_EPISODE_STEPS, BATCH_MULTIPLE, ACTION_SIZE)
        frames = torch.zeros(BATCH_MULTIPLE, FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8)
        observations = np.empty((len(tracks), MAX_EPISODE_STEPS, *frames.shape[1:]), np.uint8)
        actions = np.empty((len(tracks), MAX_EPISODE_STEPS, ACTION_SIZE), np.float32)
        rewards = np.empty((len(tracks), MAX_EPISODE_STEPS), np.float32)
        terminals = np.zeros((len(tracks), MAX_EPISODE_STEPS), bool)
        lengths = np.zeros(len(tracks), int)
        for row, (track, generator) in enumerate(zip(tracks, noise, strict=True)):
            pushes[:, row] = torch.from_numpy(exploration_noise(generator, MAX_EPISODE_STEPS, self._largest_noise))
            frame, _ = self._environments[row].reset(seed=track)
            frames[row] = torch.from_numpy(frame)

        device = self._driver.device
        controllers = self._controller.expand(BATCH_MULTIPLE, -1).to(device)
        hidden = torch.zeros(BATCH_MULTIPLE, HIDDEN_SIZE, device=device)
        memory = torch.zeros_like(hidden)
        pushes = pushes.to(device)
        driving = list(range(len(tracks)))
        for step in range(MAX_EPISODE_STEPS):
            chosen = self._driver.step(frames, controllers, hidden, memory, pushes[step]).cpu().numpy()
            for row in driving.copy():
                observations[row, step] = frames[row].numpy()
                actions[row, step] = chosen[row]
                frame, rewards[row, step], terminated, truncated, _ = self._environments[row].step(chosen[row])
                terminals[row, step] = terminated
                if terminated or truncated:
                    lengths[row] = step + 1
                    driving.remove(row)
                else:
                    frames[row] = torch.from_numpy(frame)
            if not driving:
                break
        return [
            Rollout(*(column[row, :length] for column in (observations, actions, rewards, terminals)))
            for row, length in enumerate(lengths)
        ]
