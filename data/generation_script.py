"""Drive a game and store the rollouts that V and M learn from.

    python data/generation_script.py --rollouts 1000 --rootdir datasets/carracing --threads 8
    python data/generation_script.py --rootdir datasets/carracing/round_1 --seed 1 --policy controller --logdir exp_dir

Rollout j is <rootdir>/thread_<j modulo threads>/rollout_<j>.npz. What it holds depends on --game, --seed, --policy,
--patience, --env and j alone, and with --policy controller on the models in --logdir and on --noise. The same command
again goes on where it stopped; with a larger --rollouts it adds the missing ones.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script's own folder is there, not the project's

from data.loaders import rollout_number
from data.policies import POLICIES, exploration_noise
from data.rollouts import PolicyRunner, Rollout, RolloutRecorder, save_rollout
from envs.games import CARRACING, GAMES, Game, environment_kinds
from models.controller import Controller
from models.world_model import BATCH_MULTIPLE, Weights
from utils.archives import DamagedFile, array_names
from utils.commandline import ScriptParser, UserError, natural_float, natural_int, pick_kind, positive_int, run_script
from utils.devices import add_device_argument, pick_device
from utils.files import write_json
from utils.locks import locked
from utils.provenance import recorded
from utils.ray_cluster import RayCluster, add_ray_argument, open_cluster
from utils.rollouts import Episode, rollout_pool
from utils.run_folder import fingerprint, load_controller, load_game, load_world_weights
from utils.tracks import data_track
from utils.workers import Pool, WorkerPool, cores

CONTROLLER = "controller"  # the policy that is no noise
NOISE = 0.3
Driver = tuple[Controller, Weights]  # C, and V and M for it


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__file__, __doc__)
    option = parser.add_argument
    option("--game", choices=list(GAMES), default=CARRACING.name, help="what to drive")
    option("--rollouts", type=positive_int, default=1000, help="rollouts to have in the end, in all")
    option("--rootdir", type=Path, default=Path("datasets/carracing"), help="folder to put them in")
    option("--threads", type=positive_int, default=8, help="folders to spread them over, and most processes here")
    option(
        "--policy",
        choices=[*POLICIES, CONTROLLER],
        help="random actions, or a trained controller; without it, the game's random actions",
    )
    option("--logdir", type=Path, help="run folder of the controller for --policy controller")
    option(
        "--noise",
        type=natural_float,
        default=argparse.SUPPRESS,
        help=f"largest deviation of what is added to a controller's actions (default: {NOISE})",
    )
    option("--seed", type=natural_int, default=0, help="decides all episodes and actions")
    option(
        "--patience",
        type=natural_int,
        default=0,
        help="end a rollout after so many steps without progress, in games that can tell; 0: never",
    )
    option("--env", choices=environment_kinds(), help="kind of environment; without it, the game's fastest")
    add_ray_argument(parser)
    add_device_argument(parser)
    args = parser.parse_args(argv)
    if args.policy == CONTROLLER and args.logdir is None:
        parser.error("--policy controller needs the --logdir of a trained controller")
    if args.policy != CONTROLLER and (args.logdir or args.ray or "noise" in args):
        parser.error("--logdir, --noise and --ray belong to --policy controller")
    if args.policy == CONTROLLER:
        args.noise = getattr(args, "noise", NOISE)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    game = GAMES[args.game]
    args.env = pick_kind(args.env, game.training_kind, game)
    args.policy = args.policy or game.policy
    settings = settings_of(args, game)  # before the driver is read, which may be in training
    driver = load_driver(args, game) if args.policy == CONTROLLER else None
    with locked(args.rootdir):
        generate(args, game, driver, settings)


def generate(args: argparse.Namespace, game: Game, driver: Driver | None, settings: dict[str, Any]) -> None:
    """Make the rollouts that are missing. Nobody else may write to the folder meanwhile."""
    present = existing_rollouts(args.rootdir)
    claim(args.rootdir, settings, present)
    missing = [number for number in range(args.rollouts) if number not in present or not intact(present[number])]
    if not missing:
        print(f"nothing to do: {len(present)} rollouts are in {args.rootdir} already")
        return
    frames, start = 0, time.perf_counter()
    workers = min(args.threads, cores(), len(missing))
    with (
        recorded(args.rootdir, args),
        open_cluster(args.ray, most=None) as cluster,
        open_pool(args, game, driver, workers, len(missing), cluster) as pool,
        tqdm(total=args.rollouts, initial=args.rollouts - len(missing), unit="rollout", disable=None) as progress,
    ):
        for job, outcome in pool.run(jobs_of(args, game, driver, missing)):
            number = missing[job]
            path = args.rootdir / f"thread_{number % args.threads}" / f"rollout_{number}.npz"
            save_rollout(present.get(number, path), outcome.record)
            frames += outcome.length
            progress.update()
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in existing_rollouts(args.rootdir).values())
    where = f"--ray {args.ray}" if args.ray else f"{workers} processes"
    print(
        f"{len(missing)} rollouts, {frames} frames, {frames / seconds:.0f} frames/s with {where}; "
        f"{size / 1e6:.0f} MB in {args.rootdir}"
    )


def load_driver(args: argparse.Namespace, game: Game) -> Driver:
    """The controller, and V and M for it. Raises UserError if one is missing, or of another game."""
    if (other := load_game(args.logdir)[0].name) != game.name:
        raise UserError(f"{args.logdir / 'vae' / 'best.tar'}: made for another game; add --game {other}")
    controller = load_controller(args.logdir)
    return controller, load_world_weights(args.logdir, controller.sizes)


def settings_of(args: argparse.Namespace, game: Game) -> dict[str, Any]:
    """What the rollouts depend on."""
    settings = {"game": game.name, "policy": args.policy, "seed": args.seed, "env": args.env}
    settings |= {game.package: game.release} | ({"patience": args.patience} if args.patience else {})
    if args.policy == CONTROLLER:
        settings |= {"driver": fingerprint(args.logdir, "vae", "mdrnn", "ctrl"), "noise": args.noise}
    return settings


def open_pool(
    args: argparse.Namespace, game: Game, driver: Driver | None, workers: int, rollouts: int, cluster: RayCluster | None
) -> Pool:
    """Workers for the jobs that `jobs_of` makes; so many, unless they are on a cluster."""
    logs = args.rootdir / "logs"
    if driver is None:
        game.make(args.env).reset(seed=0)  # what is compiled is compiled once, rather than in every worker
        return WorkerPool(PolicyRunner, [(game, args.env, POLICIES[args.policy], args.patience)] * workers, 2, logs)
    device = pick_device(args.device)
    # Fewer at a time than in training, because every one keeps its frames.
    return rollout_pool(
        game, args.env, driver[1], device, workers, rollouts, logs, environments=BATCH_MULTIPLE, cluster=cluster
    )


def jobs_of(args: argparse.Namespace, game: Game, driver: Driver | None, numbers: list[int]) -> Iterator[Any]:
    """What the workers need to know of these rollouts."""
    for number in numbers:
        seed = data_track(args.seed, number)
        actions = [args.seed, number, 1]  # the 1 keeps the actions independent of the seed, drawn from the first two
        if driver is None:
            yield seed, actions
        else:
            controller = driver[0]
            generator = np.random.default_rng(actions)
            noise = exploration_noise(generator, controller.sizes, game.max_steps, args.noise)
            yield Episode(controller.to_vector().numpy(), seed, args.patience, noise, RolloutRecorder())


def existing_rollouts(rootdir: Path) -> dict[int, Path]:
    """The rollouts in a folder by number, whatever --threads they were made with."""
    paths = sorted(rootdir.glob("thread_*/rollout_*.npz"))
    return {number: path for path in paths if (number := rollout_number(path)) is not None}


def claim(rootdir: Path, settings: dict[str, Any], present: dict[int, Path]) -> None:
    """Write the settings into the folder; raises UserError if its rollouts were made with others."""
    record = rootdir / "generation.json"
    remedy = "choose another --rootdir, or move that folder away"
    if record.exists():
        try:
            recorded_settings = {"game": CARRACING.name} | json.loads(record.read_text())
        except (ValueError, TypeError, RecursionError):
            raise UserError(f"{record}: damaged; {remedy}") from None
        if recorded_settings != settings:
            raise UserError(f"{record}: rollouts made with {recorded_settings} lie here, not with {settings}; {remedy}")
    elif present:
        raise UserError(f"{record}: missing, so {min(present.values())} is of an unknown kind; {remedy}")
    else:
        write_json(record, settings)


def intact(path: Path) -> bool:
    """Whether a file is whole; says so if it is not. Raises UserError if it is whole but no rollout."""
    try:
        names = array_names(path)
    except DamagedFile:
        print(f"{path}: damaged; it is made again", file=sys.stderr)
        return False
    if not names >= set(Rollout._fields):
        raise UserError(f"{path}: not a rollout of this script; move it away and run the same command again")
    return True


if __name__ == "__main__":
    run_script(main)
