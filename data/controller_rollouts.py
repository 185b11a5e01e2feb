"""Rollouts of a trained driver with exploration noise: what V and M learn from in later rounds of the iterative
pipeline (paper, section 5)."""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.carracing import Rollout, save_rollout
from envs import make_env
from envs.carracing import MAX_EPISODE_STEPS
from models.mdrnn import ACTION_SIZE, HIDDEN_SIZE
from models.vae import FRAME_SIZE
from utils.checkpoints import load_controller, load_driver
from utils.rollouts import BATCH_MULTIPLE
from utils.tracks import data_track

NOISE_MEMORY = 0.9  # a push on the wheel lasts some ten steps; white noise would only tremble


def exploration_noise(generator: np.random.Generator, steps: int, largest: float) -> np.ndarray:
    """What is added to a rollout's actions, (steps, 3) float32: an Ornstein-Uhlenbeck process whose deviation is
    drawn once, uniform in [0, largest], so that a dataset holds calm driving as well as recoveries from mistakes."""
    deviation = generator.uniform(0, largest)
    noise = generator.normal(scale=deviation, size=(steps, ACTION_SIZE)).astype(np.float32)
    for step in range(1, steps):
        noise[step] = NOISE_MEMORY * noise[step - 1] + (1 - NOISE_MEMORY**2) ** 0.5 * noise[step]
    return noise


class ControllerRolloutRunner:
    """A worker's Runner (see utils.workers): a job is (rollout number, file), its result the number of frames.

    Drives as many rollouts at a time as make a batch. A rollout does not depend on those beside it.
    """

    def __init__(self, env_kind: str, logdir: Path, noise: float, seed: int, device: str, dtype: torch.dtype):
        torch.set_num_threads(1)  # the processes share the cores already
        controller = load_controller(logdir)
        self._driver = load_driver(logdir, controller.architecture, torch.device(device), dtype)
        self._controller = controller.to_vector()
        self._environments = [make_env(env_kind) for _ in range(BATCH_MULTIPLE)]
        self._noise = noise
        self._seed = seed
        self._waiting: deque[tuple[int, tuple[int, Path]]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, number: int, job: tuple[int, Path]) -> None:
        self._waiting.append((number, job))

    def advance(self) -> list[tuple[int, Any]]:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MULTIPLE))]
        rollouts = self._drive([rollout_number for _, (rollout_number, _) in batch])
        for (_, (_, path)), rollout in zip(batch, rollouts, strict=True):
            save_rollout(path, rollout)
        return [(number, len(rollout.rewards)) for (number, _), rollout in zip(batch, rollouts, strict=True)]

    def _drive(self, numbers: list[int]) -> list[Rollout]:
        """Drive the rollouts of these numbers in lockstep, each until it ends."""
        noise = torch.zeros(MAX_EPISODE_STEPS, BATCH_MULTIPLE, ACTION_SIZE)
        frames = torch.zeros(BATCH_MULTIPLE, FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8)
        observations = np.empty((len(numbers), MAX_EPISODE_STEPS, *frames.shape[1:]), np.uint8)
        actions = np.empty((len(numbers), MAX_EPISODE_STEPS, ACTION_SIZE), np.float32)
        rewards = np.empty((len(numbers), MAX_EPISODE_STEPS), np.float32)
        terminals = np.zeros((len(numbers), MAX_EPISODE_STEPS), bool)
        lengths = np.zeros(len(numbers), int)
        for row, number in enumerate(numbers):
            # The third number keeps the noise independent of the track, which is drawn from the first two.
            generator = np.random.default_rng([self._seed, number, 1])
            noise[:, row] = torch.from_numpy(exploration_noise(generator, MAX_EPISODE_STEPS, self._noise))
            frame, _ = self._environments[row].reset(seed=data_track(self._seed, number))
            frames[row] = torch.from_numpy(frame)

        device = self._driver.device
        controllers = self._controller.expand(BATCH_MULTIPLE, -1).to(device)
        hidden = torch.zeros(BATCH_MULTIPLE, HIDDEN_SIZE, device=device)
        memory = torch.zeros_like(hidden)
        noise = noise.to(device)
        driving = list(range(len(numbers)))
        for step in range(MAX_EPISODE_STEPS):
            chosen = self._driver.step(frames, controllers, hidden, memory, noise[step]).cpu().numpy()
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
