"""What makes a driver good that learns in M's dream? Many drivers, with one thing changed at a time.

    python -m studies.dream_levers --logdir pretrained/dream --out my_results
    python -m studies.dream_levers    # prints the runs that are kept

C evolves from zeros as presets/dream says, in the dream of the M of --logdir, with each of --seeds seeds. What is
compared is its real return, on selection tracks in the fast environment: that of the mean that dreams best, after half
of the generations (rounded down) and after all. Each run is kept in <--out>/dream_levers/, and one that lies there is
not repeated, so that this may be stopped at any time.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from envs.games import DREAM
from evolution.run import open_run
from evolution.search import CMA_DIAGONAL, MIRRORED_BY_SIZE
from evolution.train import evolve
from studies.dreaming import as_preset
from studies.kept_runs import add_study_arguments, chosen_settings, draw_dots, keep_runs, read_kept_runs, with_error
from studies.scores import real_score
from utils.commandline import ScriptParser, positive_int, run_script
from utils.dreams import dream_pool
from utils.locks import locked
from utils.run_folder import copy_world, load_dreams
from utils.tracks import selection_tracks
from utils.workers import cores

Runs = dict[str, list[dict[str, Any]]]  # by setting


class Setting(NamedTuple):
    """What a run changes: options of traincontroller.py, and how long a dream is (steps; None: as an episode)."""

    options: tuple[object, ...] = ()
    horizon: int | None = None


SETTINGS = {
    "base": Setting(),
    "temperature 0.5": Setting(("--temperature", 0.5)),
    "temperature 1": Setting(("--temperature", 1)),
    "temperature 1.7": Setting(("--temperature", 1.7)),
    "dreams of 100 steps": Setting(horizon=100),
    "dreams of 300 steps": Setting(horizon=300),
    "all dreams begin anywhere": Setting(("--beginnings", 0)),
    "all dreams begin where rollouts do": Setting(("--beginnings", 1)),
    "z and h": Setting(("--inputs", "zh")),
    "pairs count by size": Setting(("--search", MIRRORED_BY_SIZE)),
    "sigma 0.025": Setting(("--sigma", 0.025)),
    "CMA-ES": Setting(("--search", CMA_DIAGONAL, "--pop-size", 32, "--n-samples", 4, "--sigma", 0.1)),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    add_study_arguments(parser)
    parser.add_argument("--generations", type=positive_int, default=80, help="of a run")
    args = parser.parse_args(argv)
    args.only = chosen_settings(parser, args.only, SETTINGS)
    if args.generations < 2:
        parser.error("argument --generations: at least 2, because C is scored after half of them as well")

    out = args.out / "dream_levers"
    if args.logdir:
        runs = [(name, seed) for seed in range(args.seeds) for name in args.only]
        keep_runs(args, out, runs, {"generations": args.generations, "tracks": args.tracks}, train_one)
    kept = dict(sorted(read_kept_runs(out).items(), key=lambda item: -mean(real_means(item[1]))))
    print_table(kept)
    dots = {name: ([run["scores"][-1]["dreamed"] for run in group], real_means(group)) for name, group in kept.items()}
    draw_dots(dots, ("dreamed", "real"), "return; a dot is a run", args.out / "dream_levers.png")


def train_one(args: Any, folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Evolve C in the dream; its dreamed mean and its real returns after half of the generations and after all."""
    setting = SETTINGS[name]
    copy_world(args.logdir, folder)
    game, sizes, settings, dreaming = as_preset(folder, "--seed", seed, *setting.options)
    dreams = load_dreams(folder, replace(dreaming, horizon=setting.horizon))
    scores = []
    with locked(folder / "ctrl"):
        run = open_run(folder, game, DREAM, sizes, settings, None, reload=False)
        for generations in (args.generations // 2, args.generations):
            with dream_pool(dreams, sizes, cores(), settings.episodes, folder / "tmp") as pool:
                evolve(run, settings, pool, generations=generations)
            returns, _ = real_score(folder, selection_tracks(args.tracks))
            print(f"dreamed {run.best:.1f}, real {returns.mean():.1f} +- {returns.std():.1f}")
            scores.append({"generations": generations, "dreamed": run.best, "real": returns.tolist()})
    return {"options": setting._asdict(), "scores": scores}


def real_means(runs: list[dict[str, Any]], which: int = -1) -> list[float]:
    """The mean real return of each run, at its end or after half."""
    return [mean(run["scores"][which]["real"]) for run in runs]


def print_table(runs: Runs) -> None:
    print("\n| setting | runs | dreamed | real at half | real | each run | over tracks | below 500 |")
    print("|---|---|---|---|---|---|---|---|")
    for name, group in runs.items():
        real = np.array([run["scores"][-1]["real"] for run in group])
        cells = [name, f"{len(group)}", with_error([run["scores"][-1]["dreamed"] for run in group])]
        cells += [with_error(real_means(group, 0)), with_error(real_means(group))]
        cells += [" ".join(f"{value:.0f}" for value in real_means(group))]
        cells += [f"± {real.std(axis=1).mean():.0f}", f"{(real < 500).mean():.0%}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    run_script(main)
