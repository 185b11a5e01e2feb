"""The drive loop inside M's dream: many episodes in one process, on latents alone."""

import math
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from envs.dream import DreamBatch, DreamSettings, Starts
from envs.games import Game
from models.controller import drive_batch
from models.sizes import Sizes
from models.world_model import Weights, padded
from utils.ray_cluster import RayCluster
from utils.rollouts import Episode, Outcome
from utils.workers import Pool, WorkerPool

# With more, a step's rows no longer fit in the processor's cache.
MAX_DREAMS = 256
STEPS_AHEAD = 50  # before the parent is looked after again: a tenth of a second


class Dreams(NamedTuple):
    """What a worker, here or on another machine, needs to dream of a game."""

    game: Game
    weights: Weights  # M's, all of them
    starts: Starts
    settings: DreamSettings


class DreamRunner:
    """A worker's Runner (see utils.workers) for episodes that are dreamed, by controllers of these sizes.

    Of an episode, controller, seed and patience count.
    """

    def __init__(self, dreams: Dreams, sizes: Sizes, count: int):
        torch.set_num_threads(1)  # the processes share the cores already
        self._sizes = sizes
        self._batch = DreamBatch(*dreams, count)
        self._count = count
        self._controllers = torch.zeros(padded(count), sizes.controller)
        self._numbers: list[int] = []  # of the jobs in play, row by row
        self._returns = np.zeros(count)
        self._lengths = np.zeros(count, int)
        self._waiting: deque[tuple[int, Episode]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._numbers)

    def submit(self, number: int, job: Episode) -> None:
        self._waiting.append((number, job))

    def advance(self) -> list[tuple[int, Outcome]]:
        finished = []
        for _ in range(STEPS_AHEAD):
            while self._waiting and len(self._numbers) < self._count:
                self._begin(*self._waiting.popleft())
            finished += self._step()
        return finished

    def _begin(self, number: int, episode: Episode) -> None:
        """Put an episode into the next free row."""
        row = len(self._numbers)
        self._numbers.append(number)
        self._batch.reset(row, episode.seed, episode.patience)
        self._controllers[row] = torch.from_numpy(episode.controller)
        self._returns[row] = self._lengths[row] = 0

    @torch.inference_mode()
    def _step(self) -> list[tuple[int, Outcome]]:
        """One step of every episode in play; returns those that ended."""
        count = len(self._numbers)
        if count == 0:
            return []
        rows = padded(count)
        state = [column[:rows] for column in (self._batch.latents, self._batch.hidden, self._batch.cell)]
        steps = self._batch.step(count, drive_batch(self._sizes, self._controllers[:rows], *state))
        self._returns[:count] += steps.rewards - steps.charges
        self._lengths[:count] += 1
        # From the last row down, so that the row that moves into a gap is one that goes on.
        return [self._remove(row) for row in reversed(np.flatnonzero(steps.terminated | steps.truncated).tolist())]

    def _remove(self, row: int) -> tuple[int, Outcome]:
        ended = self._numbers[row], Outcome(float(self._returns[row]), int(self._lengths[row]))
        last = len(self._numbers) - 1
        if row != last:
            self._batch.swap(row, last)
            for column in (self._controllers, self._returns, self._lengths):
                column[row] = column[last]
            self._numbers[row] = self._numbers[last]
        self._numbers.pop()
        return ended


def dream_pool(
    dreams: Dreams, sizes: Sizes, workers: int, episodes: int, log_dir: Path, cluster: RayCluster | None = None
) -> Pool:
    """Workers that dream up to `episodes` episodes at a time, for controllers of these sizes. Their logs go to
    `log_dir`. They are on the cluster if there is one."""
    workers = min(workers if cluster is None else cluster.workers, episodes)
    count = min(MAX_DREAMS, math.ceil(episodes / workers))
    if cluster is not None:
        return cluster.pool(DreamRunner, (dreams, sizes, count), count, episodes)
    return WorkerPool(DreamRunner, [(dreams, sizes, count)] * workers, count, log_dir)
