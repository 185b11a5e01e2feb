"""Environments that step together, as the drive loop (utils/rollouts.py) sees them."""

from typing import NamedTuple

import numpy as np

from envs.games import Game


class Steps(NamedTuple):
    """One step of N environments."""

    rewards: np.ndarray  # (N,) float64
    charges: np.ndarray  # (N,) float64: what is lost by an early end; 0 otherwise
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool: by the limit of steps, or early


class EnvironmentBatch:
    """Row i of every array belongs to environment i; the first rows are those in play."""

    def __init__(self, game: Game, kind: str, count: int, render_mode: str | None = None):
        self.environments = [game.make(kind, render_mode) for _ in range(count)]
        self._game = game
        self._steps = np.zeros(count, int)
        self._patience = np.zeros(count, int)
        self._progress = np.zeros(count)
        self._progressed = np.zeros(count, int)  # the step at which progress was last made

    def reset(self, row: int, seed: int, patience: int = 0) -> np.ndarray:
        """Begin an episode, which is ended after `patience` steps without progress (0: never); its first frame."""
        self._steps[row] = self._progress[row] = self._progressed[row] = 0
        self._patience[row] = patience
        return self.environments[row].reset(seed=seed)[0]

    def step(self, actions: np.ndarray, frames: np.ndarray) -> Steps:
        """Take the actions (N, A) in the first N environments; their frames are written to frames (N, 64, 64, 3)."""
        count = len(actions)
        result = Steps(np.zeros(count), np.zeros(count), np.zeros(count, bool), np.zeros(count, bool))
        self._steps[:count] += 1
        for row, action in enumerate(actions):
            step = self.environments[row].step(action)
            frames[row], result.rewards[row], result.terminated[row], result.truncated[row], _ = step
            if self._patience[row] and self._is_hopeless(row) and not result.terminated[row]:
                # Idling for the rest of the episode is what it would still earn.
                result.charges[row] = -self._game.idle_reward * (self._game.max_steps - self._steps[row])
                result.truncated[row] = True
        return result

    def _is_hopeless(self, row: int) -> bool:
        """Whether an episode has lost its patience in this step."""
        if self._game.progress is None:
            return False
        progress = self._game.progress(self.environments[row])
        if progress > self._progress[row]:
            self._progress[row], self._progressed[row] = progress, self._steps[row]
        return self._steps[row] - self._progressed[row] == self._patience[row]

    def swap(self, row: int, other: int) -> None:
        """Let two environments change places."""
        self.environments[row], self.environments[other] = self.environments[other], self.environments[row]
        for column in (self._steps, self._patience, self._progress, self._progressed):
            column[[row, other]] = column[[other, row]]

    def close(self) -> None:
        for environment in self.environments:
            environment.close()
