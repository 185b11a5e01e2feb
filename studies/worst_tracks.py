"""Draws what went wrong on the tracks where a driver scored worst.

    python -m studies.worst_tracks --logdir pretrained --score docs/results/driver_score.json

Drives the worst tracks of a score, as test_controller.py --json wrote it, again. Every column is a track: from above,
with the tiles that were missed and the car's way, and below it what the car looked like where it passed the first of
them. Prints a line for each track.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure

from envs.carracing_truth import car_position, road
from envs.games import CARRACING
from utils.commandline import ScriptParser, positive_int, run_script
from utils.files import read_json
from utils.rollouts import Episode, Recorder, drive_episode
from utils.run_folder import load_driver

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "worst_tracks.png"
LOOK_BACK = 25  # steps: what went wrong did so half a second before the tile was missed


class Drive(NamedTuple):
    """One episode from above."""

    tiles: np.ndarray  # (N, 2): the middle of the road, tile by tile
    missed: np.ndarray  # (N,) bool
    way: np.ndarray  # (T, 2): where the car was
    first_missed: int | None  # the step at which the car was nearest to the first tile that it missed
    view: np.ndarray  # (400, 600, 3): what it looked like LOOK_BACK steps before, or at the end


class DriveRecorder(Recorder):
    """What is needed to see where tiles were missed."""

    def __init__(self) -> None:
        self._way: list[tuple[float, float]] = []
        self._views: list[np.ndarray] = []

    def see(self, environment: gymnasium.Env, frame: np.ndarray) -> None:
        self._environment = environment

    def act(self, environment: gymnasium.Env, action: np.ndarray, reward: float, terminated: bool) -> None:
        self._way.append(car_position(environment))
        self._views.append(np.asarray(environment.render()))

    def result(self) -> Drive:
        tiles, missed = road(self._environment)
        way = np.array(self._way)
        step = int(np.linalg.norm(way - tiles[missed.argmax()], axis=1).argmin()) if missed.any() else None
        view = self._views[-1 if step is None else max(0, step - LOOK_BACK)]
        return Drive(tiles, missed, way, step, view)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder of the driver")
    parser.add_argument("--score", type=Path, required=True, help="its score, written by test_controller.py --json")
    parser.add_argument("--tracks", type=positive_int, default=5, help="how many of the worst")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture")
    args = parser.parse_args(argv)
    score = read_json(args.score)
    torch.set_num_threads(1)  # as in test_controller.py, whose returns these are to be
    world, controller = load_driver(args.logdir)
    drives: dict[str, Drive] = {}
    for number in np.argsort(score["returns"])[: args.tracks]:
        track = score["seed"] + int(number)
        episode = Episode(controller, track, recorder=DriveRecorder())
        outcome = drive_episode(world, CARRACING, score["env"], episode, "rgb_array")
        drive: Drive = outcome.record
        drives[f"track {track}: {outcome.total_return:.0f}"] = drive
        print(
            f"track {track}: return {outcome.total_return:.1f} (scored {score['returns'][number]:.1f}), "
            f"{len(drive.way)} steps, {drive.missed.sum()} of {len(drive.tiles)} tiles missed, "
            + ("none" if drive.first_missed is None else f"the first at step {drive.first_missed}")
        )
    draw(drives, args.out)


def draw(drives: dict[str, Drive], path: Path) -> None:
    """drives: by title."""
    figure = Figure(figsize=(3.2 * len(drives), 5.6), layout="constrained")
    axes = figure.subplots(2, len(drives), squeeze=False, height_ratios=(3.2, 2.2))
    for column, (title, drive) in enumerate(drives.items()):
        above, view = axes[:, column]
        above.plot(*drive.tiles.T, color="lightgrey", linewidth=6, solid_capstyle="round")
        above.scatter(*drive.tiles[drive.missed].T, color="tab:red", s=14, zorder=2, label="tiles missed")
        above.plot(*drive.way.T, color="tab:blue", linewidth=0.9, label="the car's way")
        above.plot(*drive.way[-1], "s", color="tab:blue", markersize=5, label="its end")
        above.set(title=title, aspect="equal", xticks=[], yticks=[])
        view.imshow(drive.view)
        view.set(xticks=[], yticks=[])
    axes[0, 0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_script(main)
