"""Rollouts of random policies: how the actions are drawn, how one rollout is driven, and how it is stored."""

import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from isal import isal_zlib

from envs import make_env
from envs.carracing import MAX_EPISODE_STEPS
from models.controller import HIGHEST_ACTION, LOWEST_ACTION
from models.mdrnn import ACTION_SIZE
from utils.checkpoints import write_atomically
from utils.tracks import data_track

Policy = Callable[[np.random.Generator, int], np.ndarray]


class Rollout(NamedTuple):
    """One episode. Action t was taken on seeing observation t and earned reward t."""

    observations: np.ndarray  # (T, 64, 64, 3) uint8
    actions: np.ndarray  # (T, 3) float32
    rewards: np.ndarray  # (T,) float32
    terminals: np.ndarray  # (T,) bool: the episode ended here by itself, not by the limit of 1,000 steps


def white(generator: np.random.Generator, steps: int) -> np.ndarray:
    """Actions (steps, 3) float32, each uniform over the action box."""
    return generator.uniform(LOWEST_ACTION, HIGHEST_ACTION, (steps, ACTION_SIZE)).astype(np.float32)


def brown(generator: np.random.Generator, steps: int) -> np.ndarray:
    """Actions (steps, 3) float32 of a brownian motion in the action box: a' = a + sqrt(1/50) N(0, 1), clipped.

    It starts anywhere in the box. Unlike white noise it holds a direction for a second or so, so that the car
    gets somewhere.
    """
    lowest, highest = np.array(LOWEST_ACTION, np.float32), np.array(HIGHEST_ACTION, np.float32)
    actions = np.empty((steps, ACTION_SIZE), np.float32)
    actions[0] = generator.uniform(LOWEST_ACTION, HIGHEST_ACTION)
    strides = generator.normal(scale=(1 / 50) ** 0.5, size=(steps, ACTION_SIZE)).astype(np.float32)
    for step in range(1, steps):
        # np.clip would take longer than the physics of a tenth of a step
        actions[step] = np.minimum(np.maximum(actions[step - 1] + strides[step], lowest), highest)
    return actions


POLICIES: dict[str, Policy] = {"brown": brown, "white": white}


class RolloutRunner:
    """A worker's Runner (see utils.workers): a job is (rollout number, file), its result the number of frames."""

    batch = 1  # how many rollouts `drive` is given at most

    def __init__(self, seed: int):
        self._seed = seed
        self._waiting: deque[tuple[int, tuple[int, Path]]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, number: int, job: tuple[int, Path]) -> None:
        self._waiting.append((number, job))

    def advance(self) -> list[tuple[int, Any]]:
        jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.batch))]
        tracks = [data_track(self._seed, rollout_number) for _, (rollout_number, _) in jobs]
        # The third number keeps the noise independent of the track, which is drawn from the first two.
        noise = [np.random.default_rng([self._seed, rollout_number, 1]) for _, (rollout_number, _) in jobs]
        finished = []
        for (number, (_, path)), rollout in zip(jobs, self.drive(tracks, noise), strict=True):
            save_rollout(path, rollout)
            finished.append((number, len(rollout.rewards)))
        return finished

    def drive(self, tracks: list[int], noise: list[np.random.Generator]) -> list[Rollout]:
        """Drive one rollout on each track, with its random numbers from its generator."""
        raise NotImplementedError


class PolicyRunner(RolloutRunner):
    """Drives with one of POLICIES, one rollout after the other."""

    def __init__(self, env_kind: str, policy: str, seed: int):
        super().__init__(seed)
        self._env = make_env(env_kind)
        self._policy = POLICIES[policy]

    def drive(self, tracks: list[int], noise: list[np.random.Generator]) -> list[Rollout]:
        (track,), (generator,) = tracks, noise
        actions = self._policy(generator, MAX_EPISODE_STEPS)
        frame, _ = self._env.reset(seed=track)
        observations = np.empty((len(actions), *frame.shape), np.uint8)
        rewards = np.empty(len(actions), np.float32)
        terminals = np.zeros(len(actions), bool)
        for step, action in enumerate(actions):
            observations[step] = frame
            frame, rewards[step], terminals[step], truncated, _ = self._env.step(action)
            if terminals[step] or truncated:
                break
        length = step + 1
        return [Rollout(observations[:length], actions[:length], rewards[:length], terminals[:length])]


def save_rollout(path: Path, rollout: Rollout) -> None:
    """Write a rollout as a compressed npz file that np.load reads; equal rollouts make equal bytes.

    Measured on brownian rollouts, processor time for a frame of 12,288 B; driving one takes 100 us:

                          write    load     size
        np.savez          12 us     7 us    12,306 B   1,000 rollouts: 12 GB, more than many a page cache holds
        zlib, level 1     48 us    20 us     1,072 B
        zlib, level 6    102 us    16 us       658 B
        ISA-L, level 1    17 us    18 us       907 B   chosen: hardly dearer than np.savez, a thirteenth of its size

    V's training takes 700 us a frame and more, so that none of these loading times matters to it.
    Raises UserError if the file cannot be written.
    """

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in rollout._asdict().items():
                # A ZipInfo made here carries no date, so that the bytes depend on the content alone.
                member = zipfile.ZipInfo(f"{name}.npy")
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w") as stream:
                    # ISA-L writes the same format as zlib. Where zipfile should lose this attribute one day,
                    # files would still be right, and only take longer.
                    stream._compressor = isal_zlib.compressobj(1, wbits=-isal_zlib.MAX_WBITS)
                    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)

    write_atomically(path, write)
