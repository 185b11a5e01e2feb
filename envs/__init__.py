"""CarRacing with 64x64 frames, drawn by Gymnasium or, sixty times as fast, by this package; VizDoom Take Cover; and M's
dream of a game.

Importing this package registers "FastCarRacing-v0", "TakeCover-v0" and "WorldModelDream-v0" with Gymnasium.
"""

from typing import Any

import gymnasium

from envs.fast_carracing import FastCarRacing
from envs.games import DREAM, GAMES, environment_kinds

__all__ = ["FastCarRacing", "make_env"]

DREAM_ID = "WorldModelDream-v0"
# No max_episode_steps: the environments themselves end an episode, at 1,000 and 2,100 steps.
gymnasium.register(id="FastCarRacing-v0", entry_point="envs.fast_carracing:FastCarRacing", reward_threshold=900)
gymnasium.register(id="TakeCover-v0", entry_point="envs.takecover:TakeCover", reward_threshold=750)
gymnasium.register(id=DREAM_ID, entry_point="utils.run_folder:open_dream")


def make_env(kind: str = "fast", render_mode: str | None = None, **dream: Any) -> gymnasium.Env:
    """Makes an environment without wrappers.

    CarRacing's observations are (64, 64, 3) uint8 and new arrays, its actions Box([-1, 0, 0], [1, 1, 1]) float32:
    steering, gas, brake. Episodes are truncated at 1,000 steps. `tile_visited_count` tells how many tiles of the track
    have been visited. For Take Cover see envs.takecover.TakeCover. A dream has the same spaces as its game (see
    envs.dream.DreamEnv).

    Args:
        kind: "gymnasium" for the frames of Gymnasium's renderer, "fast" for the same within a grey level, "vizdoom" for
            Take Cover, "dream" for what M of a run folder dreams.
        render_mode: None, "rgb_array" or "human", for viewing; drawn by Gymnasium in its two kinds, and of a
            dream never in a window.
        dream: for "dream" alone: logdir, the run folder, and the fields of envs.dream.DreamSettings.

    Raises:
        ValueError: on any other kind.
        UserError: where ViZDoom cannot be used.
    """
    if kind == DREAM:
        return gymnasium.make(DREAM_ID, disable_env_checker=True, render_mode=render_mode, **dream).unwrapped
    for game in GAMES.values():
        if kind in game.kinds:
            return game.make(kind, render_mode)
    raise ValueError(f"unknown kind of environment {kind!r}: use one of {', '.join([*environment_kinds(), DREAM])}")
