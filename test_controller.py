"""Score the trained driver on tracks that it has never seen.

    python test_controller.py --logdir exp_dir

Drives seeded tracks with V, M and C of the run folder in Gymnasium's own renderer; track i is reset(seed=seed+i), so
the same command gives the same returns again. The last line on stdout is the score.
"""

import argparse
import os
from pathlib import Path

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from utils.checkpoints import load_controller, load_driver, write_json
from utils.commandline import (
    add_device_argument,
    natural_int,
    pick_device,
    positive_int,
    run_script,
    script_parser,
)
from utils.precision import fast_dtype
from utils.rollouts import Episode, Outcome, rollout_pool
from utils.tracks import TEST_TRACKS
from utils.video import VIDEO_FORMATS, record_episode, watch_episode
from utils.workers import cores


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__)
    option = parser.add_argument
    option("--logdir", type=Path, required=True, help="run folder with V, M and C")
    option("--episodes", type=positive_int, default=100, help="how many tracks")
    option("--seed", type=natural_int, default=0, help="seed of the first track; track i has seed + i")
    option("--env", choices=["fast", "gymnasium"], default="gymnasium", help="drawing of the environment")
    option("--json", type=output_file, metavar="FILE", help="write the score and every return to this file")
    option("--record", type=video_file, metavar="FILE", help="write the first track as a film (.gif or .mp4)")
    option("--render", action="store_true", help="show the first track in a window")
    option("--max-workers", type=positive_int, default=cores(), help="rollout processes at most")
    option("--float32", action="store_true", help="never compute in half precision")
    add_device_argument(parser)
    args = parser.parse_args()
    if args.seed + args.episodes > len(TEST_TRACKS):
        parser.error(f"argument --seed: only tracks 0 to {TEST_TRACKS[-1]} are for tests, see utils/tracks.py")
    return args


def output_file(text: str) -> Path:
    """argparse type: a file that may be written, before an hour is spent on what goes into it."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {folder} is no folder to write to")
    return path


def video_file(text: str) -> Path:
    """argparse type: a file name that ends in .gif or .mp4."""
    path = output_file(text)
    if path.suffix not in VIDEO_FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither {' nor '.join(VIDEO_FORMATS)}")
    return path


def main() -> None:
    args = parse_arguments()
    device = pick_device(args.device)
    torch.set_num_threads(1)  # as in the workers: with more the roundings differ, and the film from the score
    model = load_controller(args.logdir)
    controller = model.to_vector().numpy()

    if args.render or args.record:
        dtype = torch.float32 if args.float32 else fast_dtype(device)
        driver = load_driver(args.logdir, model.architecture, device, dtype)
    if args.render:
        *_, (_, total_return) = watch_episode(driver, controller, args.env, args.seed, "human")
        print(f"shown: track {args.seed}, return {total_return:.1f}")
    if args.record:
        total_return = record_episode(driver, controller, args.env, args.seed, args.record)
        print(f"recorded: track {args.seed}, return {total_return:.1f}: {args.record}")

    outcomes: list[Outcome | None] = [None] * args.episodes
    jobs = [Episode(controller, args.seed + i) for i in range(args.episodes)]
    with rollout_pool(
        args.logdir, model.architecture, args.env, device, args.max_workers, args.episodes, args.float32
    ) as pool:
        for number, outcome in tqdm(pool.run(jobs), "tracks", args.episodes, unit="track", disable=None):
            outcomes[number] = outcome
    returns = np.array([outcome.total_return for outcome in outcomes])

    if args.json:
        score = {
            "env": args.env,
            "env_version": f"CarRacing-v3, gymnasium {gymnasium.__version__}",
            "seed": args.seed,
            "episodes": args.episodes,
            "mean": returns.mean(),
            "std": returns.std(),
            "sem": returns.std() / len(returns) ** 0.5,
            "min": returns.min(),
            "max": returns.max(),
            "returns": returns.tolist(),
            "lengths": [outcome.length for outcome in outcomes],
            "logdir": str(args.logdir),
        }
        write_json(args.json, score)
        print(f"returns: {args.json}")
    print(f"score {returns.mean():.1f} +- {returns.std():.1f} over {len(returns)} tracks")


if __name__ == "__main__":
    run_script(main)
