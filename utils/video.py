"""Watching one episode: step by step, as pictures in a file or in a window."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import torch

from envs import make_env
from models.driver import Driver
from models.mdrnn import HIDDEN_SIZE
from utils.commandline import UserError
from utils.rollouts import BATCH_MULTIPLE

VIDEO_FORMATS = (".gif", ".mp4")
FRAMES_PER_SECOND = 50  # CarRacing's
GIF_STRIDE = 4  # a GIF keeps every fourth frame at half the size: a lap in some megabytes


def drive_episode(driver: Driver, controller: np.ndarray, environment: gym.Env, track: int) -> Iterator[float]:
    """Drive one episode; yields the return so far after every step. The car drives as it does among others in
    utils.rollouts."""
    observation, _ = environment.reset(seed=track)
    frames = torch.zeros(BATCH_MULTIPLE, *observation.shape, dtype=torch.uint8)
    controllers = torch.from_numpy(controller).expand(BATCH_MULTIPLE, -1).to(driver.device)
    hidden = torch.zeros(BATCH_MULTIPLE, HIDDEN_SIZE, device=driver.device)
    memory = torch.zeros_like(hidden)
    total_return, done = 0.0, False
    while not done:
        frames[0] = torch.from_numpy(observation)
        action = driver.step(frames, controllers, hidden, memory)[0].cpu().numpy()
        observation, reward, terminated, truncated, _ = environment.step(action)
        total_return += float(reward)
        done = terminated or truncated
        yield total_return


def watch_episode(
    driver: Driver, controller: np.ndarray, env_kind: str, track: int, render_mode: str
) -> Iterator[tuple[np.ndarray | None, float]]:
    """Drive one episode; after every step yields the rendered frame (400, 600, 3), or None in render mode "human",
    and the return so far."""
    environment = make_env(env_kind, render_mode=render_mode)
    try:
        for total_return in drive_episode(driver, controller, environment, track):
            yield environment.render(), total_return
    finally:
        environment.close()


def record_episode(driver: Driver, controller: np.ndarray, env_kind: str, track: int, path: Path) -> float:
    """Drive one episode and film it, as a .gif (fewer and smaller frames, endless) or .mp4 (all of them); returns its
    return. Raises UserError if the file cannot be written."""
    gif = path.suffix == ".gif"
    options: dict[str, Any] = (
        {"duration": 1000 * GIF_STRIDE / FRAMES_PER_SECOND, "loop": 0}
        if gif
        else {"fps": FRAMES_PER_SECOND, "codec": "libx264", "macro_block_size": 8}
    )
    steps = watch_episode(driver, controller, env_kind, track, "rgb_array")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with imageio.get_writer(path, **options) as film:
            for step, (frame, total_return) in enumerate(steps):  # noqa: B007
                if not gif:
                    film.append_data(frame)
                elif step % GIF_STRIDE == 0:
                    film.append_data(frame[::2, ::2])
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error
    return total_return
