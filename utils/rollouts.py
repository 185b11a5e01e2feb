"""The drive loop: many episodes in one process, one batched pass of V, M and C for all of them."""

import argparse
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

from envs.batch import EnvironmentBatch
from envs.games import Game
from models.vae import FRAME_SIZE
from models.world_model import Weights, WorldModel, padded
from utils.commandline import positive_int
from utils.devices import add_device_argument
from utils.precision import fast_dtype
from utils.ray_cluster import RayCluster, add_ray_argument
from utils.workers import Pool, WorkerPool

# Enough for the models to work in batches; with more, the environments no longer fit in the processor's cache.
MAX_ENVIRONMENTS = 32


class Recorder:
    """Keeps what is wanted of one episode; its `result` becomes the outcome's. This one keeps nothing."""

    def see(self, environment: gymnasium.Env, frame: np.ndarray) -> None:
        """A frame (64, 64, 3) is about to be acted upon."""

    def act(self, environment: gymnasium.Env, action: np.ndarray, reward: float, terminated: bool) -> None:
        """The action (A,) was taken."""

    def result(self) -> Any:
        return None


@dataclass(frozen=True)
class Episode:
    """One controller in one episode."""

    controller: np.ndarray  # (P,) float32, see models.controller.Controller.to_vector
    seed: int  # of the episode
    patience: int = 0  # end it after so many steps without progress; 0: never
    noise: np.ndarray | None = None  # (steps, A) float32, added to the actions
    recorder: Recorder | None = None


class Outcome(NamedTuple):
    total_return: float
    length: int  # steps driven
    record: Any = None  # the recorder's result


@dataclass
class _Drive:
    """An episode under way."""

    number: int
    episode: Episode
    total_return: float = 0.0
    length: int = 0


class Lane:
    """Environments that step together. Row i of every buffer belongs to environment i; the first rows drive."""

    def __init__(self, world: WorldModel, environments: EnvironmentBatch):
        self.drives: list[_Drive] = []
        self.size = len(environments.environments)
        self._world = world
        self._environments = environments
        rows = padded(self.size)
        device, sizes = world.device, world.sizes
        pin = device.type == "cuda"
        self._frames = torch.zeros(rows, FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8, pin_memory=pin)
        self._frames_array = self._frames.numpy()
        self._controllers = torch.zeros(rows, sizes.controller, device=device)
        self._hidden = torch.zeros(rows, sizes.hidden, device=device)
        self._cell = torch.zeros(rows, sizes.hidden, device=device)
        self._noise = np.zeros((rows, sizes.action), np.float32)
        self._actions: torch.Tensor | None = None

    @property
    def full(self) -> bool:
        return len(self.drives) == self.size

    def begin(self, number: int, episode: Episode) -> None:
        """Put an episode into the next free row."""
        row = len(self.drives)
        self.drives.append(_Drive(number, episode))
        self._frames_array[row] = self._environments.reset(row, episode.seed, episode.patience)
        self._controllers[row] = torch.from_numpy(episode.controller)
        self._hidden[row] = 0
        self._cell[row] = 0

    def launch(self) -> None:
        """Have the models choose the actions; on a GPU this returns before they are there."""
        if self.drives:
            rows = padded(len(self.drives))
            frames, controllers = self._frames[:rows], self._controllers[:rows]
            hidden, cell = self._hidden[:rows], self._cell[:rows]
            for row, drive in enumerate(self.drives):
                noise = drive.episode.noise
                self._noise[row] = 0 if noise is None else noise[drive.length]
            pushes = torch.from_numpy(self._noise[:rows]).to(self._world.device)
            self._actions = self._world.step(frames, controllers, hidden, cell, pushes)

    def step(self) -> list[tuple[int, Outcome]]:
        """Wait for the actions and take them in every environment; returns the episodes that ended."""
        if self._actions is None or not self.drives:
            return []
        actions = self._actions[: len(self.drives)].cpu().numpy()
        for row, drive in enumerate(self.drives):
            if drive.episode.recorder is not None:
                drive.episode.recorder.see(self._environments.environments[row], self._frames_array[row])
        steps = self._environments.step(actions, self._frames_array)
        for row, drive in enumerate(self.drives):
            drive.total_return = drive.total_return + float(steps.rewards[row]) - float(steps.charges[row])
            drive.length += 1
            if drive.episode.recorder is not None:
                environment = self._environments.environments[row]
                drive.episode.recorder.act(
                    environment, actions[row], float(steps.rewards[row]), bool(steps.terminated[row])
                )
        ended = np.flatnonzero(steps.terminated | steps.truncated)
        # From the last row down, so that the row that moves into a gap is one that goes on.
        return [self._remove(row) for row in reversed(ended.tolist())]

    def _remove(self, row: int) -> tuple[int, Outcome]:
        drive = self.drives[row]
        last = len(self.drives) - 1
        if row != last:
            for buffer in (self._frames, self._controllers, self._hidden, self._cell):
                buffer[row] = buffer[last]
            self.drives[row] = self.drives[last]
            self._environments.swap(row, last)
        self.drives.pop()
        record = drive.episode.recorder.result() if drive.episode.recorder is not None else None
        return drive.number, Outcome(drive.total_return, drive.length, record)


