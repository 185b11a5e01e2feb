"""CarRacing with 64x64 frames, drawn by Gymnasium or, sixty times as fast, by this package.

Importing this package registers "FastCarRacing-v0" with Gymnasium.
"""

import gymnasium

from envs.fast_carracing import FastCarRacing
from envs.games import CARRACING

__all__ = ["FastCarRacing", "make_env"]

# No max_episode_steps: the environment itself ends an episode at 1,000 steps.
gymnasium.register(id="FastCarRacing-v0", entry_point="envs.fast_carracing:FastCarRacing", reward_threshold=900)


def make_env(kind: str = "fast", render_mode: str | None = None) -> gymnasium.Env:
    """Makes a CarRacing environment without wrappers.

    Observations are (64, 64, 3) uint8 and new arrays, actions Box([-1, 0, 0], [1, 1, 1]) float32: steering, gas, brake.
    Episodes are truncated at 1,000 steps. `tile_visited_count` tells how many tiles of the track have been visited.

    Args:
        kind: "gymnasium" for the frames of Gymnasium's renderer, "fast" for the same within a grey level.
        render_mode: None, "rgb_array" or "human", for viewing; drawn by Gymnasium in either kind.

    Raises:
        ValueError: on any other kind.
    """
    return CARRACING.make(kind, render_mode)
