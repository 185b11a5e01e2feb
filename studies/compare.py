"""Trains many controllers that differ in one point, and compares them.

    python -m studies.compare levers --logdir exp_dir --episodes 1280 --out my_results    # what makes evolution cheap?
    python -m studies.compare ablations --logdir exp_dir --out my_results    # what does C need to see?
    python -m studies.compare levers    # prints the runs that are kept

Every setting is tried with each of --seeds seeds, the V and M of --logdir, and the same budget of episodes. What is
compared is the distribution's mean after half of the generations (rounded down) and after all, on tracks that are never
driven in evolution. Each run is kept in <--out>/<study>/, and one that lies there is not repeated, so that this may be
stopped at any time.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch

from evolution.run import open_run
from evolution.search import CMA, CMA_DIAGONAL, MIRRORED, MIRRORED_BY_SIZE, SearchSettings
from evolution.train import evolve
from studies.kept_runs import add_study_arguments, chosen_settings, draw_dots, keep_runs, read_kept_runs, with_error
from utils.commandline import ScriptParser, UserError, positive_int, run_script
from utils.locks import locked
from utils.rollouts import rollout_pool
from utils.run_folder import copy_world, load_game, load_world_weights
from utils.workers import cores

ROOT = Path(__file__).parent.parent
# What a setting does not change.
BASE = SearchSettings(MIRRORED, population=128, samples=1, sigma=0.025, memory_sigma=0.1, patience=100)
EQUAL = {"sigma": 0.045, "memory_sigma": 0.045}
FEWER = {"population": 32, "samples": 4}  # the same episodes a generation, on common tracks
Runs = dict[str, list[list[dict[str, float]]]]  # by setting: the scored generations of every run


class Setting(NamedTuple):
    """What a run changes: of the search, of C's sizes; which stages are left untrained, and whether C begins at the
    first round's."""

    search: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    untrained: tuple[str, ...] = ()
    warm: bool = False

    def generations(self, episodes: int) -> int:
        """How many generations a budget of episodes is enough for."""
        return episodes // replace(BASE, **self.search).episodes

    def settings(self, episodes: int, tracks: int, seed: int) -> SearchSettings:
        every = max(1, self.generations(episodes) // 2)
        return replace(BASE, **self.search, seed=seed, eval_every=every, eval_episodes=tracks)


STUDIES: dict[str, dict[str, Setting]] = {
    "searches": {
        "mirrored pairs": Setting(EQUAL),
        "CMA-ES, diagonal": Setting(EQUAL | FEWER | {"search": CMA_DIAGONAL}),
        "CMA-ES, diagonal, sigma 0.025, of h 0.1": Setting(FEWER | {"search": CMA_DIAGONAL}),
        "CMA-ES, diagonal, 64 candidates on 2 of 16 tracks": Setting(
            EQUAL | {"search": CMA_DIAGONAL, "population": 64, "samples": 2, "tracks": 16}
        ),
        "CMA-ES, full covariance": Setting(EQUAL | FEWER | {"search": CMA}),
        "CMA-ES, full covariance, sigma 0.1": Setting(FEWER | {"search": CMA, "sigma": 0.1, "memory_sigma": 0.1}),
        "CMA-ES, diagonal, sigma 0.1": Setting(FEWER | {"search": CMA_DIAGONAL, "sigma": 0.1, "memory_sigma": 0.1}),
    },
    "levers": {
        "base": Setting(),
        "CMA-ES": Setting(FEWER | {"search": CMA_DIAGONAL}),
        "weights of h vary as those of z": Setting(EQUAL),
        "CMA-ES, weights of h vary as those of z": Setting(
            FEWER | {"search": CMA_DIAGONAL, "sigma": 0.08, "memory_sigma": 0.08}
        ),
        "sigma 0.0125": Setting({"sigma": 0.0125, "memory_sigma": 0.05}),
        "sigma 0.05": Setting({"sigma": 0.05, "memory_sigma": 0.2}),
        "population 64, 2 tracks": Setting({"population": 64, "samples": 2}),
        "population 256": Setting({"population": 256}),
        "all on the same 4 tracks": Setting(FEWER | {"tracks": 4}),
        "no early end": Setting({"patience": 0}),
        "weight decay 100": Setting({"weight_decay": 100.0}),
        "CMA-ES, full covariance": Setting(FEWER | {"search": CMA}),
        "pairs count by size": Setting({"search": MIRRORED_BY_SIZE}),
        "from the driver of round 0": Setting(warm=True),
    },
    "ablations": {
        "z and h": Setting(),
        "z": Setting(sizes={"inputs": "z"}),
        "z, 40 hidden units": Setting(sizes={"inputs": "z", "hidden_units": 40}),
        "untrained M": Setting(untrained=("mdrnn",)),
        "untrained V and M": Setting(untrained=("vae", "mdrnn")),
    },
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("study", choices=list(STUDIES), help="which settings to compare")
    add_study_arguments(parser)
    parser.add_argument(
        "--dataset", type=Path, default=Path("datasets/carracing"), help="rollouts, for untrained models"
    )
    parser.add_argument("--episodes", type=positive_int, default=2560, help="budget of a run")
    args = parser.parse_args(argv)
    args.only = chosen_settings(parser, args.only, STUDIES[args.study])

    out = args.out / args.study
    if args.logdir:
        runs = [(name, seed) for seed in range(args.seeds) for name in args.only]
        keep_runs(args, out, runs, {"episodes": args.episodes, "tracks": args.tracks}, train_one, check)
    kept = read_runs(out)
    print_table(kept)
    means = {
        name: tuple([run[which]["return/mean"] for run in scored] for which in (0, -1)) for name, scored in kept.items()
    }
    labels = ("after half of the episodes", "after all")
    draw_dots(means, labels, "return of the distribution's mean; a dot is a run", args.out / f"{args.study}.png")


def check(args: Any, name: str) -> None:
    """Raises UserError if a run of this setting cannot be trained."""
    setting, first = STUDIES[args.study][name], driver_of_round_0(args.logdir)
    if not setting.generations(args.episodes):
        raise UserError(f"--episodes {args.episodes}: too few for a generation of {name!r}")
    if setting.warm and not (first / "ctrl" / "best.tar").exists():
        raise UserError(f"{first}: no driver for {name!r}; make reproduce leaves one, and --only does without")


def driver_of_round_0(logdir: Path) -> Path:
    """The run folder beside this one, as make reproduce leaves it: the V and M of round_1 have learned on from its."""
    return logdir.parent / "round_0"


def train_one(args: Any, folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Train a run's C, going on if it was stopped; returns its history, whose last row has the mean's score."""
    setting = STUDIES[args.study][name]
    copy_world(args.logdir, folder)
    for stage in setting.untrained:
        script = f"train{stage}.py"
        options = ["--logdir", folder, "--dataset", args.dataset, "--epochs", 0, "--seed", seed, "--noreload"]
        if subprocess.run([sys.executable, ROOT / script, *map(str, options)]).returncode != 0:
            raise UserError(f"{script} failed, see above")
    game, sizes = load_game(folder)
    sizes = replace(sizes, **setting.sizes)
    settings = setting.settings(args.episodes, args.tracks, seed)
    warm_start = driver_of_round_0(args.logdir) if setting.warm else None
    kind, device, logs = game.training_kind, torch.device("cpu"), folder / "tmp"
    with locked(folder / "ctrl"):
        run = open_run(folder, game, kind, sizes, settings, warm_start, reload=True)
        weights = load_world_weights(folder, sizes)
        with rollout_pool(game, kind, weights, device, cores(), settings.episodes, logs) as pool:
            evolve(run, settings, pool, generations=setting.generations(args.episodes))
    return {"options": setting._asdict(), "history": run.history}


def read_runs(folder: Path) -> Runs:
    """The runs kept in a folder, best setting first."""
    kept = read_kept_runs(folder)
    runs = {
        name: [[row for row in run["history"] if "return/mean" in row] for run in group] for name, group in kept.items()
    }
    return dict(sorted(runs.items(), key=lambda item: -mean([run[-1]["return/mean"] for run in item[1]])))


def print_table(runs: Runs) -> None:
    print("\n| setting | runs | episodes | mean at half | mean | each run | over tracks | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for name, scored in runs.items():
        half, whole = ([run[i]["return/mean"] for run in scored] for i in (0, -1))
        cells = [name, len(scored), f"{scored[0][-1]['episodes']:.0f}", with_error(half), with_error(whole)]
        cells += [" ".join(f"{value:.0f}" for value in whole)]
        cells += [f"± {mean([run[-1]['return/mean_spread'] for run in scored]):.0f}"]
        cells += [f"{mean([run[-1]['seconds'] for run in scored]) / 60:.1f}"]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    run_script(main)