class EpisodeRunner:
    """A worker's Runner (see utils.workers) for episodes."""

    def __init__(self, game: Game, kind: str, weights: Weights, environments: int, device: str, dtype: torch.dtype):
        torch.set_num_threads(1)  # the processes share the cores already
        world = WorldModel(weights, torch.device(device), dtype)
        # On a GPU there are two lanes: while it encodes the frames of one, the processor steps the other.
        lanes = 2 if world.device.type == "cuda" else 1
        self.lanes = [Lane(world, EnvironmentBatch(game, kind, math.ceil(environments / lanes))) for _ in range(lanes)]
        self._waiting: deque[tuple[int, Episode]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(lane.drives for lane in self.lanes)

    def submit(self, number: int, job: Episode) -> None:
        self._waiting.append((number, job))

    def advance(self) -> list[tuple[int, Outcome]]:
        finished = []
        for lane in self.lanes:
            finished += lane.step()
            while self._waiting and not lane.full:
                lane.begin(*self._waiting.popleft())
            lane.launch()
        return finished


def drive_episode(
    world: WorldModel, game: Game, kind: str, episode: Episode, render_mode: str | None = None
) -> Outcome:
    """Drive one episode in this process; it ends as it does among others."""
    environments = EnvironmentBatch(game, kind, 1, render_mode)
    try:
        lane = Lane(world, environments)
        lane.begin(0, episode)
        ended: list[tuple[int, Outcome]] = []
        while not ended:
            lane.launch()
            ended = lane.step()
        return ended[0][1]
    finally:
        environments.close()


def add_pool_arguments(parser: argparse._ActionsContainer) -> None:
    """The options that say where a pool drives, and how."""
    parser.add_argument(
        "--max-workers", type=positive_int, help="rollout processes at most; without it, one for every core"
    )
    add_ray_argument(parser)
    parser.add_argument("--float32", action="store_true", help="never compute in half precision")
    add_device_argument(parser)


def worker_devices(device: torch.device, workers: int) -> list[str]:
    """The device of every worker: with a GPU, worker i uses GPU i modulo their number."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device.type == "cuda" else ["cpu"]
    return [names[i % len(names)] for i in range(workers)]


def rollout_pool(
    game: Game,
    kind: str,
    weights: Weights,
    device: torch.device,
    workers: int,
    episodes: int,
    log_dir: Path,
    float32: bool = False,
    cluster: RayCluster | None = None,
    environments: int = MAX_ENVIRONMENTS,
) -> Pool:
    """Workers that drive up to `episodes` episodes at a time, each in at most so many environments, with these V and M.
    Their logs go to `log_dir`. They are on the cluster if there is one."""
    game.make(kind).reset(seed=0)  # what is compiled is compiled once, rather than in each
    dtype = fast_dtype(device, float32)
    workers = min(workers if cluster is None else cluster.workers, episodes)
    environments = min(environments, math.ceil(episodes / workers))
    if cluster is not None:
        same = (game, kind, weights, environments, device.type, dtype)
        return cluster.pool(EpisodeRunner, same, environments, episodes, on_gpu=device.type == "cuda")
    arguments = [(game, kind, weights, environments, name, dtype) for name in worker_devices(device, workers)]
    return WorkerPool(EpisodeRunner, arguments, environments, log_dir)
