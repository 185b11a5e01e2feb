"""CarRacing environments with 64x64 frames: Gymnasium's own renderer, or a fast one with equal physics."""

import gymnasium

from envs.carracing import GymnasiumCarRacing
from envs.fast_carracing import FastCarRacing

gymnasium.register(id="FastCarRacing-v0", entry_point="envs.fast_carracing:FastCarRacing")


def make_env(kind: str = "fast", render_mode: str | None = None) -> gymnasium.Env:
    """Makes a CarRacing environment.

    Observations are (64, 64, 3) uint8, actions Box([-1, 0, 0], [1, 1, 1]) float32, episodes are truncated at 1,000 steps.

    Args:
        kind: "gymnasium" for the frames of Gymnasium's renderer, "fast" for nearly equal ones at a fraction of the cost.
        render_mode: None, "rgb_array" or "human", for viewing.

    Raises:
        ValueError: on any other kind.
    """
    classes = {"fast": FastCarRacing, "gymnasium": GymnasiumCarRacing}
    if kind not in classes:
        raise ValueError(f"unknown environment {kind!r}: must be one of {', '.join(classes)}")
    return classes[kind](render_mode=render_mode)
