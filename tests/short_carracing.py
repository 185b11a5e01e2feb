"""CarRacing with short episodes, for tests to which it does not matter how long a car drives."""

from dataclasses import replace

import numpy as np

from envs.carracing import GymnasiumCarRacing, TimeLimitedCarRacing
from envs.fast_carracing import FastCarRacing
from envs.games import CARRACING

STEPS, PATIENCE = 60, 40
GYMNASIUM_STEPS = 40  # fewer, so that it can be told which of the two drove


class EndsEarly(TimeLimitedCarRacing):
    limit: int  # steps

    def step(self, action: np.ndarray | int):
        frame, reward, terminated, truncated, info = super().step(action)
        return frame, reward, terminated, truncated or self._elapsed_steps >= self.limit, info


class ShortFast(EndsEarly, FastCarRacing):
    limit = STEPS


class LongerFast(EndsEarly, FastCarRacing):
    limit = 110  # the first 60 steps, in which the camera zooms in, do not count for some studies


class ShortGymnasium(EndsEarly, GymnasiumCarRacing):
    limit = GYMNASIUM_STEPS


KINDS = {"fast": ShortFast, "gymnasium": ShortGymnasium}
SHORT_CARRACING = replace(CARRACING, kinds=KINDS, scoring_kind="fast", patience=PATIENCE, max_steps=STEPS)
LONGER_CARRACING = replace(SHORT_CARRACING, kinds={"fast": LongerFast}, max_steps=LongerFast.limit)

# For python -c, in front of a script and its arguments. Its workers, too, find this module.
RUN_SHORT = """
import runpy, sys
sys.path[:0] = [".", "tests"]
import short_carracing
from envs.games import GAMES
GAMES["carracing"] = short_carracing.SHORT_CARRACING
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
