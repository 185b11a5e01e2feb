"""Train C, the controller, by evolution in the environment (paper, section 2.3 and appendix A.4).

    python traincontroller.py --logdir exp_dir --display

Needs exp_dir/vae/best.tar and exp_dir/mdrnn/best.tar. Writes exp_dir/ctrl/best.tar, the best distribution mean so far
on the selection tracks, and exp_dir/ctrl/checkpoint.tar, from which the same command continues. The workers' logs are
in exp_dir/tmp.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.controller import Architecture, Controller
from models.vae import LATENT_SIZE
from utils.checkpoints import file_to_resume, fingerprint, load_controller
from utils.cma_evolution import CmaEvolution
from utils.commandline import (
    UserError,
    add_device_argument,
    natural_float,
    natural_int,
    pick_device,
    population_size,
    positive_float,
    positive_int,
    run_script,
    script_parser,
    uninterrupted,
)
from utils.curves import draw_controller_curve
from utils.evolution_run import Evolution, EvolutionRun
from utils.logs import log_figures, open_writer
from utils.mirrored_evolution import MirroredEvolution
from utils.rollouts import Episode, Outcome, rollout_pool
from utils.tracks import evolution_tracks, selection_tracks
from utils.workers import WorkerPool, cores


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__)
    option = parser.add_argument
    option("--logdir", type=Path, required=True, help="run folder with V and M; C is written there")
    option("--inputs", choices=["zh", "z"], default="zh", help="what C sees: V's latent and M's state, or z alone")
    option("--hidden-units", type=natural_int, default=0, help="tanh units in a hidden layer of C; 0: C is linear")
    option(
        "--search",
        choices=["mirrored", "cma"],
        default="mirrored",
        help="mirrored pairs of candidates, or the paper's CMA-ES",
    )
    option("--pop-size", type=population_size, default=128, help="candidates in a generation")
    option("--n-samples", type=positive_int, default=1, help="tracks that every candidate of a generation drives")
    option(
        "--tracks",
        type=positive_int,
        help="tracks in a generation, dealt to the candidates in turn; without it, every pair has its own, and with "
        "--search cma all candidates drive the same --n-samples",
    )
    option(
        "--count-by",
        choices=["rank", "size"],
        help="how much a pair moves the mean: by the rank of its difference in return (default), or by the root of its "
        "size, so that a lost lap counts for more",
    )
    option("--target-return", type=float, default=950, help="stop when the mean reaches this on the selection tracks")
    option("--generations", type=positive_int, help="stop after this generation; without it, only at the target")
    option(
        "--sigma",
        type=positive_float,
        default=0.045,
        help="deviation of the candidates' weights (with cma the initial one); a resumed search takes a new one",
    )
    option(
        "--memory-scale",
        type=positive_float,
        default=1.0,
        help="how much more the weights of M's state vary than those of V's latent",
    )
    option(
        "--diagonal-generations",
        type=natural_int,
        help="with --search cma: the covariance is full after so many generations; without it, never",
    )
    option("--weight-decay", type=natural_float, default=0.0, help="fitness lost for a mean squared weight of 1")
    option("--warm-start", type=Path, metavar="LOGDIR", help="start from the controller of another run, not from zeros")
    option(
        "--patience",
        type=natural_int,
        default=100,
        help="end a training episode after so many steps without a new tile; 0: never",
    )
    option("--eval-every", type=positive_int, default=10, help="generations between two scorings of the mean")
    option("--eval-episodes", type=positive_int, default=64, help="selection tracks that the mean is scored on")
    option("--env", choices=["fast", "gymnasium"], default="fast", help="drawing of the environment")
    option("--max-workers", type=positive_int, default=cores(), help="rollout processes at most")
    option("--seed", type=natural_int, default=0, help="seed of the search and of its tracks")
    option("--display", action="store_true", help="show a progress bar for every generation")
    option("--noreload", action="store_true", help="start over instead of continuing")
    option("--float32", action="store_true", help="never compute in half precision")
    add_device_argument(parser)
    args = parser.parse_args()
    if args.search == "mirrored":
        pair_tracks = args.pop_size // 2 * args.n_samples
        args.tracks = args.tracks or pair_tracks
        if args.pop_size % 2:
            parser.error("argument --pop-size: pairs need an even number")
        if pair_tracks % args.tracks or args.tracks < args.n_samples:
            parser.error(f"argument --tracks: at least --n-samples, and a divisor of {pair_tracks}")
        if args.diagonal_generations is not None:
            parser.error("argument --diagonal-generations: only with --search cma")
    else:
        if args.count_by is not None:
            parser.error("argument --count-by: only with --search mirrored")
        args.tracks = args.tracks or args.n_samples
        if not args.n_samples <= args.tracks <= max(args.n_samples, args.pop_size * args.n_samples // 4):
            parser.error("argument --tracks: at least --n-samples, and so few that four candidates drive each")
    if args.diagonal_generations == 1:
        parser.error("argument --diagonal-generations: cma knows 0 and numbers above 1")
    return args


def main() -> None:
    args = parse_arguments()
    architecture = Architecture(args.inputs == "zh", args.hidden_units)
    folder = args.logdir / "ctrl"
    # A controller that may have come without its search, as those of the 2018 implementation do.
    found = not args.noreload and file_to_resume(folder) == folder / "best.tar"
    start = starting_point(args.warm_start or (args.logdir if found else None), architecture, args.seed)
    scales = search_scales(architecture, args.memory_scale)
    evolution: Evolution = (
        MirroredEvolution(start, scales, args.pop_size, args.sigma, args.seed, by_size=args.count_by == "size")
        if args.search == "mirrored"
        else CmaEvolution(start, scales, args.pop_size, args.sigma, args.seed, args.diagonal_generations)
    )
    measure = f"{args.eval_episodes} tracks ({args.env}) with {fingerprint(args.logdir, 'vae', 'mdrnn')}"
    run = EvolutionRun(folder, architecture, evolution, measure, keeps_best=found)
    if not args.noreload and run.resume():
        print(f"continuing after generation {evolution.generation}, step size {evolution.sigma:.4g}; {run.standing}")
        if args.warm_start:
            print("--warm-start does not count: the search has begun (--noreload starts over)")
    elif found and not args.warm_start:
        print(f"a new search begins at {folder / 'best.tar'}, which stays until a mean is scored")

    device = pick_device(args.device)
    episodes = args.pop_size * args.n_samples
    with (
        rollout_pool(args.logdir, architecture, args.env, device, args.max_workers, episodes, args.float32) as pool,
        open_writer(run.folder, done=evolution.generation) as writer,
    ):
        while not (finished := reason_to_stop(args, evolution.generation, run.best)):
            began = time.monotonic()
            generation = evolution.generation + 1
            candidates = evolution.ask()
            tracks = evolution_tracks(args.seed, generation, args.tracks)
            dealt = np.arange(episodes) % args.tracks  # which track each episode is on
            returns, lengths = drive(
                pool,
                [
                    Episode(candidates[i // args.n_samples], tracks[track], args.patience or None)
                    for i, track in enumerate(dealt)
                ],
                f"generation {generation}" if args.display else None,
            )
            scores = returns.reshape(args.pop_size, args.n_samples).mean(axis=1)
            # No candidate is to gain from an easy track: what counts is how much better it drove than the others there.
            ease = np.bincount(dealt, returns) / np.bincount(dealt)
            fitness = (returns - ease[dealt]).reshape(args.pop_size, args.n_samples).mean(axis=1)
            evolution.tell(fitness - args.weight_decay * (candidates**2).mean(axis=1))
            row = {
                "generation": generation,
                "episodes": run.episodes + episodes,
                "return/population": scores.mean(),
                "return/best": scores.max(),
                "return/worst": scores.min(),
                "return/spread": scores.std(),
                "length/mean": lengths.mean(),
                "sigma": evolution.sigma,
            }
            summary = f"generation {generation}: population {scores.mean():.1f} +- {scores.std():.1f}"

            if generation % args.eval_every == 0 or generation == args.generations:
                returns, lengths = drive(
                    pool,
                    [Episode(evolution.mean, track) for track in selection_tracks(args.eval_episodes)],
                    f"scoring the mean of generation {generation}" if args.display else None,
                )
                row["return/mean"] = returns.mean()
                row["return/mean_spread"] = returns.std()  # over the tracks
                row["length/evaluation"] = lengths.mean()
                error = returns.std() / len(returns) ** 0.5
                summary += f", mean of the distribution {returns.mean():.1f} +- {error:.1f} (standard error)"

            row["seconds"] = run.seconds + time.monotonic() - began
            row = {tag: float(value) for tag, value in row.items()}
            with uninterrupted():
                log_figures(writer, {tag: value for tag, value in row.items() if tag != "generation"}, generation)
                run.finish_generation(row)
                tqdm.write(f"{summary}, {time.monotonic() - began:.1f} s")
                if "return/mean" in row:
                    draw_controller_curve(run.history, run.folder / "curve.png")
    print(f"{finished}; {run.standing} ({run.folder / 'best.tar'})")


def starting_point(logdir: Path | None, architecture: Architecture, seed: int) -> np.ndarray:
    """Where the search begins: the controller of a run folder; without one, a controller that puts out zeros. Raises
    UserError if it is missing or of another architecture."""
    if logdir is None:
        # Its hidden units are random ones. Zeros would be a saddle: of a mirrored pair, both drive alike there.
        torch.manual_seed(seed)
        controller = Controller(architecture)
        torch.nn.init.zeros_(controller.fc.weight)
        torch.nn.init.zeros_(controller.fc.bias)
        return controller.to_vector().numpy()
    controller = load_controller(logdir)
    if controller.architecture != architecture:
        raise UserError(f"{logdir / 'ctrl' / 'best.tar'}: not a controller with these --inputs and --hidden-units")
    return controller.to_vector().numpy()


def search_scales(architecture: Architecture, memory_scale: float) -> np.ndarray:
    """How much each parameter varies (size,): 1, or `memory_scale` if it is a weight of M's state, whose numbers are
    smaller than V's."""
    controller = Controller(architecture)
    for parameter in controller.parameters():
        torch.nn.init.ones_(parameter)
    if architecture.sees_memory:
        first_layer = controller.hidden if architecture.hidden_units else controller.fc
        with torch.no_grad():
            first_layer.weight[:, LATENT_SIZE:] = memory_scale
    return controller.to_vector().numpy().astype(np.float64)


def drive(pool: WorkerPool, episodes: list[Episode], title: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the episodes, in their order; with a title, under a progress bar."""
    outcomes: list[Outcome | None] = [None] * len(episodes)
    results = pool.run(episodes)
    for number, outcome in tqdm(results, title, len(episodes), leave=False, disable=title is None, unit="episode"):
        outcomes[number] = outcome
    returns, lengths = np.array(outcomes).T
    return returns, lengths


def reason_to_stop(args: argparse.Namespace, generation: int, best: float) -> str | None:
    """Why there is no further generation to do, or None."""
    if best >= args.target_return:
        return f"target reached in generation {generation}"
    if args.generations is not None and generation >= args.generations:
        return f"{generation} generations done"
    return None


if __name__ == "__main__":
    run_script(main)
