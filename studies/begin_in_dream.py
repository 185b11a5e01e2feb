"""What a dream saves a driver that ends in reality: real episodes to a good driver, from different starts.

    python -m studies.begin_in_dream --logdir pretrained/dream --out my_results
    python -m studies.begin_in_dream    # prints the runs that are kept

C sees z and evolves in the fast environment, with the V and M of --logdir, by mirrored pairs. Where a setting says so,
it dreams first, or between the real generations as well. Its mean is scored on selection tracks after every real
generation, until it reaches the highest target. Each run is kept in <--out>/begin_in_dream/, and one that lies there is
not repeated, so that this may be stopped at any time.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from evolution.run import open_run
from evolution.search import MIRRORED, MIRRORED_BY_SIZE
from evolution.train import evolve
from studies.dreaming import as_preset
from studies.kept_runs import add_study_arguments, chosen_settings, keep_runs, read_kept_runs, with_error
from utils.commandline import ScriptParser, positive_int, run_script
from utils.dreams import dream_pool
from utils.locks import locked
from utils.rollouts import rollout_pool
from utils.run_folder import copy_world, load_dreams, load_world_weights
from utils.workers import cores

TARGETS = (850, 906, 915)
Runs = dict[str, list[dict[str, Any]]]  # by setting


class Setting(NamedTuple):
    """Generations that are dreamed before the first real one, and before each of the others; whether C begins at that
    of --logdir instead of zeros; how pairs count, and the deviation of the candidates' weights."""

    first: int = 0
    between: int = 0
    warm: bool = False
    search: str = MIRRORED
    sigma: float = 0.05


SETTINGS = {
    "zeros": Setting(),
    "80 dreamed generations": Setting(first=80),
    "80 dreamed generations, then 8 between the real ones": Setting(first=80, between=8),
    "the driver of the dream": Setting(warm=True, search=MIRRORED_BY_SIZE, sigma=0.025),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    add_study_arguments(parser)
    parser.add_argument("--generations", type=positive_int, default=16, help="real ones of a run, at most")
    args = parser.parse_args(argv)
    args.only = chosen_settings(parser, args.only, SETTINGS)

    out = args.out / "begin_in_dream"
    if args.logdir:
        runs = [(name, seed) for seed in range(args.seeds) for name in args.only]
        keep_runs(args, out, runs, {"generations": args.generations, "tracks": args.tracks}, train_one)
    kept = read_kept_runs(out)
    print_table(kept)
    draw(kept, args.out / "begin_in_dream.png")


def train_one(args: Any, folder: Path, name: str, seed: int) -> dict[str, Any]:
    """The mean's score on the selection tracks after each real generation, its standard error over them, and how many
    real episodes C has learned from."""
    setting = SETTINGS[name]
    copy_world(args.logdir, folder)
    options = ["--seed", seed, "--eval-episodes", args.tracks, "--search", setting.search, "--sigma", setting.sigma]
    game, sizes, settings, dreaming = as_preset(folder, *options)
    settings = replace(settings, eval_every=1)
    kind, device, logs = game.training_kind, torch.device("cpu"), folder / "tmp"
    scores = []
    with locked(folder / "ctrl"):
        run = open_run(folder, game, kind, sizes, settings, args.logdir if setting.warm else None, reload=False)
        dreams, weights = load_dreams(folder, dreaming), load_world_weights(folder, sizes)
        with (
            dream_pool(dreams, sizes, cores(), settings.episodes, logs) as dream,
            rollout_pool(game, kind, weights, device, cores(), settings.episodes, logs) as reality,
        ):
            for number in range(1, args.generations + 1):
                dreamed = setting.first if number == 1 else setting.between
                evolve(run, replace(settings, eval_episodes=1), dream, generations=run.evolution.generation + dreamed)
                evolve(run, settings, reality, generations=run.evolution.generation + 1)
                row = run.history[-1]
                scores.append({"episodes": number * settings.episodes, "mean": row["return/mean"]})
                scores[-1]["error"] = row["return/mean_error"]
                if row["return/mean"] >= max(TARGETS):
                    break
    return {"options": setting._asdict(), "scores": scores}


def print_table(runs: Runs) -> None:
    titles = ["C begins at", "runs", *(f"real episodes to {target}" for target in TARGETS), "best mean"]
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name, group in runs.items():
        cells = [name, f"{len(group)}"]
        cells += [" ".join(episodes_to(target, run["scores"]) for run in group) for target in TARGETS]
        cells += [with_error([max(row["mean"] for row in run["scores"]) for run in group])]
        print(f"| {' | '.join(cells)} |")


def episodes_to(target: float, scores: list[dict[str, float]]) -> str:
    """How many real episodes C learned from until its mean first reached the target."""
    reached = [row["episodes"] for row in scores if row["mean"] >= target]
    return f"{reached[0]:.0f}" if reached else f"(not in {scores[-1]['episodes']:.0f})"


def draw(runs: Runs, path: Path) -> None:
    """The mean's score over the real episodes that C has learned from: a line for every run; at the right, its top."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    whole, top = figure.subplots(1, 2, sharex=True)
    for axes in (whole, top):
        for number, (name, group) in enumerate(runs.items()):
            for run in group:
                episodes, means = ([row[key] for row in run["scores"]] for key in ("episodes", "mean"))
                axes.plot(episodes, means, marker=".", color=f"C{number}", label=name if run is group[0] else None)
        for target in TARGETS:
            axes.axhline(target, color="gray", linewidth=0.8, linestyle="--")
        axes.set(xlabel="real episodes that C has learned from")
        axes.grid(alpha=0.3)
    whole.set(ylabel="return of the mean")
    whole.legend(title="C begins at", fontsize=8)
    top.set_ylim(min(TARGETS) - 20, max(TARGETS) + 10)
    top.set_yticks(TARGETS)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script(main)
