"""Films, as files: of an episode as it is drawn for viewers, or of any pictures."""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np

from utils.commandline import UserError, first_line, output_file
from utils.files import UNFINISHED
from utils.rollouts import Recorder

VIDEO_FORMATS = (".gif", ".mp4")
GIF_STRIDE = 4  # a GIF keeps every fourth picture: a lap in some megabytes


def video_file(text: str) -> Path:
    """argparse type: a file name that ends in .gif or .mp4."""
    path = output_file(text)
    if path.suffix not in VIDEO_FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither {' nor '.join(VIDEO_FORMATS)}")
    return path


class Film:
    """A film under way, at the pace at which its pictures are added."""

    def __init__(self, writer: Any, gif: bool):
        self.gif = gif
        self._writer = writer
        self._added = 0  # pictures, those that are left out among them

    def add(self, draw: Callable[[], np.ndarray]) -> None:
        """The next picture (H, W, 3) uint8, which is only drawn if it is kept."""
        if not self.gif or self._added % GIF_STRIDE == 0:
            self._writer.append_data(draw())
        self._added += 1

    def check(self, path: Path) -> None:
        """Raises OSError if the file does not hold what was added: of a full disk at its end, ffmpeg says nothing."""
        if self.gif or not self._added:
            return
        try:
            kept, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
        except RuntimeError as error:
            raise OSError(first_line(error)) from error
        if kept != self._added:
            raise OSError("pictures are missing at its end")


@contextlib.contextmanager
def open_film(path: Path, frames_per_second: int) -> Iterator[Film]:
    """Begins a .gif (of every fourth picture, endless) or .mp4 (of all; sides are multiples of 8), which is put in its
    place when it is whole. Raises UserError if the file cannot be written."""
    gif = path.suffix == ".gif"
    options: dict[str, Any] = (
        {"duration": 1000 * GIF_STRIDE / frames_per_second, "loop": 0}
        if gif
        else {"fps": frames_per_second, "codec": "libx264", "macro_block_size": 8}
    )
    temporary = path.with_name(f".{path.stem}{UNFINISHED}{path.suffix}")  # the suffix tells ffmpeg the format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with imageio.get_writer(temporary, **options) as writer:
            film = Film(writer, gif)
            yield film
        film.check(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({first_line(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)


class FilmRecorder(Recorder):
    """Adds an episode to a film as it is drawn for viewers; to a GIF at half the size."""

    def __init__(self, film: Film):
        self._film = film

    def act(self, environment: gymnasium.Env, action: np.ndarray, reward: float, terminated: bool) -> None:
        self._film.add(lambda: self._draw(environment))

    def _draw(self, environment: gymnasium.Env) -> np.ndarray:
        picture = np.asarray(environment.render())
        return picture[::2, ::2] if self._film.gif else picture
