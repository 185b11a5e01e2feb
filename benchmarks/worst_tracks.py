"""Draws what went wrong on the tracks where a driver scored worst.

    python -m benchmarks.worst_tracks --logdir pretrained --score docs/results/driver_score.json

Drives the worst tracks of a score, as test_controller.py --json wrote it, again. Every column is a track: from above,
with the tiles that were missed and the car's way, and below it what the car looked like where it passed the first of
them. Prints a line for each track.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from envs import make_env  # noqa: E402
from models.driver import Driver  # noqa: E402
from utils.checkpoints import load_controller, load_driver  # noqa: E402
from utils.commandline import positive_int, run_script, script_parser  # noqa: E402
from utils.precision import fast_dtype  # noqa: E402
from utils.video import drive_episode  # noqa: E402

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "worst_tracks.png"
LOOK_BACK = 25  # steps: what went wrong did so half a second before the tile was missed


class Drive(NamedTuple):
    """One episode from above."""

    total_return: float
    tiles: np.ndarray  # (N, 2): the middle of the road, tile by tile
    missed: np.ndarray  # (N,) bool
    way: np.ndarray  # (T, 2): where the car was
    first_missed: int | None  # the step at which the car was nearest to the first tile that it missed
    view: np.ndarray  # (400, 600, 3): what it looked like LOOK_BACK steps before, or at the end


def main() -> None:
    args = parse_arguments()
    score = json.loads(args.score.read_text())
    torch.set_num_threads(1)  # as in test_controller.py, whose returns these are to be
    model = load_controller(args.logdir)
    device = torch.device("cpu")
    driver = load_driver(args.logdir, model.architecture, device, fast_dtype(device))
    controller = model.to_vector().numpy()
    drives = {}
    for number in np.argsort(score["returns"])[: args.tracks]:
        track = score["seed"] + int(number)
        drives[track] = drive = watch(driver, controller, score["env"], track)
        print(
            f"track {track}: return {drive.total_return:.1f} (scored {score['returns'][number]:.1f}), "
            f"{len(drive.way)} steps, {drive.missed.sum()} of {len(drive.tiles)} tiles missed, "
            + ("none" if drive.first_missed is None else f"the first at step {drive.first_missed}")
        )
    draw(drives, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder of the driver")
    parser.add_argument("--score", type=Path, required=True, help="its score, written by test_controller.py --json")
    parser.add_argument("--tracks", type=positive_int, default=5, help="how many of the worst")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture")
    return parser.parse_args()


def watch(driver: Driver, controller: np.ndarray, env_kind: str, track: int) -> Drive:
    """Drive one track and keep what is needed to see where tiles were missed."""
    environment = make_env(env_kind, render_mode="rgb_array")
    returns, way, views = [], [], []
    for total_return in drive_episode(driver, controller, environment, track):
        returns.append(total_return)
        way.append(tuple(environment.unwrapped.car.hull.position))
        views.append(environment.render())
    tiles = np.array([tile[2:] for tile in environment.unwrapped.track])
    missed = np.array([not tile.road_visited for tile in environment.unwrapped.road])
    environment.close()
    way = np.array(way)
    step = None
    if missed.any():
        step = int(np.linalg.norm(way - tiles[missed.argmax()], axis=1).argmin())
    view = views[-1 if step is None else max(0, step - LOOK_BACK)]
    return Drive(returns[-1], tiles, missed, way, step, view)


def draw(drives: dict[int, Drive], path: Path) -> None:
    """drives: by the seed of their track."""
    figure, axes = plt.subplots(
        2, len(drives), figsize=(3.2 * len(drives), 5.6), squeeze=False, height_ratios=(3.2, 2.2), layout="constrained"
    )
    for column, (track, drive) in enumerate(drives.items()):
        above, view = axes[:, column]
        above.plot(*drive.tiles.T, color="lightgrey", linewidth=6, solid_capstyle="round")
        above.scatter(*drive.tiles[drive.missed].T, color="tab:red", s=14, zorder=2, label="tiles missed")
        above.plot(*drive.way.T, color="tab:blue", linewidth=0.9, label="the car's way")
        above.plot(*drive.way[-1], "s", color="tab:blue", markersize=5, label="its end")
        above.set(title=f"track {track}: {drive.total_return:.0f}", aspect="equal", xticks=[], yticks=[])
        view.imshow(drive.view)
        view.set(xticks=[], yticks=[])
    axes[0, 0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run_script(main)
