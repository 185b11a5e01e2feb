"""Episodes of one environment, real or dreamed, that are played step by step."""

import itertools

import gymnasium
import numpy as np

from models.vae import FRAME_SIZE
from playing.agent import Agent, Moment


class Scene:
    """An environment and its episode under way, if any; the first episode has the seed, the next the next."""

    def __init__(self, environment: gymnasium.Env, seed: int):
        self.environment = environment
        self._seeds = itertools.count(seed)
        self.seed = seed
        self.clear()

    def clear(self) -> None:
        """No episode: a black frame, and `over`."""
        self.frame = np.zeros((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self.steps, self.reward, self.total_return, self.over = 0, 0.0, 0.0, True

    def begin(self, moment: Moment | None = None) -> None:
        """Begin the next episode; a dream may begin at a moment of another one."""
        self.clear()
        self.over = False
        self.seed = next(self._seeds)
        options = None if moment is None else moment._asdict()
        self.frame, _ = self.environment.reset(seed=self.seed, options=options)

    def step(self, action: np.ndarray) -> None:
        """Take the action (A,), if the episode is not over."""
        if self.over:
            return
        self.frame, reward, terminated, truncated, _ = self.environment.step(action)
        self.reward = float(reward)
        self.total_return += self.reward
        self.steps += 1
        self.over = bool(terminated or truncated)


class AgentScene(Scene):
    """A scene with an agent that sees it all, whoever drives."""

    def __init__(self, environment: gymnasium.Env, seed: int, agent: Agent):
        super().__init__(environment, seed)
        self.agent = agent

    def begin(self, moment: Moment | None = None) -> None:
        super().begin(moment)
        self.agent.begin(moment)
        self.agent.see(self.frame)

    def step(self, action: np.ndarray) -> None:
        if not self.over:
            self.agent.remember(action)
            super().step(action)
            self.agent.see(self.frame)
