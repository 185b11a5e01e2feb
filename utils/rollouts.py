"""Rollouts in lockstep: many environments in one process, one batched forward pass of V, M and C for all of them."""

import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from envs import make_env
from envs.carracing import MAX_EPISODE_STEPS
from models.controller import Architecture
from models.driver import Driver
from models.mdrnn import HIDDEN_SIZE
from models.vae import FRAME_SIZE
from utils.checkpoints import load_driver
from utils.precision import fast_dtype
from utils.workers import WorkerPool

STEP_COST = 0.1  # what CarRacing charges for every step
# Processors choose other kernels for few rows than for many, with other roundings. In batches of full multiples of
# this, an episode's outcome does not depend on how many others run beside it.
BATCH_MULTIPLE = 16
# Enough for the models to work in batches; with more, the environments no longer fit in the processor's cache.
MAX_ENVIRONMENTS = 32


@dataclass(frozen=True)
class Episode:
    """One controller on one track."""

    controller: np.ndarray  # (size,) float32, see models.controller.Controller.to_vector
    track: int  # the seed of the track
    patience: int | None = None  # end it after so many steps without a new tile; None: never


class Outcome(NamedTuple):
    total_return: float
    length: int  # steps driven


@dataclass
class _Drive:
    """An episode under way."""

    number: int
    episode: Episode
    total_return: float = 0.0
    length: int = 0
    tiles: int = 0
    last_progress: int = 0  # the step at which a new tile was last visited


@dataclass
class _Lane:
    """Environments that step together. Row i of every buffer belongs to environment i; the first rows drive."""

    driver: Driver
    environments: list[gym.Env]
    drives: list[_Drive] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = math.ceil(len(self.environments) / BATCH_MULTIPLE) * BATCH_MULTIPLE
        device = self.driver.device
        pin = device.type == "cuda"
        self._frames = torch.zeros(rows, FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8, pin_memory=pin)
        self._frames_array = self._frames.numpy()
        self._controllers = torch.zeros(rows, self.driver.architecture.size, device=device)
        self._hidden = torch.zeros(rows, HIDDEN_SIZE, device=device)
        self._memory = torch.zeros(rows, HIDDEN_SIZE, device=device)
        self._actions: torch.Tensor | None = None

    @property
    def full(self) -> bool:
        return len(self.drives) == len(self.environments)

    def begin(self, number: int, episode: Episode) -> None:
        """Put an episode into the next free row."""
        row = len(self.drives)
        self.drives.append(_Drive(number, episode))
        self._frames_array[row], _ = self.environments[row].reset(seed=episode.track)
        self._controllers[row] = torch.from_numpy(episode.controller)
        self._hidden[row] = 0
        self._memory[row] = 0

    def launch(self) -> None:
        """Have the models choose the actions; on a GPU this returns before they are there."""
        if self.drives:
            rows = math.ceil(len(self.drives) / BATCH_MULTIPLE) * BATCH_MULTIPLE
            self._actions = self.driver.step(
                self._frames[:rows], self._controllers[:rows], self._hidden[:rows], self._memory[:rows]
            )

    def step(self) -> list[tuple[int, Outcome]]:
        """Wait for the actions and take them in every environment; returns the episodes that ended."""
        if not self.drives:
            return []
        actions = self._actions.cpu().numpy()
        ended = []
        for row, drive in enumerate(self.drives):
            environment = self.environments[row]
            self._frames_array[row], reward, terminated, truncated, _ = environment.step(actions[row])
            drive.total_return += reward
            drive.length += 1
            tiles = environment.unwrapped.tile_visited_count
            if tiles > drive.tiles:
                drive.tiles, drive.last_progress = tiles, drive.length
            elif drive.length - drive.last_progress == drive.episode.patience and not terminated:
                # Hopeless: charge what standing about for the rest of the episode would have cost.
                drive.total_return -= STEP_COST * (MAX_EPISODE_STEPS - drive.length)
                truncated = True
            if terminated or truncated:
                ended.append(row)
        # From the last row down, so that the row that moves into a gap is one that goes on.
        return [self._remove(row) for row in reversed(ended)]

    def _remove(self, row: int) -> tuple[int, Outcome]:
        drive = self.drives[row]
        last = len(self.drives) - 1
        if row != last:
            for buffer in (self._frames, self._controllers, self._hidden, self._memory):
                buffer[row] = buffer[last]
            self.drives[row] = self.drives[last]
            self.environments[row], self.environments[last] = self.environments[last], self.environments[row]
        self.drives.pop()
        return drive.number, Outcome(float(drive.total_return), drive.length)


class LockstepRunner:
    """A worker's Runner (see utils.workers) for episodes."""

    def __init__(
        self,
        logdir: Path,
        architecture: Architecture,
        env_kind: str,
        environments: int,
        device: str,
        dtype: torch.dtype,
    ):
        torch.set_num_threads(1)  # the processes share the cores already
        driver = load_driver(logdir, architecture, torch.device(device), dtype)
        # On a GPU there are two lanes: while it encodes the frames of one, the processor steps the other.
        lanes = 2 if driver.device.type == "cuda" else 1
        self.lanes = [
            _Lane(driver, [make_env(env_kind) for _ in range(math.ceil(environments / lanes))]) for _ in range(lanes)
        ]
        self._waiting: deque[tuple[int, Episode]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(lane.drives for lane in self.lanes)

    def submit(self, number: int, job: Episode) -> None:
        self._waiting.append((number, job))

    def advance(self) -> list[tuple[int, Any]]:
        finished = []
        for lane in self.lanes:
            finished += lane.step()
            while self._waiting and not lane.full:
                lane.begin(*self._waiting.popleft())
            lane.launch()
        return finished


def worker_devices(device: torch.device, workers: int) -> list[str]:
    """The device of every worker: with a GPU, worker i uses GPU i modulo their number."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device.type == "cuda" else ["cpu"]
    return [names[i % len(names)] for i in range(workers)]


def rollout_pool(
    logdir: Path,
    architecture: Architecture,
    env_kind: str,
    device: torch.device,
    workers: int,
    episodes: int,
    force_float32: bool = False,
) -> WorkerPool:
    """Workers that drive up to `episodes` episodes at a time with V and M of `logdir`, for controllers of one kind.

    Raises UserError if V or M is missing or damaged.
    """
    dtype = torch.float32 if force_float32 else fast_dtype(device)
    # Fail here, with one line, rather than in every worker; and compile the drawing once rather than in each.
    load_driver(logdir, architecture, torch.device("cpu"), dtype)
    make_env(env_kind).reset(seed=0)
    workers = min(workers, episodes)
    environments = min(MAX_ENVIRONMENTS, math.ceil(episodes / workers))
    arguments = [
        (logdir, architecture, env_kind, environments, name, dtype) for name in worker_devices(device, workers)
    ]
    return WorkerPool(LockstepRunner, arguments, environments, logdir / "tmp")
