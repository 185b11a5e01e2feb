"""Playing, step by step: what is shown, who drives, what the keys do.

Keys go in and pictures come out, so that no window is needed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from playing import viewer
from playing.playable import Playable
from playing.scenes import AgentScene

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 5.0
TEMPERATURE_STEP = 0.05
NOTICE_SECONDS = 5
ARROWS = {"left", "right", "up", "down"}


class Session(ABC):
    """What all ways of showing have in common: a real episode, a driver, and the keys.

    An agent drives, or a human with the keys of the game. Whoever drives, the agent sees and remembers.
    """

    def __init__(self, playable: Playable, seed: int = 0, human: bool = False):
        """seed: of the first episode; human: drives first, as always where there is no C."""
        self.real = AgentScene(playable.environment, seed, playable.agent())
        self.scene = self.real  # where the driver acts
        self.human = human or not self.real.agent.can_drive
        self.paused = False
        self.closed = False  # by a key
        self.notice = ""  # for the user, until the next key or for some seconds
        self._notice_steps = 0  # that it still has
        self._game = playable.game
        self._dreamer = playable.dreamer
        self._held: set[str] = set()  # keys of the game that are down
        self._step_due = False  # although paused
        self._commands: dict[str, Callable[[], None]] = {
            "m": self._change_driver,
            ".": self._pause,
            "e": self._step_once,
            "r": self.restart,
            **dict.fromkeys(("tab", "n"), self.switch),
            **dict.fromkeys(("+", "=", "[+]"), lambda: self._change_temperature(TEMPERATURE_STEP)),
            **dict.fromkeys(("-", "[-]"), lambda: self._change_temperature(-TEMPERATURE_STEP)),
            **dict.fromkeys(("q", "escape"), self._close),
        }
        self.real.begin()

    def handle_key(self, key: str, down: bool = True) -> None:
        """A key, by pygame's name of it, was pressed or released."""
        if key in self._game.keys:
            (self._held.add if down else self._held.discard)(key)
        elif down and key in self._commands:
            self.notice = ""
            self._commands[key]()

    def step(self) -> np.ndarray:
        """Go one step on, unless paused or at the end; returns the picture of what there is then."""
        self.advance()
        self._notice_steps -= 1
        if self._notice_steps < 0:
            self.notice = ""
        return self.picture()

    def advance(self) -> None:
        """The same without the picture."""
        if (self._step_due or not self.paused) and not self.scene.over:
            self._take(self._human_action() if self.human else self.scene.agent.act())
        self._step_due = False

    def picture(self) -> np.ndarray:
        """What is shown, (H, W, 3) uint8; the sides are multiples of 8, as films want them."""
        top, status = self._top(), self._status()
        width = top.shape[1]
        text = (
            [viewer.table(status[:1], width), viewer.paragraph(self.notice, width, 3, viewer.ALERT)]
            if self.notice
            else [viewer.table(status, width), viewer.table(self._hints(), width, viewer.FAINT)]
        )
        return np.vstack([top, viewer.gap(width), *text])

    # What a way of showing has to say.

    @abstractmethod
    def switch(self) -> None:
        """From reality to the dream, or back."""

    @abstractmethod
    def restart(self) -> None:
        """Begin the next episode."""

    @abstractmethod
    def _take(self, action: np.ndarray) -> None:
        """Take the driver's action (A,)."""

    @abstractmethod
    def _top(self) -> np.ndarray:
        """The picture above the text."""

    @abstractmethod
    def _status(self) -> list[list[str]]:
        """Two lines of text: what is shown, and how it goes."""

    # Drivers, keys and text.

    def _notify(self, notice: str) -> None:
        self.notice, self._notice_steps = notice, NOTICE_SECONDS * self._game.frames_per_second

    def _human_action(self) -> np.ndarray:
        """What the keys that are down add up to (A,)."""
        sizes = self._game.sizes
        total = np.sum([self._game.keys[key] for key in self._held] + [np.zeros(sizes.action)], axis=0)
        return total.clip(sizes.lowest_action, sizes.highest_action).astype(np.float32)

    def _change_driver(self) -> None:
        if self.real.agent.can_drive:
            self.human = not self.human
        else:
            self._notify("there is no controller in this run folder: only a human can drive")

    def _pause(self) -> None:
        self.paused = not self.paused

    def _step_once(self) -> None:
        self._step_due = self.paused

    def _close(self) -> None:
        self.closed = True

    def _change_temperature(self, difference: float) -> None:
        if self._dreamer is not None:
            temperature = round(self._dreamer.temperature + difference, 2)
            self._dreamer.temperature = min(max(temperature, LOWEST_TEMPERATURE), HIGHEST_TEMPERATURE)
            self._notify(f"temperature of the dream: {self._dreamer.temperature:.2f}")

    def _driver(self) -> str:
        return "human drives" if self.human else "agent drives"

    def _time(self) -> str:
        return f"seed {self.scene.seed}, step {self.scene.steps}"

    def _temperature(self) -> str:
        return f"temperature {self._dreamer.temperature:.2f}" if self._dreamer else ""

    def _state(self) -> str:
        return "episode over" if self.scene.over else "paused" if self.paused else ""

    def _prediction(self) -> str:
        """What reward M predicted for the last step in reality, if it has learned to."""
        reward = self.real.agent.predicted_reward() if self.real.steps else None
        return "" if reward is None else f"M predicts {reward:+.2f}"

    def _hints(self) -> list[list[str]]:
        drive = "arrows" if self._game.keys.keys() <= ARROWS else " ".join(self._game.keys)
        return [
            ["m  human / agent", f"{drive}  drive", "tab  real / dream", ".  pause"],
            ["r  next episode", "+ -  temperature", "e  one step", "q  quit"],
        ]


class SingleView(Session):
    """Reality or M's dream, in one large picture. Both have episodes, returns and agents of their own."""

    SCALE = 9  # of a frame

    def __init__(self, playable: Playable, seed: int = 0, human: bool = False, in_dream: bool = False):
        super().__init__(playable, seed, human)
        self.dream = playable.dreamer and AgentScene(playable.dreamer, seed, playable.agent())
        self._why_no_dream = playable.why_no_dream
        if in_dream and self.dream:
            self.scene = self.dream
            self.dream.begin()

    def switch(self) -> None:
        """To a dream that begins at the present moment, or back to reality as it was left."""
        if self.scene is not self.real:
            self.scene = self.real
        elif self.dream:
            self.scene = self.dream
            self.dream.begin(self.real.agent.moment)
        else:
            self._notify(self._why_no_dream)

    def restart(self) -> None:
        self.scene.begin()

    def _take(self, action: np.ndarray) -> None:
        self.scene.step(action)

    def _top(self) -> np.ndarray:
        return viewer.enlarge(self.scene.frame, self.SCALE)

    def _status(self) -> list[list[str]]:
        scene = self.scene
        reward, earned = f"{scene.reward:+.2f}", f"return {scene.total_return:.1f}"
        if scene is self.real:
            return [
                ["reality", self._driver(), self._time(), earned],
                ["", f"reward {reward}", self._prediction(), self._state()],
            ]
        source = "M predicts" if self._game.step_reward is None else "reward"
        return [
            ["dream", self._driver(), self._time(), earned],
            [self._temperature(), "", f"{source} {reward}", self._state()],
        ]
