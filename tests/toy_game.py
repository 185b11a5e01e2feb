"""A third game, in a dozen lines: a lamp whose brightness is to be kept in the middle. See test_games.py."""

import gymnasium
import numpy as np

from envs.games import Game
from models.sizes import SIGNED, Sizes


class Lamp(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def _frame(self) -> np.ndarray:
        return np.full((64, 64, 3), 255 * self._level, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._level, self._step = self.np_random.uniform(), 0
        return self._frame(), {}

    def step(self, action):
        self._level = float(np.clip(self._level + 0.05 * action[0], 0, 1))
        self._step += 1
        return self._frame(), -2 * abs(self._level - 0.5), False, self._step >= 40, {}

    def render(self):
        return self._frame().repeat(4, axis=0).repeat(4, axis=1)


SIZES = Sizes(latent=4, hidden=16, mixtures=2, joint_mixture=False, outputs=(SIGNED,), inputs="zhc")
KEYS = {"left": (-1.0,), "right": (1.0,)}
TOY = Game("toy", "Lamp-v0", "numpy", {"plain": Lamp}, "plain", "plain", SIZES, ("brighter",), 40, 25, KEYS)
