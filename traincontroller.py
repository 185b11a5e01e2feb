"""Train C, the controller, by evolution in the environment (paper, section 2.3 and appendix A.4), or in M's dream of it
(section 4).

    python traincontroller.py --logdir exp_dir --display
    python traincontroller.py --logdir exp_dir --env dream --temperature 1.15 --eval-env fast

Needs exp_dir/vae/best.tar and exp_dir/mdrnn/best.tar. Writes exp_dir/ctrl/best.tar, the best distribution mean so far
on the selection episodes (the last one with --search gradient), and exp_dir/ctrl/checkpoint.tar, from which the same
command continues. The workers' logs are in exp_dir/tmp.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from envs.dream import DreamSettings
from envs.games import DREAM, Game, environment_kinds
from evolution.run import open_run
from evolution.search import GRADIENT, SEARCHES, SearchSettings
from evolution.train import evolve
from models.sizes import INPUTS, Sizes
from utils.checkpoints import require_best
from utils.commandline import (
    ScriptParser,
    natural_int,
    pick_kind,
    population_size,
    positive_float,
    positive_int,
    run_script,
    share,
)
from utils.devices import pick_device
from utils.dreams import dream_pool
from utils.locks import locked
from utils.precision import fast_dtype
from utils.provenance import recorded
from utils.ray_cluster import open_cluster
from utils.rollouts import add_pool_arguments, rollout_pool
from utils.run_folder import load_dreams, load_game, load_world_weights
from utils.tracks import SELECTION_TRACKS
from utils.workers import Pool, cores

DEFAULT = SearchSettings()


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__file__, __doc__)
    run = parser.add_argument_group("run").add_argument
    run("--logdir", type=Path, required=True, help="run folder with V and M; C is written there")
    run("--warm-start", type=Path, metavar="LOGDIR", help="start from the controller of another run, not from zeros")
    run("--noreload", action="store_true", help="start over instead of continuing")
    run("--generations", type=positive_int, help="stop after this generation; without it, only at the target")
    run(
        "--target-return",
        type=float,
        help="stop when the mean reaches this on the selection episodes; without it, the game's; in a dream none",
    )
    run("--display", action="store_true", help="show a progress bar for every generation")

    search = parser.add_argument_group("search").add_argument
    search(
        "--search",
        choices=SEARCHES,
        default=DEFAULT.search,
        help="CMA-ES with a full or a diagonal covariance; mirrored pairs that count by the rank or by the root of "
        "their difference in return; or, in a dream, a policy gradient from its single steps",
    )
    search("--inputs", choices=INPUTS, help="what C sees: V's latent z, M's output h, its cell state c")
    search("--hidden-units", type=natural_int, default=0, help="tanh units between what C sees and its action; 0: none")
    search("--pop-size", type=population_size, default=DEFAULT.population, help="candidates in a generation")
    search("--n-samples", type=positive_int, default=DEFAULT.samples, help="episodes that every candidate drives")
    search(
        "--sigma",
        type=positive_float,
        nargs="+",
        help="deviation of the candidates' weights (with CMA-ES the initial one; a resumed search takes a new one); a "
        f"second number is that of the weights of M's state; with a gradient, that of C's outputs; without it, "
        f"{DEFAULT.sigma}, with a gradient 1",
    )
    search("--seed", type=natural_int, default=DEFAULT.seed, help="seed of the search and of its episodes")
    search(
        "--eval-episodes",
        type=positive_int,
        default=DEFAULT.eval_episodes,
        help=f"selection episodes that the mean is scored on, every {DEFAULT.eval_every} generations",
    )

    group = parser.add_argument_group("machine")
    machine = group.add_argument
    machine(
        "--env",
        choices=[*environment_kinds(), DREAM],
        help="where C learns: a kind of environment, or M's dream; without it, the game's fastest",
    )
    machine("--temperature", type=positive_float, default=1.0, help="of the dream: the higher, the less certain it is")
    machine(
        "--beginnings",
        type=share,
        help="of dreams: the share that surely begins where rollouts do, the others at any kept moment; without it, 1, "
        "with a gradient 0",
    )
    machine("--eval-env", choices=environment_kinds(), help="score the mean here, too; that decides nothing")
    add_pool_arguments(group)
    args = parser.parse_args(argv)
    for option in ("temperature", "beginnings"):
        if getattr(args, option) not in (None, 1) and args.env != DREAM:
            parser.error(f"argument --{option}: of --env {DREAM} only")
    if args.eval_episodes > len(SELECTION_TRACKS):
        parser.error(f"argument --eval-episodes: there are {len(SELECTION_TRACKS)}, see utils/tracks.py")
    gradient = args.search == GRADIENT
    args.sigma = args.sigma or [1.0 if gradient else DEFAULT.sigma]
    if args.beginnings is None:  # a dream of a policy gradient is short
        args.beginnings = 0.0 if gradient else 1.0
    if len(args.sigma) > (1 if gradient else 2):
        parser.error(f"argument --sigma: at most {'one number' if gradient else 'two numbers'}")
    if gradient and args.env != DREAM:
        parser.error(f"argument --search: {GRADIENT} is for --env {DREAM} only")
    try:
        settings_of(args).check()
    except ValueError as error:
        parser.error(f"argument --pop-size: {error}")
    return args


def settings_of(args: argparse.Namespace) -> SearchSettings:
    return SearchSettings(
        search=args.search,
        population=args.pop_size,
        samples=args.n_samples,
        sigma=args.sigma[0],
        memory_sigma=args.sigma[-1],
        seed=args.seed,
        eval_episodes=args.eval_episodes,
    )


def dreams_of(args: argparse.Namespace) -> DreamSettings:
    """How C dreams: in half precision where that is faster, as it learns on the CPU there."""
    dtype = fast_dtype(torch.device("cpu"), args.float32)
    return DreamSettings(args.temperature, dtype=dtype, beginnings=args.beginnings)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    game, sizes = load_game(args.logdir)
    sizes = replace(sizes, inputs=args.inputs or sizes.inputs, hidden_units=args.hidden_units)
    settings = replace(settings_of(args), patience=game.patience)
    args.device = pick_device(args.device)
    if args.env != DREAM:
        args.env = pick_kind(args.env, game.training_kind, game)
    dreams = load_dreams(args.logdir, dreams_of(args)) if args.env == DREAM else None
    open_pool = partial(dream_pool, dreams, sizes) if dreams else load_world(args, game, args.env, sizes)
    open_eval_pool = (
        load_world(args, game, pick_kind(args.eval_env, "", game, "--eval-env"), sizes) if args.eval_env else None
    )
    workers, logs = args.max_workers or cores(), args.logdir / "tmp"
    episodes = settings.eval_episodes if args.search == GRADIENT else settings.episodes  # of the pool at a time
    with locked(args.logdir / "ctrl"):
        run = open_run(args.logdir, game, name_of(args), sizes, settings, args.warm_start, not args.noreload, dreams)
        with (
            recorded(run.folder, args),
            open_cluster(args.ray, args.max_workers, pools=2 if open_eval_pool else 1) as cluster,
            open_pool(workers, episodes, logs, cluster=cluster) as pool,
            open_eval_pool(workers, settings.eval_episodes, logs / "eval", cluster=cluster)
            if open_eval_pool
            else nullcontext() as eval_pool,
        ):
            finished = evolve(run, settings, pool, eval_pool, args.generations, target_of(args, game), args.display)
    require_best(run.folder)
    print(f"{finished}; {run.standing} ({run.folder / 'best.tar'})")


def load_world(args: argparse.Namespace, game: Game, kind: str, sizes: Sizes) -> Callable[..., Pool]:
    """V and M for this kind of environment, ready for a pool: to be called with the workers, the episodes at a time,
    the folder of the logs, and the cluster. Raises UserError if one of them is missing or does not do for it."""
    weights = load_world_weights(args.logdir, sizes)
    return partial(rollout_pool, game, kind, weights, args.device, float32=args.float32)


def name_of(args: argparse.Namespace) -> str:
    """Names the world that C learns in: in another one its mean has another score."""
    if args.env != DREAM:
        return args.env
    return f"{DREAM} at temperature {args.temperature:g}, {args.beginnings:.0%} from the beginning"


def target_of(args: argparse.Namespace, game: Game) -> float:
    """The return at which the search ends."""
    if args.target_return is not None:
        return args.target_return
    return float("inf") if args.env == DREAM else game.target_return


if __name__ == "__main__":
    run_script(main)
