"""VizDoom Take Cover as the paper played it: step aside from the fireballs of monsters for as long as you can.

The settings are those of the paper's code (github.com/hardmaru/WorldModelsExperiments, doomrnn) on today's ViZDoom.
"""

from typing import Any

import gymnasium
import numpy as np
from numba import njit

from envs.doom_engine import DoomEngine, folder_of_vizdoom, load_vizdoom
from envs.errors import UserError, refuse_not_finite

FRAME_SHAPE = (64, 64, 3)
MAX_EPISODE_STEPS = 2100
THRESHOLD = 1 / 3  # an action below its negative goes left, one above it right
ENGINES_PER_EPISODE = 3


class TakeCover(gymnasium.Env):
    """One step is 1/35 s and earns 1. The episode is terminated by the player's death, truncated after 2,100 steps.

    Observations are (64, 64, 3) uint8, new arrays. The action is one number in [-1, 1]: left below -1/3, right above
    1/3, and to stay where you are between them. An episode depends on the seed given to `reset` and the actions alone,
    even if the engine dies in its midst: another one then plays it again up to there.

    Raises UserError where ViZDoom cannot be used (see envs.doom_engine), and on render mode "human".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 35}

    def __init__(self, render_mode: str | None = None):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError("Take Cover opens no window of its own: watch it with play.py, or film it with --record")
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._vizdoom = load_vizdoom()
        self._engine_died = (
            self._vizdoom.ViZDoomErrorException,
            self._vizdoom.ViZDoomUnexpectedExitException,
            self._vizdoom.ViZDoomIsNotRunningException,
        )
        self._engine: DoomEngine | None = None
        self._seed = 0
        self._buttons: list[list[bool]] = []  # of every step of the episode
        self._screen: np.ndarray = np.zeros(0)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Starts an episode; returns the first frame, (64, 64, 3) uint8, and an empty dict."""
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(1 << 32))
        self._buttons = []
        self._play_again()
        self._look()
        return shrink(self._screen), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Advances by 1/35 s with the action (1,); returns the frame, the reward 1, terminated, truncated and an
        empty dict. The frame after the player's death is the last one before it. Raises UserError if the action is not
        finite."""
        assert self._engine is not None, "step before reset"
        refuse_not_finite(action)
        buttons = [bool(action[0] < -THRESHOLD), bool(action[0] > THRESHOLD)]
        self._buttons.append(buttons)
        try:
            self._engine.game.make_action(buttons)
        except self._engine_died:
            self._play_again()
        self._look()
        terminated = self._engine.game.is_episode_finished()
        return shrink(self._screen), 1.0, terminated, len(self._buttons) >= MAX_EPISODE_STEPS, {}

    def render(self) -> np.ndarray | None:
        """The last screen (240, 320, 3) uint8, with the panel, in render mode "rgb_array"."""
        return self._screen if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _play_again(self) -> None:
        """Play the episode from its beginning up to now, with another engine if one dies."""
        for attempt in range(1, ENGINES_PER_EPISODE + 1):
            try:
                if self._engine is None:
                    self._engine = DoomEngine(self._game())
                self._engine.game.set_seed(self._seed)
                self._engine.game.new_episode()
                for buttons in self._buttons:
                    self._engine.game.make_action(buttons)
                return
            except self._engine_died:
                self.close()
                if attempt == ENGINES_PER_EPISODE:
                    raise

    def _look(self) -> None:
        state = self._engine.game.get_state() if self._engine is not None else None
        if state is not None:  # None after the player's death
            self._screen = state.screen_buffer

    def _game(self) -> Any:
        """A game with the paper's settings, without an engine."""
        vizdoom = self._vizdoom
        game = vizdoom.DoomGame()
        folder = folder_of_vizdoom()
        game.set_doom_game_path(str(folder / "freedoom2.wad"))  # not a doom2.wad that lies in the current folder
        game.set_doom_scenario_path(str(folder / "scenarios" / "take_cover.wad"))
        game.set_doom_map("map01")
        game.set_doom_skill(4)
        game.set_available_buttons([vizdoom.Button.MOVE_LEFT, vizdoom.Button.MOVE_RIGHT])
        game.set_episode_start_time(14)  # when the monsters are there
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_render_hud(True)  # without it the view would be of another shape
        game.set_render_weapon(False)
        game.set_render_crosshair(False)
        game.set_render_decals(False)
        game.set_render_particles(False)
        game.set_render_screen_flashes(False)  # at a hit, which the paper's frames do not show
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        return game


@njit(cache=True)
def shrink(screen: np.ndarray) -> np.ndarray:
    """The visible rows of a screen (240, 320, 3) uint8 as a frame (64, 64, 3): exact averages of areas of 3.125 x 5
    pixels, rounded to the nearest grey level."""
    lines = screen.reshape(240, 960)
    frame = np.empty((64, 64, 3), np.uint8)
    sums = np.empty(960, np.uint16)  # at most 255 * 25
    for y in range(64):
        top, bottom = 25 * y, 25 * y + 25  # in eighths of a row
        sums[:] = 0
        for row in range(top // 8, (bottom + 7) // 8):
            weight = min(8 * row + 8, bottom) - max(8 * row, top)
            for i in range(960):
                sums[i] += weight * lines[row, i]
        for x in range(64):
            for colour in range(3):
                total = 62
                for pixel in range(5):
                    total += sums[15 * x + 3 * pixel + colour]
                frame[y, x, colour] = total // 125
    return frame
