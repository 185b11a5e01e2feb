"""Rollouts: what one is, how it is recorded, driven by a random policy, and stored."""

import io
import zipfile
from collections import deque
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
from isal import isal_zlib

from data.policies import Policy
from envs.batch import EnvironmentBatch
from envs.games import Game
from utils.files import write_atomically
from utils.rollouts import Outcome, Recorder
from utils.tracks import data_track


class Rollout(NamedTuple):
    """One episode of T steps. Action t was taken on seeing observation t and earned reward t."""

    observations: np.ndarray  # (T, 64, 64, 3) uint8
    actions: np.ndarray  # (T, A) float32
    rewards: np.ndarray  # (T,) float32
    terminals: np.ndarray  # (T,) bool: the episode ended here by itself, not by the limit of steps


class RolloutRecorder(Recorder):
    """Records an episode as the bytes of a rollout's file, so that a worker need not share the disk."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._terminals: list[bool] = []

    def see(self, environment: gymnasium.Env, frame: np.ndarray) -> None:
        self.frames.append(frame.copy())

    def act(self, environment: gymnasium.Env, action: np.ndarray, reward: float, terminated: bool) -> None:
        self._actions.append(action.copy())
        self._rewards.append(reward)
        self._terminals.append(terminated)

    def result(self) -> bytes:
        rewards, terminals = np.array(self._rewards, np.float32), np.array(self._terminals)
        return pack_rollout(Rollout(np.stack(self.frames), np.stack(self._actions), rewards, terminals))


class PolicyRunner:
    """A worker's Runner (see utils.workers) that drives with a policy of data.policies.

    A job is (the seed of the episode, that of its actions), its result an Outcome with the bytes of a rollout's file.
    """

    def __init__(self, game: Game, kind: str, policy: Policy, patience: int = 0):
        self._game = game
        self._environments = EnvironmentBatch(game, kind, 1)
        self._patience = patience  # see EnvironmentBatch.reset
        self._policy = policy
        self._waiting: deque[tuple[int, tuple[int, list[int]]]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, number: int, job: tuple[int, list[int]]) -> None:
        self._waiting.append((number, job))

    def advance(self) -> list[tuple[int, Outcome]]:
        number, (seed, action_seed) = self._waiting.popleft()
        outcome, attempt = self._drive(seed, action_seed), 0
        while outcome.length < self._game.shortest_rollout:
            attempt += 1
            outcome = self._drive(data_track(seed, attempt), [*action_seed, attempt])
        return [(number, outcome)]

    def _drive(self, seed: int, action_seed: list[int]) -> Outcome:
        recorder, total_return = RolloutRecorder(), 0.0
        (environment,) = self._environments.environments
        frames = self._environments.reset(0, seed, self._patience)[None].copy()
        actions = self._policy(np.random.default_rng(action_seed), self._game.sizes, self._game.max_steps)
        for action in actions:
            recorder.see(environment, frames[0])
            steps = self._environments.step(action[None], frames)
            recorder.act(environment, action, float(steps.rewards[0]), bool(steps.terminated[0]))
            total_return += float(steps.rewards[0])
            if steps.terminated[0] or steps.truncated[0]:
                break
        return Outcome(total_return, len(recorder.frames), recorder.result())


def pack_rollout(rollout: Rollout) -> bytes:
    """A rollout as a compressed npz file that np.load reads; equal rollouts make equal bytes.

    Measured on random walks, processor time for a frame of 12,288 B; driving one takes 100 us:

                          write    load     size
        np.savez          12 us     7 us    12,306 B   1,000 rollouts: 12 GB, more than many a page cache holds
        zlib, level 1     48 us    20 us     1,072 B
        zlib, level 6    102 us    16 us       658 B
        ISA-L, level 1    17 us    18 us       907 B   chosen: hardly dearer than np.savez, a thirteenth of its size

    V's training takes 700 us a frame and more, so that none of these loading times matters to it.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in rollout._asdict().items():
            # A ZipInfo made here carries no date, so that the bytes depend on the content alone.
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as stream:
                # ISA-L writes the same format as zlib. Where zipfile should lose this attribute one day,
                # files would still be right, and only take longer.
                stream._compressor = isal_zlib.compressobj(1, wbits=-isal_zlib.MAX_WBITS)  # type: ignore[attr-defined]
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def save_rollout(path: Path, rollout: bytes) -> None:
    """Write what `pack_rollout` made. Raises UserError if the file cannot be written."""
    write_atomically(path, lambda file: file.write(rollout))
