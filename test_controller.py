"""Score the trained controller in episodes that it has never seen.

    python test_controller.py --logdir exp_dir

Drives seeded episodes with V, M and C of the run folder, CarRacing's in Gymnasium's own renderer; episode i is
reset(seed=seed+i), so the same command gives the same returns again. The last line on stdout is the score.
"""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from envs.games import Game, environment_kinds
from models.world_model import WorldModel
from utils.commandline import ScriptParser, natural_int, output_file, pick_kind, positive_int, run_script
from utils.devices import pick_device
from utils.files import write_json
from utils.precision import fast_dtype
from utils.provenance import recorded
from utils.ray_cluster import open_cluster
from utils.rollouts import Episode, Outcome, add_pool_arguments, drive_episode, rollout_pool
from utils.run_folder import load_controller, load_game, load_world_weights
from utils.tracks import TEST_TRACKS
from utils.video import FilmRecorder, open_film, video_file
from utils.workers import cores


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__file__, __doc__)
    option = parser.add_argument
    option("--logdir", type=Path, required=True, help="run folder with V, M and C")
    option("--episodes", type=positive_int, default=100, help="how many episodes")
    option("--seed", type=natural_int, default=0, help="seed of the first episode; episode i has seed + i")
    option("--env", choices=environment_kinds(), help="kind of environment; without it, the game's own renderer")
    option("--json", type=output_file, metavar="FILE", help="write the score and every return to this file")
    option("--record", type=video_file, metavar="FILE", help="write the first episode as a film (.gif or .mp4)")
    option("--render", action="store_true", help="show the first episode in a window")
    add_pool_arguments(parser)
    args = parser.parse_args(argv)
    if args.seed + args.episodes > len(TEST_TRACKS):
        parser.error(f"argument --seed: only seeds 0 to {TEST_TRACKS[-1]} are for tests, see utils/tracks.py")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    device = pick_device(args.device)
    torch.set_num_threads(1)  # as in the workers: with more the roundings differ, and the film from the score
    game, _ = load_game(args.logdir)
    args.env = pick_kind(args.env, game.scoring_kind, game)
    model = load_controller(args.logdir)
    controller = model.to_vector().numpy()
    weights = load_world_weights(args.logdir, model.sizes)

    if args.render or args.record:
        show(args, game, WorldModel(weights, device, fast_dtype(device, args.float32)), controller)

    outcomes: dict[int, Outcome] = {}
    jobs = [Episode(controller, args.seed + i) for i in range(args.episodes)]
    workers, logs = args.max_workers or cores(), args.logdir / "tmp"
    with (
        recorded(args.json.parent, args, f"{args.json.stem}.args.json") if args.json else contextlib.nullcontext(),
        open_cluster(args.ray, args.max_workers) as cluster,
        rollout_pool(
            game, args.env, weights, device, workers, args.episodes, logs, args.float32, cluster=cluster
        ) as pool,
    ):
        outcomes |= tqdm(pool.run(jobs), "episodes", args.episodes, unit="episode", disable=None)
        returns = np.array([outcomes[i].total_return for i in range(args.episodes)])
        try:
            if args.json:
                write_json(args.json, score(args, game, returns, [outcomes[i].length for i in range(args.episodes)]))
                print(f"returns: {args.json}")
        finally:  # on a full disk, too
            print(f"score {returns.mean():.1f} +- {returns.std():.1f} over {len(returns)} tracks")


def show(args: argparse.Namespace, game: Game, world: WorldModel, controller: np.ndarray) -> None:
    """Drive the first episode in a window, on film, or both in turn."""
    if args.render:
        outcome = drive_episode(world, game, args.env, Episode(controller, args.seed), "human")
        print(f"shown: seed {args.seed}, return {outcome.total_return:.1f}")
    if args.record:
        with open_film(args.record, game.frames_per_second) as film:
            episode = Episode(controller, args.seed, recorder=FilmRecorder(film))
            outcome = drive_episode(world, game, args.env, episode, "rgb_array")
        print(f"recorded: seed {args.seed}, return {outcome.total_return:.1f}: {args.record}")


def score(args: argparse.Namespace, game: Game, returns: np.ndarray, lengths: list[int]) -> dict:
    return {
        "env": args.env,
        "env_version": game.versions,
        "seed": args.seed,
        "episodes": args.episodes,
        "mean": returns.mean(),
        "std": returns.std(),
        "sem": returns.std() / len(returns) ** 0.5,
        "min": returns.min(),
        "max": returns.max(),
        "returns": returns.tolist(),
        "lengths": lengths,
        "logdir": str(args.logdir),
    }


if __name__ == "__main__":
    run_script(main)
