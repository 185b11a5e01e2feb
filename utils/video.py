"""Films of episodes, as files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2 as imageio
import numpy as np

from utils.commandline import UserError
from utils.rollouts import Recorder

VIDEO_FORMATS = (".gif", ".mp4")
GIF_STRIDE = 4  # a GIF keeps every fourth frame at half the size: a lap in some megabytes


class FilmRecorder(Recorder):
    """Adds an episode to a film as it is drawn for viewers."""

    def __init__(self, film: Any, gif: bool):
        self._film = film
        self._gif = gif
        self._step = 0

    def act(self, environment: gymnasium.Env, action: np.ndarray, reward: float, terminated: bool) -> None:
        if not self._gif:
            self._film.append_data(environment.render())
        elif self._step % GIF_STRIDE == 0:
            self._film.append_data(np.asarray(environment.render())[::2, ::2])
        self._step += 1


@contextlib.contextmanager
def film_recorder(path: Path, frames_per_second: int) -> Iterator[FilmRecorder]:
    """Records an episode to a .gif (fewer and smaller frames, endless) or .mp4 (all of them). Raises UserError if the
    file cannot be written."""
    gif = path.suffix == ".gif"
    options: dict[str, Any] = (
        {"duration": 1000 * GIF_STRIDE / frames_per_second, "loop": 0}
        if gif
        else {"fps": frames_per_second, "codec": "libx264", "macro_block_size": 8}
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with imageio.get_writer(path, **options) as film:
            yield FilmRecorder(film, gif)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error
