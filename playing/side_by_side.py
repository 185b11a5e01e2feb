"""Playing with three pictures: reality, what V keeps of it, and M's dream."""

import numpy as np

from playing import viewer
from playing.playable import Playable
from playing.scenes import Scene
from playing.session import Session
from utils.commandline import UserError

DREAM_STEPS = 200  # of a dream
WARM_UP = 60  # steps of reality before the first dream: M gets to know where it is


class SideBySide(Session):
    """Reality, what V keeps of it, and a dream that goes on alone with the same actions, beside each other.

    The dream begins after a warm-up, and begins anew, from where reality is, after every so many steps.
    """

    SCALE = 5

    def __init__(
        self,
        playable: Playable,
        seed: int = 0,
        human: bool = False,
        dream_steps: int = DREAM_STEPS,
        warm_up: int = WARM_UP,
    ):
        """Raises UserError if M cannot dream."""
        super().__init__(playable, seed, human)
        if playable.dreamer is None:
            raise UserError(playable.why_no_dream)
        self.dream = Scene(playable.dreamer, seed)
        self._decode = playable.dreamer.decode
        self._dream_steps, self._warm_up = dream_steps, warm_up
        self._return_before = 0.0  # of reality, where the dream began

    def switch(self) -> None:
        self._notify("reality and dream are both shown")

    def restart(self) -> None:
        self.dream.clear()
        self.real.begin()

    def _take(self, action: np.ndarray) -> None:
        awake = self.real.steps - self._warm_up
        if awake >= 0 and awake % self._dream_steps == 0:
            self.dream.begin(self.real.agent.moment)
            self._return_before = self.real.total_return
        self.real.step(action)
        self.dream.step(action)

    def _top(self) -> np.ndarray:
        seen = self._decode(self.real.agent.moment.latent)
        frames = (self.real.frame, seen, self.dream.frame)
        return viewer.columns([self._column(*column) for column in zip(frames, self._captions(), strict=True)])

    def _column(self, frame: np.ndarray, captions: list[str]) -> np.ndarray:
        picture = viewer.enlarge(frame, self.SCALE)
        return np.vstack([picture, viewer.table([[caption] for caption in captions], picture.shape[1])])

    def _captions(self) -> list[list[str]]:
        """Two lines for every column."""
        reality, dream = f"return {self.real.total_return:.1f}", ""
        title = f"M's dream, which begins at step {self._warm_up}"
        if self.dream.steps:
            steps, end = self.dream.steps, ", then it ended" if self.dream.over else ""
            reality += f", since the dream began {self.real.total_return - self._return_before:.1f}"
            dream = f"return {self.dream.total_return:.1f} in {steps} steps{end}"
            title = f"M's dream, begun anew every {self._dream_steps} steps"
        return [["reality", reality], ["what V keeps of it", ""], [title, dream]]

    def _status(self) -> list[list[str]]:
        reward = f"reward {self.real.reward:+.2f}"
        return [
            [self._driver(), self._time(), reward, self._temperature()],
            ["", self._state(), self._prediction(), ""],
        ]
