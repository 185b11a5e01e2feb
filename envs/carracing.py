"""CarRacing as the paper saw it: 64x64 frames and at most 1,000 steps an episode."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from envs.errors import refuse_not_finite

FRAME_SHAPE = (64, 64, 3)
MAX_EPISODE_STEPS = 1000
STEP_COST = 0.1  # what CarRacing charges for every step


def shrink(image: np.ndarray) -> np.ndarray:
    """Shrinks an image by 3:2 with exact area averaging, rounded to the nearest grey level.

    Every 3x3 pixels become 2x2: each of these is one corner pixel, half of two neighbours, a quarter of the middle.

    Args:
        image: (H, W, C) uint8, H and W multiples of 3; for CarRacing (96, 96, 3).

    Returns:
        (2H/3, 2W/3, C) uint8, a new array.
    """
    height, width, channels = image.shape
    blocks = image.reshape(height // 3, 3, width // 3, 3, channels).astype(np.uint16)
    rows = 2 * blocks[:, ::2] + blocks[:, 1:2]
    nine_fold = 2 * rows[:, :, :, ::2] + rows[:, :, :, 1:2]
    return ((nine_fold + 4) // 9).astype(np.uint8).reshape(2 * height // 3, 2 * width // 3, channels)


class TimeLimitedCarRacing(CarRacing):
    """CarRacing with 64x64 frames that truncates an episode by itself, which is cheaper than a wrapper.

    Takes the arguments of Gymnasium's CarRacing. Subclasses provide the frames in `_render`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.observation_space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        self._elapsed_steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Starts an episode on a new track; returns the first frame, (64, 64, 3) uint8, and an empty dict."""
        result = super().reset(seed=seed, options=options)
        self._elapsed_steps = 0  # not before: CarRacing.reset takes one step without action
        return result

    def step(self, action: np.ndarray | int) -> tuple[Any, float, bool, bool, dict]:
        """Advances by 1/50 s with action (steering in [-1, 1], gas in [0, 1], brake in [0, 1]).

        Returns the frame, the reward, terminated (all tiles visited, or off the playfield: reward -100),
        truncated (1,000 steps taken), and an info dict. Raises UserError if the action is not finite.
        """
        if action is not None and self.continuous:  # None: `reset` takes a step without action
            refuse_not_finite(action)
        frame, reward, terminated, truncated, info = self._advance(action)
        self._elapsed_steps += 1
        return frame, reward, terminated, truncated or self._elapsed_steps >= MAX_EPISODE_STEPS, info

    def _advance(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """What `step` returns, without a limit of time. `reset` takes a first step without an action."""
        return super().step(action)


class GymnasiumCarRacing(TimeLimitedCarRacing):
    """Gymnasium's CarRacing with its own renderer, whose 96x96 frames are shrunk to 64x64."""

    def _render(self, mode: str) -> Any:
        image = super()._render(mode)
        return shrink(image) if mode == "state_pixels" else image


def tiles_visited(environment: gymnasium.Env) -> int:
    """How many tiles of its track a car has visited."""
    car_racing: Any = environment.unwrapped
    return car_racing.tile_visited_count
