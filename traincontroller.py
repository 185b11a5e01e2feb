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
from utils.checkpoints import (
    fingerprint,
    load_checkpoint,
    load_controller,
    save_checkpoint,
)
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
from utils.logs import log_figures, open_writer
from utils.mirrored_evolution import MirroredEvolution
from utils.rollouts import Episode, Outcome, rollout_pool
from utils.tracks import evolution_tracks, selection_tracks
from utils.workers import WorkerPool, cores

Evolution = MirroredEvolution | CmaEvolution


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
    option("--target-return", type=float, default=950, help="stop when the mean reaches this on the selection tracks")
    option("--generations", type=positive_int, help="stop after this generation; without it, only at the target")
    option(
        "--sigma",
        type=positive_float,
        default=0.025,
        help="deviation of the candidates' weights (with cma the initial one); a resumed search takes a new one",
    )
    option(
        "--memory-scale",
        type=positive_float,
        default=4.0,
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
        args.tracks = args.tracks or args.n_samples
        if not args.n_samples <= args.tracks <= max(args.n_samples, args.pop_size * args.n_samples // 4):
            parser.error("argument --tracks: at least --n-samples, and so few that four candidates drive each")
    if args.diagonal_generations == 1:
        parser.error("argument --diagonal-generations: cma knows 0 and numbers above 1")
    return args


def main() -> None:
    args = parse_arguments()
    folder = args.logdir / "ctrl"
    architecture = Architecture(args.inputs == "zh", args.hidden_units)
    start = starting_point(args.warm_start, architecture, args.seed)
    scales = search_scales(architecture, args.memory_scale)
    evolution: Evolution = (
        MirroredEvolution(start, scales, args.pop_size, args.sigma, args.seed)
        if args.search == "mirrored"
        else CmaEvolution(start, scales, args.pop_size, args.sigma, args.seed, args.diagonal_generations)
    )
    measure = f"{args.eval_episodes} tracks with {fingerprint(args.logdir, 'vae', 'mdrnn')}"  # of the best mean
    history: list[dict[str, float]] = []  # one row a generation
    best = -float("inf")
    if not args.noreload and (folder / "checkpoint.tar").exists():
        history, best = resume(folder / "checkpoint.tar", evolution, measure)
        print(f"continuing after generation {evolution.generation}, step size {evolution.sigma:.4g}; {standing(best)}")
        if args.warm_start:
            print("--warm-start does not count: the search has begun (--noreload starts over)")

    device = pick_device(args.device)
    episodes = args.pop_size * args.n_samples
    with (
        rollout_pool(args.logdir, architecture, args.env, device, args.max_workers, episodes, args.float32) as pool,
        open_writer(folder, done=evolution.generation) as writer,
    ):
        while not (finished := reason_to_stop(args, evolution.generation, best)):
            start = time.monotonic()
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
                "episodes": (history[-1]["episodes"] if history else 0) + episodes,
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

            row["seconds"] = (history[-1]["seconds"] if history else 0) + time.monotonic() - start
            history.append({tag: float(value) for tag, value in row.items()})
            with uninterrupted():
                figures = {tag: value for tag, value in history[-1].items() if tag != "generation"}
                log_figures(writer, figures, generation)
                best = save(folder, architecture, evolution, history, best, measure)
                tqdm.write(f"{summary}, {time.monotonic() - start:.1f} s")
                if "return/mean" in row:
                    draw_controller_curve(history, folder / "curve.png")
    print(f"{finished}; {standing(best)} ({folder / 'best.tar'})")


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
    small and more telling than V's."""
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


def standing(best: float) -> str:
    """The best score in words."""
    if best == -float("inf"):
        return "the mean has no score yet with this V and M"
    return f"best mean on the selection tracks: {best:.1f}"


def reason_to_stop(args: argparse.Namespace, generation: int, best: float) -> str | None:
    """Why there is no further generation to do, or None."""
    if best >= args.target_return:
        return f"target reached in generation {generation}"
    if args.generations is not None and generation >= args.generations:
        return f"{generation} generations done"
    return None


def save(
    folder: Path,
    architecture: Architecture,
    evolution: Evolution,
    history: list[dict[str, float]],
    best: float,
    measure: str,
) -> float:
    """Write checkpoint.tar, and best.tar if the mean was just scored better than ever or none was ever scored;
    returns the best score."""
    score = history[-1].get("return/mean")
    improved = score is not None and score > best
    best = score if improved else best
    state = {
        "state_dict": Controller.from_vector(architecture, torch.from_numpy(evolution.mean)).state_dict(),
        "epoch": evolution.generation,
        "reward": best,
        "measure": measure,  # what "reward" is the mean return over
        "evolution": evolution.state_dict(),
        "history": history,
    }
    # best.tar first: if the run dies between the two, the generation is done again and best.tar written again.
    if improved or not any("return/mean" in row for row in history):
        save_checkpoint(folder / "best.tar", state)
    save_checkpoint(folder / "checkpoint.tar", state)
    return best


def resume(path: Path, evolution: Evolution, measure: str) -> tuple[list[dict[str, float]], float]:
    """Continue the search saved in `path`; returns its history and best score, which does not count any more if
    it was measured otherwise. Raises UserError if that cannot be."""
    remedy = "use the settings it was started with, or add --noreload to start over"
    state = load_checkpoint(path, remedy)
    try:
        evolution.load_state_dict(state["evolution"])
        if state.get("measure") != measure:
            print("V, M or --eval-episodes have changed: the best mean so far does not count any more")
            return state["history"], -float("inf")
        return state["history"], float(state["reward"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: cannot be resumed from ({error}); {remedy}") from None


if __name__ == "__main__":
    run_script(main)
